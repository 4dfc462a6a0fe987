"""Loading: weights are put in order in place, and kernels that compute something else are replaced by vLLM's."""

import time

import pytest
import torch

from vllm_gptoss import ops
from vllm_gptoss.tiny import write_random

PEAK = 1 << 30
"""Bytes that loading may take beyond the weights."""

CHECK_SECONDS = 1.0
"""What the check of the kernels may cost, once they are compiled."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Two layers of 20b, in the sizes that vLLM's kernels serve too: 0.4 GB of experts a layer."""
    folder = tmp_path_factory.mktemp("checkpoints") / "20b"
    write_random(folder, shape="20b", layers=2)
    return folder


@pytest.fixture
def start(gpu_engine, checkpoint):
    return lambda **options: gpu_engine(checkpoint, max_num_seqs=4, max_model_len=512, enforce_eager=True, **options)


def greedy(llm) -> list[int]:
    from vllm import SamplingParams

    sampling = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True, detokenize=False)
    (output,) = llm.generate({"prompt_token_ids": list(range(1, 50))}, sampling, use_tqdm=False)
    return list(output.outputs[0].token_ids)


def test_peak_of_loading(start, checkpoint, monkeypatch):
    from vllm.v1.worker.gpu_worker import Worker

    seen = {}
    load = Worker.load_model

    def watched(self, *args, **kwargs):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        load(self, *args, **kwargs)
        torch.cuda.synchronize()
        seen["held"] = torch.cuda.memory_allocated() - before
        seen["peak"] = torch.cuda.max_memory_allocated() - before

    monkeypatch.setattr(Worker, "load_model", watched)
    with start():
        pass
    published = sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))
    assert seen["held"] <= 1.05 * published
    assert seen["peak"] - seen["held"] <= PEAK


def test_the_check_is_quick(start, monkeypatch):
    from vllm_gptoss.model import gpu_experts

    seconds = []

    class Timed(gpu_experts.SelfCheck):
        def __init__(self, layer) -> None:
            torch.cuda.synchronize()
            begin = time.perf_counter()
            super().__init__(layer)
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - begin)

        def error(self, experts) -> float:
            super().error(experts)
            begin = time.perf_counter()
            error = super().error(experts)
            seconds.append(time.perf_counter() - begin)
            return error

    monkeypatch.setattr(gpu_experts, "SelfCheck", Timed)
    with start():
        pass
    assert len(seconds) == 2
    assert sum(seconds) < CHECK_SECONDS


def test_kernels_that_are_off_are_replaced_by_vllms(start, monkeypatch, caplog):
    """One layer's output off by 1 %: a warning says so, and the answers are those of vLLM's kernels."""
    with start(additional_config={"gptoss_kernels": "vllm"}) as llm:
        expected = greedy(llm)
    correct = ops.expert_products
    monkeypatch.setattr(ops, "expert_products", lambda *args: correct(*args) * 1.01)
    monkeypatch.setattr("vllm_gptoss.model.gpu_experts.logger.propagate", True)
    with caplog.at_level("WARNING"), start() as llm:
        monkeypatch.setattr(ops, "expert_products", None)
        assert greedy(llm) == expected
    assert "are off by 1.0e-02" in caplog.text
