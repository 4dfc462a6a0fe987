"""MXFP4 decodes every byte at every scale to the bit, and encodes to the nearest value."""

import math

import pytest
import torch

from vllm_gptoss.kernels.mxfp4 import BLOCK, FP4_VALUES, mxfp4_decode_ref, mxfp4_encode_ref

# No tolerance table: decoding and encoding are exact, to the bit.

BITS = {torch.bfloat16: torch.int16, torch.float32: torch.int32}

SHAPES = {
    "one block": (BLOCK,),
    "narrowest": (1, BLOCK),
    "odd": (3, 7, 5 * BLOCK),
    "empty": (0, 2 * BLOCK),
    "20b": (1, 64, 2880),
}


def value_of(code: int) -> float:
    """An e2m1 code from its fields: sign, two bits of exponent with bias 1, one bit of mantissa."""
    sign, exponent, mantissa = code >> 3, code >> 1 & 3, code & 1
    magnitude = mantissa / 2 if exponent == 0 else (1 + mantissa / 2) * 2.0 ** (exponent - 1)
    return -magnitude if sign else magnitude


def random_packed(shape: tuple[int, ...], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    *rows, width = shape
    blocks = torch.randint(0, 256, (*rows, width // 2), generator=generator, dtype=torch.uint8)
    scales = torch.randint(100, 140, (*rows, width // BLOCK), generator=generator, dtype=torch.uint8)
    return blocks, scales


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    view = BITS[a.dtype]
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.view(view), b.view(view))


def test_the_table_is_e2m1():
    assert [math.copysign(1, v) * abs(v) for v in FP4_VALUES] == [value_of(code) for code in range(16)]
    assert math.copysign(1, FP4_VALUES[8]) == -1


@pytest.mark.parametrize("dtype", BITS, ids=str)
def test_every_byte_at_every_scale(dtype):
    blocks = torch.arange(256, dtype=torch.uint8).repeat(256, 1)  # [scale, byte]
    scales = torch.arange(256, dtype=torch.uint8)[:, None].expand(256, 16)
    decoded = mxfp4_decode_ref(blocks, scales, dtype)
    expected = [
        [math.ldexp(value_of(byte >> shift & 15), scale - 127) for byte in range(256) for shift in (0, 4)]
        for scale in range(255)
    ]
    # fp64 holds every product; the cast rounds it as IEEE does, to infinity where it is too large.
    assert same_bits(decoded[:255], torch.tensor(expected, dtype=torch.float64).to(dtype))
    assert decoded[255].isnan().all()


def test_ends_of_the_range_in_bf16():
    codes = torch.tensor([0x21] + [0x73] + [0] * 14, dtype=torch.uint8)  # 0.5, 1.0, 1.5, 6.0
    ends = torch.tensor([[0], [254]], dtype=torch.uint8)
    smallest, largest = mxfp4_decode_ref(codes.expand(2, 16), ends)[:, :4].tolist()
    assert smallest == [2.0**-128, 2.0**-127, 1.5 * 2.0**-127, 6 * 2.0**-127]
    assert largest == [2.0**126, 2.0**127, 1.5 * 2.0**127, math.inf]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_low_nibble_is_the_even_index(shape):
    blocks, scales = random_packed(shape)
    decoded = mxfp4_decode_ref(blocks, scales, torch.float32)
    expected = torch.empty(shape)
    table = torch.tensor([value_of(code) for code in range(16)])
    expected[..., 0::2] = table[(blocks & 15).long()]
    expected[..., 1::2] = table[(blocks >> 4).long()]
    expected *= torch.exp2(scales.float() - 127).repeat_interleave(BLOCK, dim=-1)
    assert same_bits(decoded, expected)
    assert decoded.is_contiguous()


@pytest.mark.parametrize("dtype", BITS, ids=str)
def test_decodes_as_transformers(dtype):
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    blocks, scales = random_packed((2, 6, 3 * BLOCK))
    # Transformers returns [E, inputs, outputs].
    oracle = convert_moe_packed_tensors(blocks.unflatten(-1, (-1, 16)), scales, dtype=dtype).transpose(1, 2)
    assert same_bits(mxfp4_decode_ref(blocks, scales, dtype), oracle.contiguous())


def test_strided_inputs_decode_alike_and_are_not_written():
    blocks, scales = random_packed((4, 6, 4 * BLOCK))
    before = blocks.clone(), scales.clone()
    part = mxfp4_decode_ref(blocks[1::2, ::3, 16:32], scales[1::2, ::3, 1:2])
    assert torch.equal(part, mxfp4_decode_ref(blocks, scales)[1::2, ::3, BLOCK : 2 * BLOCK])
    assert torch.equal(blocks, before[0])
    assert torch.equal(scales, before[1])


@pytest.mark.parametrize(
    ("blocks", "scales", "dtype", "message"),
    [
        ((2, 16), (2, 2), torch.bfloat16, "do not fit"),
        ((3, 16), (2, 1), torch.bfloat16, "do not fit"),
        ((2, 16), (2, 1), torch.float16, "bfloat16 or float32"),
    ],
)
def test_refuses_what_it_cannot_decode(blocks, scales, dtype, message):
    packed = torch.zeros(blocks, dtype=torch.uint8), torch.zeros(scales, dtype=torch.uint8)
    with pytest.raises(ValueError, match=message):
        mxfp4_decode_ref(*packed, dtype)


def nearest_code(value: float) -> int:
    """Of the eight magnitudes the nearest, of two equally near ones the one whose mantissa bit is zero."""
    magnitude = min(range(8), key=lambda code: (abs(abs(value) - value_of(code)), code & 1))
    return magnitude | (8 if value < 0 else 0)


def test_encodes_to_the_nearest_value():
    edges = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0]
    near = [float(torch.tensor(v).float().nextafter(torch.tensor(to))) for v in edges for to in (0.0, 8.0)]
    magnitudes = [*edges, *near, *FP4_VALUES[:8], 0.1, 5.999, 6.5, 7.0, 7.999]
    values = [sign * magnitude for magnitude in magnitudes for sign in (1, -1)]
    # A 4.0 in every block holds its scale at 1.
    rows = torch.zeros(len(values), BLOCK)
    rows[:, 0], rows[:, 1] = 4.0, torch.tensor(values)
    blocks, scales = mxfp4_encode_ref(rows)
    assert scales.eq(127).all()
    assert (blocks[:, 0] & 15).eq(6).all()
    assert [int(byte) & 7 for byte in blocks[:, 0] >> 4] == [nearest_code(value) & 7 for value in values]
    assert [int(byte) >> 7 for byte in blocks[:, 0]] == [int(math.copysign(1, value) < 0) for value in values]


@pytest.mark.parametrize(
    ("amax", "byte"),
    [
        (0.0, 127),
        (4.0, 127),
        (7.9, 127),
        (8.0, 128),
        (3.999, 126),
        (6.0, 127),
        (1.0, 125),
        (2.0**-125, 0),
        (2.0**-149, 0),
        (2.0**127, 252),
        (float(torch.finfo(torch.float32).max), 252),
    ],
)
def test_scale_of_a_block(amax, byte):
    row = torch.zeros(BLOCK)
    row[5] = -amax
    blocks, scales = mxfp4_encode_ref(row)
    assert scales.tolist() == [byte]
    decoded = mxfp4_decode_ref(blocks, scales, torch.float32)
    # Saturated at 6 of a scale that leaves amax below 8; at byte 0 the step is an absolute one.
    assert abs(float(decoded[5]) + amax) <= max(amax / 4, 2.0**-128)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("dtype", BITS, ids=str)
def test_encoding_keeps_what_mxfp4_holds(shape, dtype):
    weights = mxfp4_decode_ref(*random_packed(shape, seed=1), dtype)
    blocks, scales = mxfp4_encode_ref(weights)
    assert (blocks.shape, scales.shape) == (
        (*shape[:-1], shape[-1] // 2),
        (*shape[:-1], shape[-1] // BLOCK),
    )
    assert same_bits(mxfp4_decode_ref(blocks, scales, dtype), weights)


def test_encoding_random_weights_is_nearest_at_its_scale():
    weights = torch.randn(8, 4 * BLOCK, generator=torch.Generator().manual_seed(2)) * 0.05
    blocks, scales = mxfp4_encode_ref(weights)
    scaled = (weights.double() / torch.exp2(scales.double() - 127).repeat_interleave(BLOCK, -1)).flatten()
    codes = torch.stack((blocks & 15, blocks >> 4), dim=-1).flatten()
    assert codes.tolist() == [nearest_code(value) for value in scaled.tolist()]
    assert scaled.view(-1, BLOCK).abs().amax(dim=-1).ge(4).all()
    assert scaled.abs().max() < 8


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.zeros(2, BLOCK + 1), "does not divide"),
        (torch.full((2, BLOCK), math.inf), "infinite or NaN"),
        (torch.full((2, BLOCK), math.nan), "infinite or NaN"),
    ],
)
def test_refuses_what_it_cannot_encode(weights, message):
    with pytest.raises(ValueError, match=message):
        mxfp4_encode_ref(weights)
