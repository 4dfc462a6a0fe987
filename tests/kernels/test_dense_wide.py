"""The dense layer for many tokens against fp64, compiled on a GPU and interpreted on a CPU."""

from typing import NamedTuple

import pytest
import torch
from sizes import cases

from vllm_gptoss.kernels.capability import HOPPER, capability
from vllm_gptoss.kernels.dense import dense_ref
from vllm_gptoss.kernels.dense_wide import MAX_TOKENS, dense_wide
from vllm_gptoss.kernels.tuning import WideDenseConfig, pick_wide_dense

SMALL = WideDenseConfig(32, 3)


class Case(NamedTuple):
    tokens: int
    rows: int
    columns: int
    config: WideDenseConfig
    has_bias: bool = True


CASES = {
    "17 tokens": Case(17, 80, 320, SMALL),
    "64 tokens": Case(64, 64, 256, SMALL),
    "no bias": Case(33, 80, 320, SMALL, has_bias=False),
    "one step": Case(20, 40, 72, SMALL),
    "columns end within a step": Case(40, 96, 648, SMALL),
    "fewer steps than stages": Case(33, 80, 320, SMALL._replace(stages=6)),
    "64 rows": Case(33, 200, 328, WideDenseConfig(64, 2)),
    "eight warps": Case(50, 200, 328, WideDenseConfig(64, 4, 8)),
}

QKV, OUTPUT = (5120, 2880), (2880, 4096)

LARGE = {
    **{f"qkv of {m}": Case(m, *QKV, pick_wide_dense(*QKV)) for m in (17, 32, 64)},
    **{f"output of {m}": Case(m, *OUTPUT, pick_wide_dense(*OUTPUT)) for m in (17, 64)},
}


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """Nothing may be read that no kernel has written."""
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *args, **kwargs: empty(*args, **kwargs).fill_(torch.nan))


@pytest.fixture(autouse=True)
def on_hopper(device):
    if str(device) != "cpu" and capability(torch.device(device)) != HOPPER:
        pytest.skip("a warpgroup's products are Hopper's")


@pytest.mark.parametrize("case", cases(CASES, LARGE))
def test_dense_wide(case, device):
    generator = torch.Generator().manual_seed(case.rows + case.columns + case.tokens)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).bfloat16().to(device)

    # What follows the last token is not a number.
    batch = torch.full((MAX_TOKENS + 1, case.columns), torch.nan, dtype=torch.bfloat16, device=device)
    batch[: case.tokens] = normal(case.tokens, case.columns)
    x, weight = batch[: case.tokens], normal(case.rows, case.columns) / 16
    bias = normal(case.rows) if case.has_bias else None
    runs = [dense_wide(x, weight, bias, case.config) for _ in range(2)]
    assert (runs[0].shape, runs[0].dtype) == ((case.tokens, case.rows), torch.bfloat16)
    assert torch.equal(runs[0], runs[1])
    expected = x.double() @ weight.double().T + (bias.double() if case.has_bias else 0)
    # As in test_dense.py.
    added = x.double().abs() @ weight.double().abs().T + 1
    allowed = added * 2**-19 + expected.abs() * (2**-8 if expected.is_cuda else 2**-7)
    assert ((runs[0].double() - expected).abs() <= allowed).all()
    assert ((runs[0].double() - dense_ref(x, weight, bias).double()).abs() <= 2 * allowed).all()


def test_no_tokens(device):
    x, weight = (torch.ones(rows, 64, dtype=torch.bfloat16, device=device) for rows in (0, 80))
    assert dense_wide(x, weight, None, SMALL).shape == (0, 80)


def test_refuses_too_many_tokens(device):
    x, weight = (torch.ones(rows, 64, dtype=torch.bfloat16, device=device) for rows in (65, 80))
    with pytest.raises(ValueError, match="65 tokens"):
        dense_wide(x, weight, None, SMALL)
