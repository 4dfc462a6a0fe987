"""RMSNorm against fp64 row by row, and against Transformers."""

import math

import pytest
import torch

from vllm_gptoss.kernels.rmsnorm import rmsnorm_ref

# One rounding to the dtype of the output, plus what a few fp32 operations inside lose. A second rounding
# to bf16 anywhere would go past it.
RTOL = {torch.float32: 1e-6, torch.bfloat16: 2**-8 + 1e-6}

SHAPES = {
    "decode": (1, 64),
    "odd": (7, 96),
    "narrowest": (3, 1),
    "empty": (0, 64),
    "20b": (5, 2880),
}

EPS = 1e-5


def inputs(shape, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, residual = (3 * torch.randn(shape, generator=generator) for _ in range(2))
    weight = 1 + 0.3 * torch.randn(shape[1], generator=generator)
    return x.to(dtype), weight.to(dtype), residual.to(dtype)


def naive(rows: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """fp64."""
    out = torch.zeros(rows.shape, dtype=torch.float64)
    for m, row in enumerate(rows.tolist()):
        root = math.sqrt(math.fsum(v * v for v in row) / len(row) + eps)
        out[m] = torch.tensor([v / root for v in row], dtype=torch.float64) * weight.double()
    return out


@pytest.mark.parametrize("dtype", RTOL, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_norm(shape, dtype):
    x, weight, _ = inputs(shape, dtype)
    normed = rmsnorm_ref(x, weight, EPS)
    assert (normed.shape, normed.dtype) == (x.shape, dtype)
    torch.testing.assert_close(normed.double(), naive(x, weight, EPS), rtol=RTOL[dtype], atol=0)


@pytest.mark.parametrize("dtype", RTOL, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_norm_of_the_sum(shape, dtype):
    x, weight, residual = inputs(shape, dtype)
    before = x.clone(), residual.clone()
    normed, total = rmsnorm_ref(x, weight, EPS, residual)
    assert torch.equal(total, (x.double() + residual.double()).to(dtype))
    torch.testing.assert_close(normed.double(), naive(total, weight, EPS), rtol=RTOL[dtype], atol=0)
    assert torch.equal(x, before[0])
    assert torch.equal(residual, before[1])


def test_norms_the_sum_as_it_was_rounded():
    # 256 + 0.99 is 256 in bf16: the row is even, and normalises to ones. Unrounded it starts with 1.0019.
    x = torch.tensor([[0.99, 256.0]], dtype=torch.bfloat16)
    residual = torch.tensor([[256.0, 0.0]], dtype=torch.bfloat16)
    # The weight, in fp32, lies just under the value that rounds up.
    weight = torch.full((2,), 1.0039)
    normed, total = rmsnorm_ref(x, weight, EPS, residual)
    assert total.tolist() == [[256.0, 256.0]]
    assert normed.tolist() == [[1.0, 1.0]]


def test_the_weight_stays_fp32():
    x, _, _ = inputs((7, 96), torch.bfloat16)
    _, weight, _ = inputs((7, 96), torch.float32)
    normed = rmsnorm_ref(x, weight, EPS)
    torch.testing.assert_close(normed.double(), naive(x, weight, EPS), rtol=RTOL[torch.bfloat16], atol=0)


def test_eps_keeps_zero_rows_zero():
    assert rmsnorm_ref(torch.zeros(2, 8), torch.ones(8), EPS).eq(0).all()
    tiny = torch.full((1, 8), math.sqrt(EPS))
    torch.testing.assert_close(rmsnorm_ref(tiny, torch.ones(8), EPS), torch.full((1, 8), math.sqrt(0.5)))


def test_strided_rows():
    x, weight, _ = inputs((6, 128), torch.bfloat16)
    x, weight = x[::2, 32:96], weight[::2]
    assert torch.equal(rmsnorm_ref(x, weight, EPS), rmsnorm_ref(x.clone(), weight.clone(), EPS))


@pytest.mark.parametrize("dtype", RTOL, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_as_transformers(shape, dtype):
    from transformers.models.gpt_oss.modeling_gpt_oss import GptOssRMSNorm

    x, weight, _ = inputs(shape, dtype)
    oracle = GptOssRMSNorm(shape[1], EPS).to(dtype)
    with torch.no_grad():
        oracle.weight.copy_(weight)
        expected = oracle(x)
    torch.testing.assert_close(rmsnorm_ref(x, weight, EPS), expected, rtol=RTOL[dtype], atol=0)
