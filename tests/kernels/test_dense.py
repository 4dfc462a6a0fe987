"""The dense layer against fp64, compiled on a GPU and interpreted on a CPU."""

from typing import NamedTuple

import pytest
import torch
from sizes import cases

from vllm_gptoss.kernels.dense import MAX_TOKENS, dense, dense_ref
from vllm_gptoss.kernels.tuning import DenseConfig, pick_dense

NARROW = DenseConfig(16, 8, 3)


class Case(NamedTuple):
    tokens: int
    rows: int
    columns: int
    config: DenseConfig
    has_bias: bool = True


CASES = {
    "one token": Case(1, 80, 320, NARROW),
    "no bias": Case(1, 80, 320, NARROW, has_bias=False),
    "fewer columns than warps have": Case(3, 48, 64, NARROW),
    "fewer rows than a tile": Case(8, 24, 136, NARROW._replace(rows=32)),
    "columns end within a warp's": Case(3, 200, 328, NARROW._replace(stages=4)),
    "fewer steps than stages": Case(8, 80, 320, NARROW._replace(stages=6)),
    "a ring of one step": Case(3, 80, 1096, NARROW._replace(stages=1)),
    "several steps at once": Case(8, 80, 2056, NARROW._replace(stages=2, burst=2)),
    "tokens in turns": Case(8, 80, 2056, NARROW._replace(stages=2, burst=2, ahead=3)),
    "one warp": Case(3, 80, 328, NARROW._replace(warps=1)),
    "eight warps": Case(3, 80, 1096, NARROW._replace(warps=8)),
    "16 tokens": Case(16, 80, 328, DenseConfig(16, 16, 4)),
    "32 rows": Case(11, 200, 328, DenseConfig(32, 16, 3, ahead=1)),
    "qkv of a tiny model": Case(3, 512, 128, pick_dense(3, 512, 128)),
    "output of a tiny model": Case(1, 128, 256, pick_dense(1, 128, 256)),
}

QKV, OUTPUT = (5120, 2880), (2880, 4096)

LARGE = {
    **{f"qkv of {m}": Case(m, *QKV, pick_dense(m, *QKV)) for m in (1, 2, 8, 9, 16)},
    **{f"output of {m}": Case(m, *OUTPUT, pick_dense(m, *OUTPUT)) for m in (1, 8, 16)},
    **{f"output of 8, {k} columns": Case(8, 2880, k, pick_dense(8, 2880, k)) for k in (512, 1024, 2048)},
    "qkv of 8, half": Case(8, 2560, 2880, pick_dense(8, 2560, 2880)),
}


class Tensors(NamedTuple):
    x: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None


def make(case: Case, device: str) -> Tensors:
    """What follows the last token is not a number."""
    generator = torch.Generator().manual_seed(case.rows + case.columns + case.tokens)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).bfloat16().to(device)

    batch = torch.full((MAX_TOKENS + 1, case.columns), torch.nan, dtype=torch.bfloat16, device=device)
    batch[: case.tokens] = normal(case.tokens, case.columns)
    return Tensors(
        batch[: case.tokens],
        normal(case.rows, case.columns) / 16,
        normal(case.rows) if case.has_bias else None,
    )


def tolerance(values: Tensors, total: torch.Tensor) -> torch.Tensor:
    """Of each element: tensor cores' sums lose 2^-19 of what they add up, a rounding to bf16 2^-8 of the value.

    The interpreter cuts off instead, which loses twice that.
    """
    added = values.x.double().abs() @ values.weight.double().abs().T + 1
    return added * 2**-19 + total.abs() * (2**-8 if total.is_cuda else 2**-7)


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """Nothing may be read that no kernel has written."""
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *args, **kwargs: empty(*args, **kwargs).fill_(torch.nan))


@pytest.mark.parametrize("case", cases(CASES, LARGE))
def test_dense(case, device):
    values = make(case, device)
    expected = values.x.double() @ values.weight.double().T + (values.bias.double() if case.has_bias else 0)
    runs = [dense(*values, case.config) for _ in range(2)]
    assert (runs[0].shape, runs[0].dtype) == ((case.tokens, case.rows), torch.bfloat16)
    assert torch.equal(runs[0], runs[1])
    allowed = tolerance(values, expected)
    assert ((runs[0].double() - expected).abs() <= allowed).all()
    assert ((runs[0].double() - dense_ref(*values).double()).abs() <= 2 * allowed).all()


def test_no_tokens(device):
    values = make(Case(0, 80, 64, NARROW), device)
    assert dense(*values, NARROW).shape == (0, 80)


REFUSED = {
    "fp32": (lambda values: values._replace(x=values.x.float()), "bf16"),
    "transposed": (lambda values: values._replace(weight=values.weight.T.contiguous().T), "contiguous"),
    "strided bias": (lambda values: values._replace(bias=values.bias.repeat(2)[::2]), "strides"),
    "bias of another size": (lambda values: values._replace(bias=values.bias[:40]), "40"),
    "rows of another size": (lambda values: values._replace(x=values.x[:, :64].contiguous()), "136"),
    "too many tokens": (lambda values: values._replace(x=values.x.repeat(5, 1)), "15"),
    "no multiple of 8": (lambda values: Tensors(*(t[..., :4].contiguous() for t in values[:2]), None), "8"),
}


@pytest.mark.parametrize(("change", "said"), REFUSED.values(), ids=REFUSED)
def test_refuses(change, said, device):
    values = change(make(Case(3, 80, 136, NARROW), device))
    with pytest.raises(ValueError, match=said):
        dense(*values, NARROW)


@pytest.mark.parametrize("rows", [64, 640, 2560, 2880, 5120])
@pytest.mark.parametrize("columns", [64, 128, 512, 1024, 2048, 2880, 4096])
def test_the_picked_configuration_fits(rows, columns):
    for num_tokens in range(1, MAX_TOKENS + 1):
        config = pick_dense(num_tokens, rows, columns)
        assert num_tokens <= config.tokens <= MAX_TOKENS
        # Ada's and consumer Blackwell's shared memory, less what Triton adds.
        assert 128 * config.stages * config.burst * config.warps * config.rows <= 98 << 10
