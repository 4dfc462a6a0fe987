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

The sign of value 3 is bit 14, its exponent 11 and 10, its mantissa 13. How they are decoded: mxfp4_operand.py.

Layout: blocks i32 [E, R / 4, C / 2], R rounded up to 16 rows and C to 64 columns; scales u8 [E, R / 32, C], R rounded
up to 256 rows and C to 128 columns. It is what vLLM's expert kernels read on Hopper too (its layouts HOPPER_VALUE, and
HOPPER_SCALE for 8 warps): one copy of the weights serves both.

Source: PTX ISA 8.0, fragments of mma.m16n8k16; OCP Microscaling Formats (MX) v1.0.
"""

import torch
import torch.nn.functional as F

from vllm_gptoss.kernels.mxfp4 import BLOCK


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
