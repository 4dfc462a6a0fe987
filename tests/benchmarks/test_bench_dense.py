"""What the benchmark of projections measures and sweeps, where there is no GPU to ask."""

from types import SimpleNamespace

import pytest
import torch

from benchmarks import bench_dense, expert_products
from vllm_gptoss.kernels.tuning import DenseConfig, WideDenseConfig

PROCESSORS, SHARED = 132, 228 << 10
"""Of an H200."""


@pytest.fixture(autouse=True)
def h200(monkeypatch):
    found = SimpleNamespace(multi_processor_count=PROCESSORS, shared_memory_per_multiprocessor=SHARED)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: found)
    monkeypatch.setattr(expert_products, "is_hopper", lambda: True)


@pytest.mark.parametrize("shape", bench_dense.SHAPES.values(), ids=bench_dense.SHAPES)
@pytest.mark.parametrize("tokens", bench_dense.BATCHES)
def test_what_is_picked_is_among_the_swept(tokens, shape):
    picked = bench_dense.pick(tokens, *shape)
    assert isinstance(picked, DenseConfig if tokens <= 16 else WideDenseConfig)
    swept = list(bench_dense.configs(picked, *shape))
    assert picked in swept
    assert len(swept) > 10


@pytest.mark.parametrize("shape", bench_dense.SHAPES.values(), ids=bench_dense.SHAPES)
def test_the_swept_run_at_once(shape):
    for config in bench_dense.configs(bench_dense.pick(8, *shape), *shape):
        at_once = -(-shape[0] // (config.rows * PROCESSORS))
        assert at_once * 128 * config.warps * config.rows * config.stages * config.burst < SHARED


@pytest.mark.parametrize(("is_hopper", "tokens", "most"), [(True, 65, 64), (False, 17, 16)])
def test_what_cublas_computes_is_refused(is_hopper, tokens, most, monkeypatch):
    monkeypatch.setattr(expert_products, "is_hopper", lambda: is_hopper)
    with pytest.raises(
        SystemExit, match=f"of {tokens} tokens are cuBLAS's on this GPU: name --batches of up to {most}"
    ):
        bench_dense.pick(tokens, 5120, 2880)
