"""MXFP4 weights in the order in which the threads of a tensor-core product read them.

The operand that a warp multiplies has 16 rows and 16 columns: lane 4 r + c holds, as pairs of neighbouring columns,
rows r and r + 8 at columns 2 c and 2 c + 8. Its parts of four such operands side by side, a word an operand, are 16
bytes of this layout: one load brings a lane what it multiplies, and no value moves between lanes.

    blocks[e, 4 g + q, 32 k + 16 s + 4 c + t]        rows 16 g + 2 q + s and + 8, columns 64 k + 16 t + 2 c and + 8
    scales[e, 8 b + w, 64 k + 32 a + 4 r + 2 h + i]  row 256 b + 128 a + 16 w + 8 i + r, column block 2 k + h

The two columns of a pair lie in the two halves of a word. In each half lie four values: row r, row r + 8, and both
again 8 columns further:

    bit    15 14 13 12 11 10  9  8  7  6  5  4  3  2  1  0
    value   0  3  3  1  3  3  2  0  0  0  1  1  1  2  2  2

Shifted left by 0, 3 and 6 and masked with 0x81C0 a half is a bf16: its sign, the two lowest bits of its exponent and
the highest of its mantissa, which is the value times 2 ** -126 (subnormals included). Value 3 is gathered: its sign is
bit 14, its exponent 11 and 10, its mantissa 13. The product with 2 ** (scale - 1) is the weight, and exact.

Layout: blocks i32 [E, R / 4, C / 2], R rounded up to 16 rows and C to 64 columns; scales u8 [E, R / 32, C], R rounded
up to 256 rows and C to 128 columns. It is what vLLM's expert kernels read on Hopper too (its layouts HOPPER_VALUE, and
HOPPER_SCALE for 8 warps): one copy of the weights serves both.

Source: PTX ISA 8.0, fragments of mma.m16n8k16; OCP Microscaling Formats (MX) v1.0.
"""

import torch
import torch.nn.functional as F
import triton.language as tl

from vllm_gptoss.kernels.gluon import INTERPRETED, constexpr_function, gl, jit
from vllm_gptoss.kernels.mxfp4 import BLOCK

LARGEST_SCALE = 128
"""The largest scale byte that the kernels take: a bf16 holds 2 ** (scale - 1) up to there."""


def swizzle_blocks(blocks: torch.Tensor) -> torch.Tensor:
    """i32 [E, R / 4, C / 2] of `blocks` u8 [E, R, C / 2] (see mxfp4.py), padded with zeros to whole operands."""
    experts, rows, half_columns = blocks.shape
    blocks = F.pad(blocks, (0, -half_columns % 32, 0, -rows % 16))
    rows, half_columns = blocks.shape[1:]
    # [e, g, i, q, s, k, t, j, c]: row 16 g + 8 i + 2 q + s, byte 32 k + 8 t + 4 j + c.
    parts = blocks.view(experts, rows // 16, 2, 4, 2, half_columns // 32, 4, 2, 4)
    out = torch.zeros(experts, rows // 16, 4, half_columns // 32, 2, 4, 4, dtype=torch.int32, device=blocks.device)
    for value, (j, i) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        codes = parts[:, :, i, :, :, :, :, j].permute(0, 1, 2, 4, 3, 6, 5).int()  # [e, g, q, k, s, c, t]
        out |= _place(codes & 15, value) | _place(codes >> 4, value) << 16
    return out.view(experts, rows // 4, half_columns)


def _place(codes: torch.Tensor, value: int) -> torch.Tensor:
    """The bits of four-bit `codes` where a half holds its value 0 to 3."""
    if value < 3:
        return ((codes & 8) << 12 | (codes & 7) << 6) >> 3 * value
    return (codes & 8) << 11 | (codes & 6) << 9 | (codes & 1) << 13


def swizzle_scales(scales: torch.Tensor) -> torch.Tensor:
    """u8 [E, R / 32, C] of `scales` u8 [E, R, C / 32], padded with zeros to whole lines."""
    experts, rows, groups = scales.shape
    scales = F.pad(scales, (0, -groups % 4, 0, -rows % 256))
    rows, groups = scales.shape[1:]
    # [e, b, a, w, i, r, k, h]: row 256 b + 128 a + 16 w + 8 i + r, column block 2 k + h.
    parts = scales.view(experts, rows // 256, 2, 8, 2, 8, groups // 2, 2)
    return parts.permute(0, 1, 3, 6, 2, 5, 7, 4).reshape(experts, rows // BLOCK, groups * BLOCK)


_DECODE = tl.constexpr("""{
    .reg .b32 v<4>, p<4>, low, high, sign, zero;
    mov.b32 zero, 0x80008000;
    and.b32 v0, $8, 0x81C081C0;
    shl.b32 v1, $8, 3;
    and.b32 v1, v1, 0x81C081C0;
    shl.b32 v2, $8, 6;
    and.b32 v2, v2, 0x81C081C0;
    shr.u32 low, $8, 7;
    shl.b32 high, low, 4;
    shl.b32 sign, $8, 1;
    and.b32 v3, low, 0x00400040;
    lop3.b32 v3, high, 0x01800180, v3, 0xEA;
    lop3.b32 v3, sign, 0x80008000, v3, 0xEA;
    fma.rn.bf16x2 p0, v0, $9, zero;
    fma.rn.bf16x2 p1, v1, $10, zero;
    fma.rn.bf16x2 p2, v2, $9, zero;
    fma.rn.bf16x2 p3, v3, $10, zero;
    mov.b32 {$0, $1}, p0;
    mov.b32 {$2, $3}, p1;
    mov.b32 {$4, $5}, p2;
    mov.b32 {$6, $7}, p3;
}""")
"""Eight weights of a word ($8) and the factors of its two rows, each in both halves of a word ($9, $10)."""


@jit
def _weight(half, factor):
    """bf16 of the value in bits 15 and 8 to 6 of `half`, times the bf16 in the upper half of `factor`."""
    value = ((half & 0x81C0) << 16).to(tl.float32, bitcast=True)
    return (value * (factor & -65536).to(tl.float32, bitcast=True)).to(tl.bfloat16)


@jit
def _decode_word(words, upper, lower):
    """Eight bf16 tensors: for rows r and r + 8, then both again 8 columns further, the two columns of a pair.

    `upper` and `lower` i32 hold the factors of rows r and r + 8 in both halves.
    """
    if not INTERPRETED:
        return gl.inline_asm_elementwise(
            _DECODE,
            "=h,=h,=h,=h,=h,=h,=h,=h,r,r,r",
            [words, upper, lower],
            dtype=(tl.bfloat16,) * 8,
            is_pure=True,
            pack=1,
        )
    # The interpreter has no assembler.
    a = words
    b = words >> 16
    c = ((a << 1) & 0x8000) | ((a >> 3) & 0x180) | ((a >> 7) & 0x40)
    d = ((b << 1) & 0x8000) | ((b >> 3) & 0x180) | ((b >> 7) & 0x40)
    return (
        _weight(a, upper),
        _weight(b, upper),
        _weight(a << 3, lower),
        _weight(b << 3, lower),
        _weight(a << 6, upper),
        _weight(b << 6, upper),
        _weight(c, lower),
        _weight(d, lower),
    )


@constexpr_function
def _bits(first, count, at, dimensions):
    """Basis vectors of a layout: `first` doubled `count` times, in the place `at` of so many dimensions."""
    return [[first << i if place == at else 0 for place in range(dimensions)] for i in range(count)]


@constexpr_function
def _repeats(rows, warps):
    """How often, as a power of two, a warp has 16 rows of a tile."""
    return (rows // (16 * warps)).bit_length() - 1


@constexpr_function
def words_layout(rows, warps):
    """Of words [rows / 4, 64]: which lane of which warp owns which, bit by bit of its number."""
    return gl.DistributedLinearLayout(
        [[0, 1], [0, 2], [0, 32], *_bits(4 * warps, _repeats(rows, warps), 0, 2)],
        [[0, 4], [0, 8], [0, 16], [1, 0], [2, 0]],
        _bits(4, warps.bit_length() - 1, 0, 2),
        [],
        [rows // 4, 64],
    )


@constexpr_function
def scales_layout(rows, warps):
    """Of scales [rows / 2, 2]: the four lanes of a row hold the same."""
    return gl.DistributedLinearLayout(
        [[0, 1], *_bits(8 * warps, _repeats(rows, warps), 0, 2)],
        [[0, 0], [0, 0], [1, 0], [2, 0], [4, 0]],
        _bits(8, warps.bit_length() - 1, 0, 2),
        [],
        [rows // 2, 2],
    )


@constexpr_function
def _parts_layout(rows, warps):
    """`words_layout` with the dimensions apart: [g, q, k, s, c, t]."""
    return gl.DistributedLinearLayout(
        [[0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 2], [0, 0, 1, 0, 0, 0], *_bits(warps, _repeats(rows, warps), 0, 6)],
        [[0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 2, 0], [0, 0, 0, 1, 0, 0], [0, 1, 0, 0, 0, 0], [0, 2, 0, 0, 0, 0]],
        _bits(1, warps.bit_length() - 1, 0, 6),
        [],
        [rows // 16, 4, 2, 2, 4, 4],
    )


@constexpr_function
def _last_dimension(layout):
    for dimension in (4, 3, 2, 1, 0):
        layout = gl.SliceLayout(dimension, layout)
    return layout


@jit
def decode_tile(words, scales, tile_rows: tl.constexpr, warps: tl.constexpr):
    """bf16 [tile_rows, 128] of the A operand of `warps` along the rows, with no exchange between lanes.

    `words` i32 [tile_rows / 4, 64] in the layout `words_layout`, `scales` i32 [tile_rows / 2, 2], four bytes a word, in
    `scales_layout`.
    """
    parts: tl.constexpr = _parts_layout(tile_rows, warps)
    words = gl.convert_layout(
        words.reshape(tile_rows // 16, 4, 2, 2, 4, 4), parts, assert_trivial=True
    )  # [g, q, k, s, c, t]
    scales = scales.reshape(tile_rows // 16, 4, 2, 2).permute(0, 1, 3, 2)  # [g, q, k, s]
    scales = gl.convert_layout(scales, gl.SliceLayout(4, gl.SliceLayout(5, parts)), assert_trivial=True)
    operand = gl.arange(0, 4, layout=_last_dimension(parts))
    operand = operand.expand_dims(0).expand_dims(1).expand_dims(2).expand_dims(3).expand_dims(4)
    # The first two operands of a word's four lie in one block of 32 columns, the others in the next.
    scales = scales.expand_dims(4).expand_dims(5) >> (operand // 2 * 16)
    # 2 ** (scale - 1) as a bf16 has the exponent field scale + 126.
    upper = ((scales & 255) + 126) * 0x800080
    lower = (((scales >> 8) & 255) + 126) * 0x800080
    words, upper = gl.broadcast(words, upper)
    words, lower = gl.broadcast(words, lower)
    v = _decode_word(words, upper, lower)
    near = gl.join(gl.join(v[0], v[1]), gl.join(v[2], v[3]))
    far = gl.join(gl.join(v[4], v[5]), gl.join(v[6], v[7]))
    tile = gl.join(near, far)  # [g, q, k, s, c, t, column pair, row + 8, column + 8]
    return tile.permute(0, 7, 1, 3, 2, 5, 8, 4, 6).reshape(tile_rows, 128)
