"""Prompts of any length at the sizes of 20b: nothing is compiled for them, and the numbers are those of few tokens."""

import random

import pytest
import torch

from vllm_gptoss import ops
from vllm_gptoss.tiny import write_random


@pytest.fixture(scope="module")
def llm(gpu_engine, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "20b"
    write_random(folder, shape="20b", layers=2)
    options = {"max_num_seqs": 4, "max_model_len": 8192, "max_num_batched_tokens": 4096}
    with gpu_engine(folder, **options) as llm:
        yield llm


def experts_of(llm):
    worker = llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker
    return worker.get_model().model.layers[0].mlp.experts.routed_experts


def test_nothing_is_compiled_for_a_length(llm, monkeypatch):
    from vllm import SamplingParams
    from vllm.utils import jit_monitor

    # vLLM watches from the end of its start, and warns by default.
    assert jit_monitor.is_active()
    monkeypatch.setattr(jit_monitor, "_mode", "error")
    sampling = SamplingParams(temperature=0, max_tokens=1, ignore_eos=True, detokenize=False)
    choose = random.Random(0)
    for length in (513, 514, 516, 528, 600, *choose.sample(range(513, 8000), 20)):
        asked = {"prompt_token_ids": choose.choices(range(1000), k=length)}
        (output,) = llm.generate(asked, sampling, use_tqdm=False)
        assert len(output.outputs[0].token_ids) == 1


@pytest.mark.parametrize("tokens", [ops.MAX_ROUTED_TOKENS + 1, 576, 1000, 4095])
def test_many_tokens_as_few_at_a_time(llm, tokens):
    """As this package's kernels, but for the tokens whose choice a rounding of their logits decides."""
    layer = experts_of(llm)
    method = layer.quant_method
    generator = torch.Generator("cuda").manual_seed(tokens)
    x = torch.randn(tokens, layer.hidden_size, generator=generator, device="cuda", dtype=torch.bfloat16)
    with torch.inference_mode():
        found = method.apply_monolithic(layer, x, x).float()
        router = method.router.weight, method.router.bias
        settings = layer.top_k, layer.swiglu_alpha, layer.swiglu_limit
        expected = ops.routed_experts(x, *router, method.experts, *settings).float()
    off = (found - expected).norm(dim=1) / expected.norm(dim=1)
    assert found.shape == expected.shape
    assert (off < 1e-2).float().mean() > 0.97
