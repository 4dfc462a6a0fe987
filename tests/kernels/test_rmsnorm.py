"""RMSNorm and its kernel against fp64 row by row, and the specification against Transformers."""

import math

import pytest
import torch

from vllm_gptoss.kernels.rmsnorm import rmsnorm, rmsnorm_ref

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
    expected = naive(x.double() + residual.double(), weight, EPS)
    torch.testing.assert_close(normed.double(), expected, rtol=RTOL[dtype], atol=0)
    assert torch.equal(x, before[0])
    assert torch.equal(residual, before[1])


def test_norms_the_sum_before_it_is_rounded():
    # 256 + 0.99 is 256 in bf16: rounded, the row would be even, and normalise to ones.
    x = torch.tensor([[0.99, 256.0]], dtype=torch.bfloat16)
    residual = torch.tensor([[256.0, 0.0]], dtype=torch.bfloat16)
    # The weight, in fp32, lies just under the value that rounds up.
    weight = torch.full((2,), 1.0039)
    normed, total = rmsnorm_ref(x, weight, EPS, residual)
    assert total.tolist() == [[256.0, 256.0]]
    assert normed.tolist() == [[1.0078125, 1.0]]


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


def kernel_rtol(dtype: torch.dtype, device: str) -> float:
    """The interpreter cuts off where a GPU rounds to bf16."""
    return RTOL[dtype] * (1 if device == "cuda" or dtype == torch.float32 else 2)


@pytest.fixture
def poisoned(monkeypatch):
    """Nothing may be returned that no kernel has written."""
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *args, **kwargs: empty(*args, **kwargs).fill_(torch.nan))


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", RTOL, ids=str)
@pytest.mark.parametrize("shape", [*SHAPES.values(), (64, 2880)], ids=[*SHAPES, "20b batch of 64"])
def test_kernel(shape, dtype, device):
    x, weight, _ = inputs(shape, dtype)
    normed = rmsnorm(x.to(device), weight.to(device), EPS)
    assert (normed.shape, normed.dtype) == (x.shape, dtype)
    expected = naive(x, weight, EPS)
    torch.testing.assert_close(normed.cpu().double(), expected, rtol=kernel_rtol(dtype, device), atol=0)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", RTOL, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_kernel_of_the_sum(shape, dtype, device):
    x, weight, residual = (tensor.to(device) for tensor in inputs(shape, dtype))
    before = x.clone(), residual.clone()
    normed, total = rmsnorm(x, weight, EPS, residual)
    rtol = kernel_rtol(dtype, device)
    if device == "cuda":
        assert torch.equal(total, x + residual)
    torch.testing.assert_close(total.double(), x.double() + residual.double(), rtol=rtol, atol=0)
    expected = naive((x.double() + residual.double()).cpu(), weight.cpu(), EPS)
    torch.testing.assert_close(normed.cpu().double(), expected, rtol=rtol, atol=0)
    assert torch.equal(x, before[0])
    assert torch.equal(residual, before[1])


def test_kernel_norms_the_sum_before_it_is_rounded(device):
    # As above; where the interpreter cuts off, the weight lies just under the value itself.
    x, residual = (torch.tensor([row], dtype=torch.bfloat16, device=device) for row in ([0.99, 256.0], [256.0, 0.0]))
    weight = torch.full((2,), 1.0039 if device == "cuda" else 1.0077, device=device)
    normed, total = rmsnorm(x, weight, EPS, residual)
    assert total.tolist() == [[256.0, 256.0]]
    assert normed.tolist() == [[1.0078125, 1.0]]


def test_kernel_takes_rows_that_lie_apart(device):
    x, weight, residual = (tensor.to(device) for tensor in inputs((6, 128), torch.bfloat16))
    weight = weight[:64].float()
    apart, other = x[::2, 32:96], residual[1::2, :64]
    for found, expected in zip(
        rmsnorm(apart, weight, EPS, other),
        rmsnorm(apart.contiguous(), weight, EPS, other.contiguous()),
        strict=True,
    ):
        assert torch.equal(found, expected)
    torch.testing.assert_close(
        rmsnorm(apart, weight, EPS).cpu().double(),
        naive(apart.cpu(), weight.cpu(), EPS),
        rtol=kernel_rtol(torch.bfloat16, device),
        atol=0,
    )


def test_kernel_refuses(device):
    x, weight, residual = (tensor.to(device) for tensor in inputs((6, 128), torch.bfloat16))
    with pytest.raises(ValueError, match="apart"):
        rmsnorm(x[:, ::2], weight[:64], EPS)
    with pytest.raises(ValueError, match="residual"):
        rmsnorm(x, weight, EPS, residual[:3])
    with pytest.raises(ValueError, match="residual"):
        rmsnorm(x, weight, EPS, residual.float())
