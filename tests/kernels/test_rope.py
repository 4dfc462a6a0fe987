"""Rotary embedding against complex fp64 products, YaRN's numbers, and Transformers."""

import math

import pytest
import torch

from vllm_gptoss.kernels.rope import rope_cos_sin_ref, rope_ref, yarn_inv_freq_ref, yarn_ramp_ref

# One rounding to the dtype of the output, relative to the length of the rotated pair: cancellation may
# leave an element far smaller than what it is made of.
TOLERANCE = {torch.float32: 4e-7, torch.bfloat16: 2**-8 + 1e-6}

SHAPES = {
    "decode": (1, 4, 64),
    "odd": (7, 3, 10),
    "narrowest": (3, 1, 2),
    "empty": (0, 4, 64),
    "20b q": (5, 64, 64),
    "20b k": (5, 8, 64),
}

PUBLISHED = {
    "head_dim": 64,
    "theta": 150000.0,
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "original_max_positions": 4096,
    "truncate": False,
}

CONFIGS = {
    "published": PUBLISHED,
    "truncated": PUBLISHED | {"truncate": True},
    "tiny head": PUBLISHED | {"head_dim": 16},
    "other base": PUBLISHED | {"theta": 10000.0, "factor": 4.0, "original_max_positions": 2048},
    "other betas": PUBLISHED | {"beta_fast": 16.0, "beta_slow": 2.0, "truncate": True},
    "ramp past both ends": PUBLISHED | {"theta": 10.0, "original_max_positions": 100},
    "ramp of no width": PUBLISHED | {"original_max_positions": 6, "truncate": True},
    "no extension": PUBLISHED | {"factor": 1.0},
}


@pytest.fixture(autouse=True)
def uninitialised_memory_is_nan():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def inputs(shape, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    positions = torch.randint(0, 131072, shape[:1], generator=generator)
    inv_freq, concentration = yarn_inv_freq_ref(**(PUBLISHED | {"head_dim": shape[2]}))
    x = torch.randn(shape, generator=generator).to(dtype)
    return x, *rope_cos_sin_ref(positions, inv_freq, concentration)


def naive(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    half = x.shape[-1] // 2
    pairs = torch.complex(x[..., :half].double(), x[..., half:].double())
    turned = pairs * torch.complex(cos.double(), sin.double())[:, None]
    return torch.cat((turned.real, turned.imag), dim=-1)


def distance(x: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest error of an element over the length of its pair."""
    half = x.shape[-1] // 2
    length = torch.hypot(expected[..., :half], expected[..., half:]).repeat(1, 1, 2)
    return max(((x.double() - expected).abs() / length).flatten().tolist(), default=0.0)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_rope(shape, dtype):
    x, cos, sin = inputs(shape, dtype)
    before = x.clone()
    out = rope_ref(x, cos, sin)
    assert (out.shape, out.dtype) == (x.shape, dtype)
    assert out.is_contiguous()
    assert distance(out, naive(x, cos, sin)) <= TOLERANCE[dtype]
    assert torch.equal(x, before)


def test_position_zero_only_scales():
    x = torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(1))
    cos, sin = rope_cos_sin_ref(torch.zeros(2, dtype=torch.int64), torch.rand(32), 1.25)
    assert torch.equal(rope_ref(x, cos, sin), x * 1.25)


def test_a_quarter_turn_by_hand():
    x = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
    cos, sin = rope_cos_sin_ref(torch.tensor([1]), torch.tensor([math.pi / 2, 0.0]), 1.0)
    torch.testing.assert_close(rope_ref(x, cos, sin), torch.tensor([[[-3.0, 2.0, 1.0, 4.0]]]))


def test_strided_heads():
    x, cos, sin = inputs((6, 12, 64), torch.bfloat16)
    whole = rope_ref(x, cos, sin)
    # As heads of a fused projection, and with the heads in front.
    assert torch.equal(rope_ref(x[:, 4:8], cos, sin), whole[:, 4:8])
    swapped = x.transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(rope_ref(swapped, cos, sin), whole)


def test_cos_and_sin_are_fp32_and_carry_the_concentration():
    positions = torch.tensor([0, 1, 4095, 131071], dtype=torch.int32)
    inv_freq, concentration = yarn_inv_freq_ref(**PUBLISHED)
    cos, sin = rope_cos_sin_ref(positions, inv_freq, concentration)
    assert cos.dtype == sin.dtype == torch.float32
    angles = (positions.float()[:, None] * inv_freq).double()
    torch.testing.assert_close(cos.double(), angles.cos() * concentration, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(sin.double(), angles.sin() * concentration, rtol=1e-6, atol=1e-6)


def test_published_yarn():
    ramp = {key: value for key, value in PUBLISHED.items() if key != "factor"}
    assert yarn_ramp_ref(**ramp) == pytest.approx((8.0928, 17.398), abs=1e-3)
    assert yarn_ramp_ref(**(ramp | {"truncate": True})) == (8, 18)
    inv_freq, concentration = yarn_inv_freq_ref(**PUBLISHED)
    assert (inv_freq.dtype, inv_freq.shape) == (torch.float32, (32,))
    assert concentration == pytest.approx(1.34657, abs=1e-5)
    plain = [150000 ** (-i / 32) for i in range(32)]
    assert inv_freq[:9].tolist() == pytest.approx(plain[:9], rel=1e-6)
    assert inv_freq[18:].tolist() == pytest.approx([f / 32 for f in plain[18:]], rel=1e-6)
    share = (12 - 8.0928) / (17.398 - 8.0928)
    assert inv_freq[12].item() == pytest.approx(plain[12] * (1 - share + share / 32), rel=1e-4)


def oracle_config(config):
    from transformers import GptOssConfig

    names = {"theta": "rope_theta", "original_max_positions": "original_max_position_embeddings"}
    rope = {names.get(key, key): value for key, value in config.items() if key != "head_dim"}
    return GptOssConfig(head_dim=config["head_dim"], rope_parameters=rope | {"rope_type": "yarn"})


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_frequencies_as_transformers(config):
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    expected, concentration = ROPE_INIT_FUNCTIONS["yarn"](oracle_config(config))
    inv_freq, ours = yarn_inv_freq_ref(**config)
    # To the bit: position 131071 multiplies an error in the last one to 0.01 radians.
    assert torch.equal(inv_freq, expected)
    assert ours == pytest.approx(concentration, rel=1e-12)


def test_truncation_shows():
    truncated, _ = yarn_inv_freq_ref(**CONFIGS["truncated"])
    assert not torch.allclose(truncated, yarn_inv_freq_ref(**PUBLISHED)[0], rtol=1e-3, atol=0)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_as_transformers(shape):
    from transformers.models.gpt_oss.modeling_gpt_oss import GptOssRotaryEmbedding, apply_rotary_pos_emb

    config = PUBLISHED | {"head_dim": shape[2]}
    x, *_ = inputs(shape, torch.float32)
    positions = torch.randint(0, 131072, shape[:1], generator=torch.Generator().manual_seed(2))
    cos, sin = GptOssRotaryEmbedding(oracle_config(config))(x, positions[None])
    expected, _ = apply_rotary_pos_emb(x.transpose(0, 1)[None], x.transpose(0, 1)[None], cos, sin)
    ours = rope_ref(x, *rope_cos_sin_ref(positions, *yarn_inv_freq_ref(**config)))
    assert distance(ours, expected[0].transpose(0, 1).double()) <= TOLERANCE[torch.float32]
