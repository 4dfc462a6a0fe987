"""The router against sorted lists and fp64, and against Transformers."""

import math

import pytest
import torch

from vllm_gptoss.kernels.router import router_ref

# One rounding to the dtype of the logits, plus an fp32 softmax over at most eight values.
RTOL = {torch.float32: 2e-6, torch.bfloat16: 2**-8 + 2e-6}

SHAPES = {
    "decode": (1, 8, 2),
    "odd": (7, 13, 3),
    "narrowest": (2, 1, 1),
    "every expert": (3, 5, 5),
    "empty": (0, 32, 4),
    "20b": (33, 32, 4),
    "120b": (33, 128, 4),
}


def inputs(shape, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(shape[:2], generator=generator)).to(dtype)


def naive(logits: torch.Tensor, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
    weights, ids = [], []
    for row in logits.tolist():
        chosen = sorted(range(len(row)), key=lambda expert: (-row[expert], expert))[:top_k]
        shares = [math.exp(row[expert] - row[chosen[0]]) for expert in chosen]
        weights.append([share / sum(shares) for share in shares])
        ids.append(chosen)
    shape = (len(logits), top_k)
    return torch.tensor(weights, dtype=torch.float64).view(shape), torch.tensor(ids).long().view(shape)


@pytest.mark.parametrize("dtype", RTOL, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_router(shape, dtype):
    logits = inputs(shape, dtype)
    weights, ids = router_ref(logits, shape[2])
    expected_weights, expected_ids = naive(logits, shape[2])
    assert (weights.dtype, ids.dtype) == (dtype, torch.int64)
    assert weights.is_contiguous()
    assert ids.is_contiguous()
    assert torch.equal(ids, expected_ids)
    torch.testing.assert_close(weights.double(), expected_weights, rtol=RTOL[dtype], atol=0)


def test_of_equal_logits_the_lower_expert_comes_first():
    logits = torch.zeros(2, 128, dtype=torch.bfloat16)
    logits[1, [3, 90, 77, 100, 5]] = 1.0
    weights, ids = router_ref(logits, 4)
    assert ids.tolist() == [[0, 1, 2, 3], [3, 5, 77, 90]]
    assert weights.eq(0.25).all()


def test_weights_are_a_share_of_the_chosen_only():
    logits = torch.full((1, 32), 5.0)
    logits[0, 7] = 6.0
    weights, _ = router_ref(logits, 4)
    assert weights.sum().item() == pytest.approx(1.0)
    # A softmax over all 32 would give 0.08.
    assert weights[0, 0].item() == pytest.approx(math.e / (math.e + 3))


def test_large_logits_do_not_overflow():
    weights, ids = router_ref(torch.tensor([[3e38, -3e38, 1e38]]), 2)
    assert (weights.tolist(), ids.tolist()) == ([[1.0, 0.0]], [[0, 2]])


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_as_transformers(shape):
    from transformers import GptOssConfig
    from transformers.models.gpt_oss.modeling_gpt_oss import GptOssTopKRouter

    _, experts, top_k = shape
    oracle = GptOssTopKRouter(GptOssConfig(hidden_size=experts, num_local_experts=experts, num_experts_per_tok=top_k))
    logits = inputs(shape, torch.float32)
    with torch.no_grad():
        # The identity hands the hidden state through as logits.
        oracle.weight.copy_(torch.eye(experts))
        _, expected_weights, expected_ids = oracle(logits)
    weights, ids = router_ref(logits, top_k)
    assert torch.equal(ids, expected_ids)
    torch.testing.assert_close(weights, expected_weights, rtol=RTOL[torch.float32], atol=0)
