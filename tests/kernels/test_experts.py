"""The experts against fp64 loops with the same rounding points, and against Transformers."""

import math

import pytest
import torch

from vllm_gptoss.kernels import experts
from vllm_gptoss.kernels.experts import dense_experts_ref, mxfp4_experts_ref
from vllm_gptoss.kernels.mxfp4 import mxfp4_decode_ref

# Of the largest output. fp32: two sums of H and I products. bf16: an intermediate may fall on the other side
# of a rounding step (2**-8), in each of the three places where both round.
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 3 * 2**-8}

SHAPES = {
    # M, E, K, H, I
    "decode": (1, 8, 2, 64, 96),
    "odd": (7, 5, 3, 96, 32),
    "narrowest": (2, 1, 1, 32, 32),
    "every expert": (4, 3, 3, 64, 64),
    "more tokens than a tile": (130, 4, 2, 32, 64),
    "empty": (0, 4, 2, 64, 64),
    "20b": (1, 2, 2, 2880, 2880),
}

ALPHA, LIMIT = 1.702, 7.0


def inputs(shape, dtype, seed=0):
    """`x, weights, ids`, and the arguments of mxfp4_experts_ref and of dense_experts_ref."""
    m, e, k, h, i = shape
    generator = torch.Generator().manual_seed(seed)

    def randn(*size):
        return torch.randn(size, generator=generator)

    x = randn(m, h).to(dtype)
    ids = torch.stack([torch.randperm(e, generator=generator)[:k] for _ in range(m)]) if m else torch.zeros(0, k)
    weights = randn(m, k).softmax(dim=-1).to(dtype)

    def packed_weights(rows, width, deviation):
        # Uniform codes deviate by 2.9: as near as powers of two come, with every other scale doubled.
        byte = 127 + round(math.log2(deviation / 2.9 / width**0.5))
        blocks = torch.randint(0, 256, (e, rows, width // 2), generator=generator, dtype=torch.uint8)
        scales = torch.randint(byte, byte + 2, (e, rows, width // 32), generator=generator)
        return blocks, scales.to(torch.uint8)

    # Wide enough that a fifth of the activations lies past the clamp.
    gate_up_blocks, gate_up_scales = packed_weights(2 * i, h, 5.0)
    down_blocks, down_scales = packed_weights(h, i, 1.0)
    gate_up_bias, down_bias = 2 * randn(e, 2 * i).to(dtype), randn(e, h).to(dtype)
    packed = (gate_up_blocks, gate_up_scales, gate_up_bias, down_blocks, down_scales, down_bias)
    gate_up = mxfp4_decode_ref(gate_up_blocks, gate_up_scales, dtype)
    down = mxfp4_decode_ref(down_blocks, down_scales, dtype)
    return (x, weights, ids.long()), packed, (gate_up, gate_up_bias, down, down_bias)


def naive(x, weights, ids, gate_up, gate_up_bias, down, down_bias, first_expert=0):
    """Token by token in fp64, rounded to the dtype of x where the reference engines round."""

    def rounded(v):
        return v.to(x.dtype).double()

    out = torch.zeros(x.shape, dtype=torch.float64)
    for m in range(x.shape[0]):
        for weight, expert in zip(weights[m].double(), ids[m].tolist(), strict=True):
            local = expert - first_expert
            if not 0 <= local < gate_up.shape[0]:
                continue
            both = rounded(gate_up[local].double() @ x[m].double() + gate_up_bias[local].double())
            gate, up = both.view(-1, 2).unbind(dim=1)
            gate = torch.where(gate > LIMIT, LIMIT, gate)
            up = torch.where(up.abs() > LIMIT, LIMIT * up.sign(), up)
            hidden = rounded(gate / (1 + torch.exp(-ALPHA * gate)) * (1 + up))
            out[m] += weight * rounded(down[local].double() @ hidden + down_bias[local].double())
    return rounded(out)


def assert_near(actual, expected, dtype):
    assert actual.shape == expected.shape
    if expected.numel():
        error = (actual.double() - expected).abs().max() / expected.abs().max()
        assert error <= TOLERANCE[dtype], f"{error:.3g} of the largest output"


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_experts(shape, dtype):
    routed, packed, dense = inputs(shape, dtype)
    expected = naive(*routed, *dense)
    x = routed[0].clone()
    for out in (
        mxfp4_experts_ref(*routed, *packed, ALPHA, LIMIT),
        dense_experts_ref(*routed, *dense, ALPHA, LIMIT),
    ):
        assert out.dtype == dtype
        assert_near(out, expected, dtype)
    assert torch.equal(routed[0], x)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_ranks_add_up(dtype):
    routed, packed, dense = inputs((9, 8, 4, 64, 64), dtype)
    total = torch.zeros(9, 64, dtype=torch.float64)
    for first, stop in ((0, 3), (3, 8)):
        part = mxfp4_experts_ref(*routed, *(t[first:stop] for t in packed), ALPHA, LIMIT, first_expert=first)
        local = [t[first:stop] for t in dense]
        assert torch.equal(part, dense_experts_ref(*routed, *local, ALPHA, LIMIT, first_expert=first))
        assert_near(part, naive(*routed, *local, first_expert=first), dtype)
        total += part.double()
    assert_near(total, naive(*routed, *dense), dtype)


def test_experts_of_other_ranks_add_zero():
    (x, weights, ids), packed, _ = inputs((5, 4, 2, 32, 32), torch.bfloat16)
    for elsewhere in (torch.full_like(ids, -1), ids + 4):
        assert mxfp4_experts_ref(x, weights, elsewhere, *packed, ALPHA, LIMIT).eq(0).all()
    assert mxfp4_experts_ref(x, weights, ids, *packed, ALPHA, LIMIT, first_expert=4).eq(0).all()


def test_ids_may_be_int32():
    (x, weights, ids), packed, _ = inputs((5, 4, 2, 32, 32), torch.bfloat16)
    expected = mxfp4_experts_ref(x, weights, ids, *packed, ALPHA, LIMIT)
    assert torch.equal(mxfp4_experts_ref(x, weights, ids.int(), *packed, ALPHA, LIMIT), expected)


def test_only_used_experts_are_decoded_one_at_a_time(monkeypatch):
    (x, weights, ids), packed, dense = inputs((5, 8, 2, 32, 64), torch.float32)
    ids = ids % 2 + torch.tensor([2, 5])
    # A scale byte of 255 is NaN: reading another expert would show.
    unused = [0, 1, 4, 7]
    packed[1][unused], packed[4][unused] = 255, 255
    decoded = []

    def recording(blocks, scales, dtype):
        decoded.append(tuple(blocks.shape))
        return mxfp4_decode_ref(blocks, scales, dtype)

    monkeypatch.setattr(experts, "mxfp4_decode_ref", recording)
    out = mxfp4_experts_ref(x, weights, ids, *packed, ALPHA, LIMIT)
    assert_near(out, naive(x, weights, ids, *dense), torch.float32)
    assert decoded == [(128, 16), (32, 32)] * len(ids.unique())


def bias_only(down_bias, weights):
    """One bf16 token whose experts return nothing but their down bias, in the order of their ids."""
    experts_count = len(down_bias)
    return dense_experts_ref(
        torch.ones(1, 32, dtype=torch.bfloat16),
        torch.tensor([weights], dtype=torch.bfloat16),
        torch.arange(experts_count)[None],
        torch.zeros(experts_count, 64, 32, dtype=torch.bfloat16),
        torch.zeros(experts_count, 64, dtype=torch.bfloat16),
        torch.zeros(experts_count, 32, 32, dtype=torch.bfloat16),
        torch.tensor(down_bias, dtype=torch.bfloat16)[:, None].expand(-1, 32),
        ALPHA,
        LIMIT,
    )


def test_the_sum_is_fp32():
    # 256 + 1 is 256 in bf16, however often; 259 rounds to 260.
    assert bias_only([256.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]).eq(260).all()


def test_products_with_the_routing_weights_are_fp32():
    # (1 + 2**-7) ** 2 is 1 + 2**-6 in bf16: the last term would be lost.
    assert bias_only([1 + 2**-7, -1.0], [1 + 2**-7, 1 + 2**-6]).eq(2**-14).all()


def test_the_down_bias_is_weighted():
    assert bias_only([4.0, 8.0], [0.25, 0.75]).eq(7).all()


def test_weights_of_another_dtype_than_the_tokens():
    # bf16 weights under fp32 tokens, and fp32 biases under bf16 tokens.
    routed, _, dense = inputs((5, 4, 2, 32, 64), torch.bfloat16)
    wide = routed[0].float(), routed[1].float(), routed[2]
    expected = naive(*wide, *dense)
    assert_near(dense_experts_ref(*wide, *dense, ALPHA, LIMIT), expected, torch.float32)
    biases = dense[0], dense[1].float(), dense[2], dense[3].float()
    expected = dense_experts_ref(*routed, *dense, ALPHA, LIMIT)
    assert torch.equal(dense_experts_ref(*routed, *biases, ALPHA, LIMIT), expected)


@pytest.mark.parametrize("shape", [SHAPES[name] for name in ("decode", "odd", "every expert")])
def test_as_transformers(shape):
    from transformers import GptOssConfig
    from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts

    (x, weights, ids), packed, (gate_up, gate_up_bias, down, down_bias) = inputs(shape, torch.float32)
    _, e, k, h, i = shape
    config = GptOssConfig(hidden_size=h, intermediate_size=i, num_local_experts=e, num_experts_per_tok=k)
    config._experts_implementation = "eager"
    oracle = GptOssExperts(config)
    with torch.no_grad():
        # Transformers holds the transpose.
        oracle.gate_up_proj.copy_(gate_up.transpose(1, 2))
        oracle.gate_up_proj_bias.copy_(gate_up_bias)
        oracle.down_proj.copy_(down.transpose(1, 2))
        oracle.down_proj_bias.copy_(down_bias)
        expected = oracle(x, ids, weights)
    assert_near(mxfp4_experts_ref(x, weights, ids, *packed, ALPHA, LIMIT), expected.double(), torch.float32)
