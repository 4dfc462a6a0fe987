"""SwiGLU against scalar fp64 and Transformers, and how far off each likely mistake would be."""

import math

import pytest
import torch

from vllm_gptoss.kernels.swiglu import swiglu_ref

# One rounding to the dtype of the output, plus what the sigmoid and three products lose in fp32.
RTOL = {torch.float32: 2e-6, torch.bfloat16: 2**-8 + 2e-6}
ATOL = 1e-12

SHAPES = {"decode": (1, 64), "odd": (7, 3), "narrowest": (2, 1), "empty": (0, 16), "20b": (3, 2880)}

ALPHA, LIMIT = 1.702, 7.0


def inputs(shape, dtype, seed=0):
    """[M, 2I], a third of it past the clamp on either side."""
    generator = torch.Generator().manual_seed(seed)
    return (7 * torch.randn(shape[0], 2 * shape[1], generator=generator)).to(dtype)


def scalar(gate: float, up: float, alpha: float = ALPHA, limit: float = LIMIT) -> float:
    gate = min(gate, limit)
    up = max(-limit, min(up, limit))
    return gate / (1 + math.exp(-alpha * gate)) * (up + 1)


def naive(x: torch.Tensor, alpha: float = ALPHA, limit: float = LIMIT) -> torch.Tensor:
    rows = [[scalar(*pair, alpha, limit) for pair in zip(row[0::2], row[1::2], strict=True)] for row in x.tolist()]
    return torch.tensor(rows, dtype=torch.float64).view(x.shape[0], x.shape[1] // 2)


@pytest.mark.parametrize("dtype", RTOL, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_swiglu(shape, dtype):
    x = inputs(shape, dtype)
    before = x.clone()
    out = swiglu_ref(x, ALPHA, LIMIT)
    assert (out.shape, out.dtype) == (shape, dtype)
    torch.testing.assert_close(out.double(), naive(x), rtol=RTOL[dtype], atol=ATOL)
    assert torch.equal(x, before)


def test_alpha_and_limit_are_arguments():
    x = inputs((4, 16), torch.float32)
    out = swiglu_ref(x, 0.7, 1.25)
    torch.testing.assert_close(out.double(), naive(x, 0.7, 1.25), rtol=RTOL[torch.float32], atol=ATOL)


@pytest.mark.parametrize(
    ("gate", "up", "expected"),
    [
        (1.0, 2.0, 3 / (1 + math.exp(-1.702))),
        (0.0, 5.0, 0.0),
        (2.0, -1.0, 0.0),
        (100.0, 100.0, 8 * 7 / (1 + math.exp(-1.702 * 7))),
        (100.0, -100.0, -6 * 7 / (1 + math.exp(-1.702 * 7))),
        (-100.0, 3.0, -400 * math.exp(-170.2)),
    ],
)
def test_by_hand(gate, up, expected):
    out = swiglu_ref(torch.tensor([[gate, up]]), ALPHA, LIMIT)
    assert out.item() == pytest.approx(expected, rel=RTOL[torch.float32], abs=ATOL)


def test_strided_rows():
    x = inputs((6, 32), torch.bfloat16)
    assert torch.equal(swiglu_ref(x[::2, 8:40], ALPHA, LIMIT), swiglu_ref(x, ALPHA, LIMIT)[::2, 4:20])


def test_as_transformers():
    from transformers import GptOssConfig
    from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts

    oracle = GptOssExperts(GptOssConfig(hidden_size=8, intermediate_size=8, num_local_experts=1))
    x = inputs((5, 8), torch.float32)
    torch.testing.assert_close(swiglu_ref(x, ALPHA, LIMIT), oracle._apply_gate(x), rtol=2e-6, atol=ATOL)


MISTAKES = {
    "alpha 1": lambda g, u: scalar(g, u, alpha=1.0),
    "no + 1": lambda g, u: scalar(g, u) - scalar(g, 0.0),
    "gate and up exchanged": lambda g, u: scalar(u, g),
    "no limit": lambda g, u: scalar(g, u, limit=math.inf),
    "up not limited below": lambda g, u: scalar(g, abs(u)) if u < -LIMIT else scalar(g, u),
    "gate limited below": lambda g, u: scalar(max(g, -1.0), u),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_the_inputs_show_a_mistake(mistake):
    x = inputs((3, 64), torch.bfloat16)
    wrong = torch.tensor([[mistake(*pair) for pair in row] for row in x.unflatten(1, (-1, 2)).tolist()])
    with pytest.raises(AssertionError):
        torch.testing.assert_close(wrong.double(), naive(x), rtol=10 * RTOL[torch.bfloat16], atol=ATOL)
