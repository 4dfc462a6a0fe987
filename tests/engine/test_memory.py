"""MXFP4 stays MXFP4 in memory: what a serving engine holds beside its KV cache are the checkpoint's bytes."""

import gc

import pytest
import torch
from vllm import SamplingParams

from vllm_gptoss.tiny import write_random

KV_CACHE = 16 << 20
STEP_BUFFERS = 4 << 20
"""vLLM's input batches, for any model."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "experts"
    write_random(folder, layers=2, hidden=512, intermediate=512, experts=64, vocab=2048)
    return folder


def resident_bytes() -> int:
    """Memory of all tensors of this process, each storage once."""
    gc.unfreeze()  # vLLM's engine freezes what stands after start-up, which hides it
    storages = (value.untyped_storage() for value in gc.get_objects() if issubclass(type(value), torch.Tensor))
    held = {storage.data_ptr(): storage.nbytes() for storage in storages if storage.device.type == "cpu"}
    return sum(held.values())


def test_resident_weights_are_the_checkpoint(engine, checkpoint):
    published = sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))
    before = resident_bytes()
    options = {"max_model_len": 256, "max_num_seqs": 4, "max_num_batched_tokens": 256}
    with engine(checkpoint, dtype="bfloat16", kv_cache_memory_bytes=KV_CACHE, **options) as llm:
        model = llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker.get_model()
        weights = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
        assert 0.95 * published < weights <= 1.05 * published

        sampling = SamplingParams(max_tokens=4, ignore_eos=True, detokenize=False)
        llm.generate([{"prompt_token_ids": list(range(200))}], sampling, use_tqdm=False)
        grown = resident_bytes() - before
        assert published < grown <= 1.05 * published + KV_CACHE + STEP_BUFFERS
