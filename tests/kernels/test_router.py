"""The router against sorted lists and fp64, and against Transformers; its kernel against the specification."""

import math

import pytest
import torch

from vllm_gptoss.kernels.expert_product import LIFT
from vllm_gptoss.kernels.grouping import TILE_EXPERT, Routing, group_ref, max_tiles
from vllm_gptoss.kernels.router import route, router_ref

# One rounding to the dtype of the logits, plus an fp32 softmax over at most eight values.
# Weights as small as exp(-100): a GPU's exponential is off by 2^-24 for each unit of its argument.
RTOL = {torch.float32: 1e-5, torch.bfloat16: 2**-8 + 1e-5}

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


KERNEL_SHAPES = {
    # name: M, E, K, H, tile
    "decode 20b": (1, 32, 4, 2880, 8),
    "decode 120b": (2, 128, 4, 2880, 8),
    "three": (3, 32, 4, 128, 8),
    "odd": (5, 7, 3, 128, 8),
    "nine": (9, 128, 4, 128, 8),
    "a block": (16, 32, 4, 128, 8),
    "one past a block": (17, 128, 4, 144, 16),
    "narrowest": (2, 1, 1, 16, 8),
    "every expert": (33, 5, 5, 128, 32),
    "odd and largest": (64, 7, 3, 128, 64),
    "empty": (0, 32, 4, 128, 8),
    "20b": (64, 32, 4, 256, 16),
    "120b": (64, 128, 4, 256, 8),
    "one past four blocks": (65, 32, 4, 144, 8),
    "one past four blocks, 120b": (65, 128, 4, 32, 128),
    "200": (200, 32, 4, 16, 128),
    "200, 120b": (200, 128, 4, 272, 64),
    "256, odd": (256, 7, 3, 16, 8),
    "512": (512, 32, 4, 16, 64),
    "512, 120b": (512, 128, 4, 16, 8),
    "1000": (1000, 32, 4, 16, 8),
    "1000, 120b": (1000, 128, 4, 16, 64),
    "largest": (1024, 32, 4, 144, 64),
    "largest, 120b": (1024, 128, 4, 32, 128),
    "largest, every expert": (1024, 5, 5, 16, 8),
}


@pytest.fixture
def poisoned() -> None:
    """`torch.empty` holds what no kernel writes."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def kernel_inputs(shape, device, seed=0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x, weight and bias whose products and sums are whole numbers: exact in fp32, whatever their order.

    They exceed 256, which bf16 rounds, and are often equal.
    """
    num_tokens, num_experts, _, hidden, _ = shape
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-4, 5, (num_tokens, hidden), generator=generator)
    weight = torch.randint(-8, 9, (num_experts, hidden), generator=generator)
    bias = torch.randint(-64, 65, (num_experts,), generator=generator)
    return tuple(values.to(device, torch.bfloat16) for values in (x, weight, bias))


def held_pairs(found: Routing) -> torch.Tensor:
    """`pairs`, -1 behind the last of each tile."""
    lanes = torch.arange(found.pairs.shape[1], device=found.pairs.device)
    return torch.where(lanes < (found.tiles % TILE_EXPERT.value)[:, None], found.pairs, -1)


def assert_grouped(found: Routing, ids: torch.Tensor, num_experts: int) -> None:
    tiles, pairs = group_ref(ids, num_experts, found.pairs.shape[1])
    assert torch.equal(found.tiles, tiles)
    assert torch.equal(held_pairs(found), pairs)


def routed(shape, device, valid=None, expert_map=None, seed=0) -> Routing:
    """What the kernel gives, held against the specification."""
    x, weight, bias = kernel_inputs(shape, device, seed)
    num_tokens, num_experts, top_k, _, tile = shape
    lifted = torch.empty_like(x)
    found = route(x, weight, bias, top_k, valid, tile, expert_map, lifted)
    assert torch.equal(lifted, x * LIFT.value)
    logits = (x.float() @ weight.float().T + bias.float()).bfloat16()
    weights, ids = router_ref(logits.float(), top_k)
    if expert_map is not None:
        ids = expert_map[ids]
    if valid is not None:
        is_padding = valid[:num_tokens] < 0
        weights[is_padding], ids[is_padding] = 0, -1
    assert torch.equal(found.ids, ids.int())
    torch.testing.assert_close(found.weights, weights, rtol=RTOL[torch.float32], atol=0)
    assert_grouped(found, ids, num_experts)
    return found


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("shape", KERNEL_SHAPES.values(), ids=KERNEL_SHAPES)
def test_kernel(shape, device):
    routed(shape, device)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("name", ["nine", "20b", "200, 120b", "1000"])
def test_padding_rows_have_no_expert(name, device):
    shape = KERNEL_SHAPES[name]
    valid = torch.arange(shape[0] + 3, device=device)
    valid[[0, 5, shape[0] - 1]] = -1
    found = routed(shape, device, valid)
    assert (held_pairs(found) >= 0).sum() == (shape[0] - 3) * shape[2]


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("name", ["one past a block", "one past four blocks"])
def test_padding_rows_alone(name, device):
    shape = KERNEL_SHAPES[name]
    found = routed(shape, device, torch.full(shape[:1], -1, device=device))
    assert not found.tiles.any()


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("name", ["a block", "120b", "200", "largest, 120b"])
def test_experts_of_one_rank(name, device):
    """Local ids in another order than the global ones; three of four experts are elsewhere."""
    shape = KERNEL_SHAPES[name]
    expert_map = torch.full((shape[1],), -1, dtype=torch.int32, device=device)
    held = torch.arange(1, shape[1], 4, device=device)
    expert_map[held] = torch.arange(len(held), dtype=torch.int32, device=device).flip(0)
    valid = torch.arange(shape[0], device=device)
    valid[-4:] = -1
    found = routed(shape, device, valid, expert_map)
    assert 0 < (held_pairs(found) >= 0).sum() < found.ids.numel() / 2


def test_of_equal_logits_the_kernel_takes_the_lower_expert(device):
    """Zeros of either sign are equal, and so is what bf16 rounds to the same."""
    x = torch.ones(2, 16, dtype=torch.bfloat16, device=device)
    weight = torch.zeros(128, 16, dtype=torch.bfloat16, device=device)
    bias = torch.zeros(128, dtype=torch.bfloat16, device=device)
    # A product of -2^-140, which bf16 rounds to a negative zero.
    x[:, 0], weight[:3, 0] = 2.0**-70, -(2.0**-70)
    weight[[40, 3], 1:] = 16.0
    bias[[3, 40]] = torch.tensor([0.25, 0.5], dtype=torch.bfloat16, device=device)
    found = route(x, weight, bias, 4, None, 8)
    assert found.ids.tolist() == [[3, 40, 0, 1]] * 2
    assert found.weights[0, 0] == found.weights[0, 1]


def test_every_token_to_one_expert_fills_tiles(device):
    x = torch.ones(64, 128, dtype=torch.bfloat16, device=device)
    weight = torch.zeros(32, 128, dtype=torch.bfloat16, device=device)
    found = route(x, weight, -torch.arange(32.0, device=device).bfloat16(), 1, None, 16)
    assert found.tiles[:5].tolist() == [16, 16, 16, 16, 0]
    assert found.pairs[:4].flatten().tolist() == list(range(64))


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("tile", [8, 64, 128])
@pytest.mark.parametrize(("num_tokens", "num_experts"), [(200, 32), (1000, 128)])
def test_every_token_to_the_same_experts(num_tokens, num_experts, tile, device):
    x = torch.ones(num_tokens, 16, dtype=torch.bfloat16, device=device)
    weight = torch.zeros(num_experts, 16, dtype=torch.bfloat16, device=device)
    bias = torch.zeros(num_experts, dtype=torch.bfloat16, device=device)
    bias[[num_experts - 1, 9, 0, 20]] = torch.tensor([4.0, 3.0, 2.0, 1.0], dtype=torch.bfloat16, device=device)
    found = route(x, weight, bias, 4, None, tile)
    ids = torch.tensor([[num_experts - 1, 9, 0, 20]], device=device).expand(num_tokens, 4)
    assert torch.equal(found.ids, ids.int())
    assert_grouped(found, ids, num_experts)


def test_logits_that_are_not_whole_numbers(device):
    """Up to the rounding of bf16, which neighbouring sums may fall on either side of: twice its step in a weight."""
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(shape, generator=generator) for shape in ((9, 2880), (32, 2880), (32,)))
    x, weight, bias = (values.to(device).bfloat16() for values in (x, weight / 2880**0.5, bias))
    found = route(x, weight, bias, 4, None, 8)
    logits = (x.double() @ weight.double().T + bias.double()).gather(1, found.ids.long())
    torch.testing.assert_close(found.weights.double(), logits.softmax(dim=-1), rtol=2**-5, atol=0)


@pytest.mark.parametrize("name", ["three", "120b", "200"])
def test_launches_leave_nothing_behind(name, device):
    """Counters are back at zero: launches of other tokens and shapes between do not change a bit."""
    shape = KERNEL_SHAPES[name]
    first = routed(shape, device)
    for other in ("20b", "odd", "one past a block", "512"):
        routed(KERNEL_SHAPES[other], device, seed=1)
    second = routed(shape, device)
    for routing in (first, second):
        routing.pairs.copy_(held_pairs(routing))
    for values, again in zip(first, second, strict=True):
        assert torch.equal(values, again)


@pytest.mark.parametrize("tile", [8, 16, 32, 64, 128])
@pytest.mark.parametrize("num_tokens", [1, 7, 64])
def test_the_bound_on_tiles_is_reached_and_never_passed(num_tokens, tile):
    """The worst choice: every expert has one pair, and the others fill whole tiles of one expert and start another."""
    for num_experts in (1, 3, 32, 300):
        bound = max_tiles(num_tokens, 1, num_experts, tile)
        most = 0
        for alone in range(min(num_experts, num_tokens)):
            ids = torch.tensor([*range(1, alone + 1), *[0] * (num_tokens - alone)])
            most = max(most, int((group_ref(ids[:, None], num_experts, tile)[0] > 0).sum()))
        assert most == bound


def test_a_token_has_an_expert_once():
    """So up to `tile` tokens make one tile an expert, however many pairs there are."""
    assert max_tiles(64, 4, 32, 64) == 32
    assert max_tiles(64, 4, 32, 32) == 32 + (256 - 32) // 32


@pytest.mark.parametrize(
    ("shape", "changes", "message"),
    [
        ((1025, 32, 4, 128, 8), {}, "1025 tokens"),
        ((1024, 64, 32, 16, 8), {}, "32767 pairs"),
        ((1, 129, 4, 128, 8), {}, "129 experts"),
        ((1, 32, 4, 3088, 8), {}, "H = 3088"),
        ((1, 32, 4, 120, 8), {}, "H = 120"),
        ((1, 3, 4, 128, 8), {}, "4 of 3 experts"),
        ((1, 32, 4, 128, 12), {}, "tiles of 12"),
        ((1, 32, 4, 128, 8), {"dtype": torch.float32}, "float32"),
        ((2, 32, 4, 128, 8), {"columns": 64}, r"strides \(128, 1\)"),
    ],
)
def test_what_the_kernel_does_not_take(shape, changes, message, device):
    x, weight, bias = kernel_inputs(shape, device)
    x = x.to(changes.get("dtype", x.dtype))[:, : changes.get("columns")]
    with pytest.raises(ValueError, match=message):
        route(x, weight, bias, shape[2], None, shape[4])
