"""MXFP4 weights in registers, from the order of mxfp4_swizzle.py to the A operand of a tensor core's product.

Shifted left by 0, 3 and 6 and masked with 0x81C0 half of a word is a bf16: its sign, the two lowest bits of its
exponent and the highest of its mantissa, which is the value times 2 ** -126 (subnormals included). Value 3 is gathered.
The product with 2 ** (scale - 1) is the weight, and exact; or scales multiply what tensor cores make of the values of
their 32 columns.

The assembler's operands are words of two bf16. As halves, which a compiler would join again, each would be moved once
more before a product.

Source: PTX ISA 8.0, fragments of mma.m16n8k16; OCP Microscaling Formats (MX) v1.0.
"""

import triton.language as tl

from vllm_gptoss.kernels.gluon import INTERPRETED, constexpr_function, gl, jit

LARGEST_SCALE = 128
"""The largest scale byte that the kernels take: a bf16 holds 2 ** (scale - 1) up to there."""

_VALUES = tl.constexpr("""{
    .reg .b32 near, far, low, high, sign, mantissa, exponent;
    shl.b32 near, $4, 3;
    shl.b32 far, $4, 6;
    shr.u32 low, $4, 7;
    shl.b32 high, low, 4;
    shl.b32 sign, $4, 1;
    and.b32 mantissa, low, 0x00400040;
    lop3.b32 exponent, high, 0x01800180, mantissa, 0xEA;
    and.b32 $0, $4, 0x81C081C0;
    and.b32 $1, near, 0x81C081C0;
    and.b32 $2, far, 0x81C081C0;
    lop3.b32 $3, sign, 0x80008000, exponent, 0xEA;
}""")
"""Values 0 to 3 of both halves of a word ($4), times 2 ** -126."""

_SCALED = tl.constexpr("""{
    .reg .b32 upper, lower, zero;
    .reg .b16 first, second;
    mov.b32 {first, second}, $8;
    mov.b32 upper, {first, first};
    mov.b32 lower, {second, second};
    mov.b32 zero, 0x80008000;
    fma.rn.bf16x2 $0, $4, upper, zero;
    fma.rn.bf16x2 $1, $5, lower, zero;
    fma.rn.bf16x2 $2, $6, upper, zero;
    fma.rn.bf16x2 $3, $7, lower, zero;
}""")
"""Values 0 to 3 ($4 to $7) times the factors of their rows, in the halves of a word ($8)."""

_FACTORS = tl.constexpr("""{
    .reg .b32 scales;
    prmt.b32 scales, $1, 0, $2;
    mad.lo.u32 $0, scales, 128, 0x3F003F00;
}""")
"""2 ** (scale - 1) as a bf16, whose exponent field is scale + 126, of two bytes of $1: those that $2 picks."""


@jit
def _decode(halves):
    """Four bf16 tensors of `halves` i16, times 2 ** -126: of rows r and r + 8, then both again 8 columns further."""
    if not INTERPRETED:
        # Two halves are a word.
        return gl.inline_asm_elementwise(
            _VALUES, "=&r,=&r,=&r,=&r,r", [halves], dtype=(tl.bfloat16,) * 4, is_pure=True, pack=2
        )
    # The interpreter has no assembler.
    halves = halves.to(tl.int32)
    last = ((halves << 1) & 0x8000) | ((halves >> 3) & 0x180) | ((halves >> 7) & 0x40)
    return _value(halves), _value(halves << 3), _value(halves << 6), _value(last)


@jit
def _value(half):
    """bf16 of the bits 15 and 8 to 6 of `half`."""
    return (half & 0x81C0).to(tl.int16).to(tl.bfloat16, bitcast=True)


@jit
def _scale(values, factors):
    """The four `values` of `_decode` times their weights' scales; `factors` as of `_factors`."""
    if not INTERPRETED:
        return gl.inline_asm_elementwise(
            _SCALED,
            "=&r,=&r,=&r,=&r,r,r,r,r,r,r",
            [values[0], values[1], values[2], values[3], factors],
            dtype=(tl.bfloat16,) * 4,
            is_pure=True,
            pack=2,
        )
    upper = (factors << 16).to(tl.float32, bitcast=True)
    lower = (factors & -65536).to(tl.float32, bitcast=True)
    return (
        _times(values[0], upper),
        _times(values[1], lower),
        _times(values[2], upper),
        _times(values[3], lower),
    )


@jit
def _times(value, factor):
    """bf16 of bf16 `value` times fp32 `factor`: the interpreter's own conversion loses the least numbers."""
    wide = (value.to(tl.int16, bitcast=True).to(tl.int32) << 16).to(tl.float32, bitcast=True)
    return (wide * factor).to(tl.bfloat16)


@jit
def _factors(scales, first):
    """i32 of the bytes `first` and `first` + 1 of `scales`: in its lower half the factor of row r, then of r + 8."""
    if not INTERPRETED:
        return gl.inline_asm_elementwise(
            _FACTORS, "=r,r,r", [scales, 0x4140 + first * 0x0101], dtype=tl.int32, is_pure=True, pack=1
        )
    scales = scales >> first * 8
    return (((scales & 255) + 126) << 7) | ((((scales >> 8) & 255) + 126) << 23)


@constexpr_function
def _bits(first, count, at, dimensions):
    """Basis vectors of a layout: `first` doubled `count` times, in the place `at` of so many dimensions."""
    return [[first << i if place == at else 0 for place in range(dimensions)] for i in range(count)]


@constexpr_function
def _log2(power):
    return power.bit_length() - 1


@constexpr_function
def halves_layout(rows, row_warps, column_warps):
    """Of halves of words [column_warps, rows / 4, 128]: which lane of which warp owns which, bit by bit of its number.

    Warps of the same columns split the rows.
    """
    return gl.DistributedLinearLayout(
        [*_bits(1, 3, 2, 3), [0, 0, 64], *_bits(4 * row_warps, _log2(rows // (16 * row_warps)), 1, 3)],
        [*_bits(8, 3, 2, 3), *_bits(1, 2, 1, 3)],
        [*_bits(4, _log2(row_warps), 1, 3), *_bits(1, _log2(column_warps), 0, 3)],
        [],
        [column_warps, rows // 4, 128],
    )


@constexpr_function
def scales_layout(rows, row_warps, column_warps):
    """Of scales [column_warps, rows / 2, 2]: the four lanes of a row hold the same."""
    return gl.DistributedLinearLayout(
        [[0, 0, 1], *_bits(8 * row_warps, _log2(rows // (16 * row_warps)), 1, 3)],
        [[0, 0, 0], [0, 0, 0], *_bits(1, 3, 1, 3)],
        [*_bits(8, _log2(row_warps), 1, 3), *_bits(1, _log2(column_warps), 0, 3)],
        [],
        [column_warps, rows // 2, 2],
    )


@constexpr_function
def _parts_layout(rows, row_warps, column_warps):
    """`halves_layout` with the dimensions apart: [p, g, q, k, s, c, t, half], where p are the column warps."""
    return gl.DistributedLinearLayout(
        [
            *_bits(1, 1, 7, 8),
            *_bits(1, 2, 6, 8),
            *_bits(1, 1, 3, 8),
            *_bits(row_warps, _log2(rows // (16 * row_warps)), 1, 8),
        ],
        [*_bits(1, 2, 5, 8), *_bits(1, 1, 4, 8), *_bits(1, 2, 2, 8)],
        [*_bits(1, _log2(row_warps), 1, 8), *_bits(1, _log2(column_warps), 0, 8)],
        [],
        [column_warps, rows // 16, 4, 2, 2, 4, 4, 2],
    )


@constexpr_function
def _operands_layout(parts):
    """Of one line along t."""
    for dimension in (7, 5, 4, 3, 2, 1, 0):
        parts = gl.SliceLayout(dimension, parts)
    return parts


@jit
def weights_of(halves, scales, row_warps: tl.constexpr):
    """bf16 [p, rows, 128] of the A operand of p warps along the columns, and of others along the rows.

    `halves` i16 [p, rows / 4, 128] lie in `halves_layout` and `scales` i32 [p, rows / 2, 2], four bytes a word, in
    `scales_layout`. Lanes exchange nothing.
    """
    warps: tl.constexpr = halves.shape[0]
    groups: tl.constexpr = halves.shape[1] // 4
    parts: tl.constexpr = _parts_layout(16 * groups, row_warps, warps)
    halves = gl.convert_layout(halves.reshape(warps, groups, 4, 2, 2, 4, 4, 2), parts, assert_trivial=True)
    scales = scales.reshape(warps, groups, 4, 2, 2).permute(0, 1, 2, 4, 3)  # [p, g, q, k, s]
    lines: tl.constexpr = gl.SliceLayout(5, gl.SliceLayout(6, gl.SliceLayout(7, parts)))
    scales = gl.convert_layout(scales, lines, assert_trivial=True).expand_dims(5).expand_dims(6).expand_dims(7)
    operand = gl.arange(0, 4, layout=_operands_layout(parts))
    operand = operand.expand_dims(0).expand_dims(1).expand_dims(2).expand_dims(3).expand_dims(4).expand_dims(5)
    operand = operand.expand_dims(7)
    # The first two operands of a word's four lie in one block of 32 columns, the others in the next.
    scales, first = gl.broadcast(scales, operand // 2 * 2)
    halves, factors = gl.broadcast(halves, _factors(scales, first))
    tile = _rows_and_columns(_scale(_decode(halves), factors))  # [p, g, q, k, s, c, t, half, row + 8, column + 8]
    return tile.permute(0, 1, 8, 2, 4, 3, 6, 9, 5, 7).reshape(warps, 16 * groups, 128)


@jit
def split_columns(halves, scales):
    """What belongs to each of the four blocks of 32 columns: halves [p, g, q, s, c, t, half] and scales [p, pair].

    Of the arguments of `weights_of`; the scales of a block are the lower two bytes of its word, or the upper two.
    """
    warps: tl.constexpr = halves.shape[0]
    groups: tl.constexpr = halves.shape[1] // 4
    # [p, g, q, k, s, c, h, t, half] with the blocks, k and h, last.
    halves = halves.reshape(warps, groups, 4, 2, 2, 4, 2, 2, 2).permute(0, 1, 2, 4, 5, 7, 8, 3, 6)
    even, odd = gl.split(halves)
    first, third = gl.split(even)
    second, fourth = gl.split(odd)
    near, far = gl.split(scales)
    return (first, second, third, fourth), (near, near, far, far)


@jit
def values_of(halves):
    """bf16 [p, rows, 32] of the A operand, times 2 ** -126: the values of a block's `halves`, without their scales."""
    warps: tl.constexpr = halves.shape[0]
    groups: tl.constexpr = halves.shape[1]
    tile = _rows_and_columns(_decode(halves))  # [p, g, q, s, c, t, half, row + 8, column + 8]
    return tile.permute(0, 1, 7, 2, 3, 5, 8, 4, 6).reshape(warps, 16 * groups, 32)


@jit
def factors_of(scales, first: tl.constexpr):
    """fp32 [p, rows], 2 ** (scale - 127), of a block whose scales are the bytes from `first` on; 0 for a scale of 0."""
    warps: tl.constexpr = scales.shape[0]
    groups: tl.constexpr = scales.shape[1] // 8
    factors = gl.join(_power(scales, 8 * first), _power(scales, 8 * first + 8))  # [p, pair, row + 8]
    return factors.reshape(warps, groups, 8, 2).permute(0, 1, 3, 2).reshape(warps, 16 * groups)


@jit
def _rows_and_columns(values):
    """The four values of each half with two dimensions more: [.., row + 8, column + 8]."""
    return gl.join(gl.join(values[0], values[1]), gl.join(values[2], values[3]))


@jit
def _power(scales, shift: tl.constexpr):
    """fp32 of which the exponent is the byte of `scales` from bit `shift` on."""
    if shift < 24:  # noqa: SIM108  the other branch would shift by less than nothing
        bits = scales << (23 - shift)
    else:
        bits = scales >> (shift - 23)
    return (bits & 0x7F800000).to(tl.float32, bitcast=True)
