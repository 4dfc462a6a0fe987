"""What cannot work without an accelerator is refused with a reason."""

import pytest
from vllm.config import CompilationMode, CUDAGraphMode
from vllm.engine.arg_utils import EngineArgs

from vllm_gptoss import plugin


@pytest.fixture
def configure(random_checkpoint):
    plugin.register()

    def create(**options):
        args = EngineArgs(str(random_checkpoint), skip_tokenizer_init=True, max_model_len=512, **options)
        return args.create_engine_config()

    return create


def test_defaults_need_no_flags(configure):
    config = configure()
    assert config.compilation_config.mode == CompilationMode.NONE
    assert config.compilation_config.cudagraph_mode == CUDAGraphMode.NONE
    assert config.parallel_config.worker_cls == "vllm_gptoss.cpu.worker.CpuWorker"
    assert not config.use_v2_model_runner


REFUSED = {
    "cuda graphs": ({"compilation_config": {"cudagraph_mode": "FULL"}}, "CUDA graphs need a GPU"),
    "capture sizes": ({"compilation_config": {"cudagraph_capture_sizes": [1, 2]}}, "CUDA graphs need a GPU"),
    "torch.compile": ({"compilation_config": {"mode": 3}}, "compilation mode VLLM_COMPILE"),
    "ngram drafts": (
        {"speculative_config": {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 2}},
        r"speculative decoding \(ngram\) needs a GPU",
    ),
    "fp8 kv cache": ({"kv_cache_dtype": "fp8"}, "kv_cache_dtype fp8 needs a GPU"),
    "lora": ({"enable_lora": True}, "LoRA adapters need a GPU"),
    "data parallelism": ({"data_parallel_size": 2}, r"data parallelism \(2\) needs a GPU"),
    "sleep mode": ({"enable_sleep_mode": True}, "[Ss]leep mode"),
    "attention backend": ({"attention_config": {"backend": "FLASH_ATTN"}}, "FLASH_ATTN needs an accelerator"),
}


@pytest.mark.parametrize(("options", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_work_is_refused_with_a_reason(configure, options, reason):
    with pytest.raises(ValueError, match=reason):
        configure(**options)
