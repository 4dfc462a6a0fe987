"""The order of MXFP4 bytes that the expert kernels read: its equation, and vLLM's order on Hopper."""

import pytest
import torch

from vllm_gptoss.kernels.mxfp4_swizzle import swizzle_blocks, swizzle_scales

SHAPES = {"20b gate_up": (5760, 2880), "20b down": (2880, 2880), "one tile": (16, 64), "ragged": (40, 96)}


@pytest.fixture(params=SHAPES.values(), ids=SHAPES.keys())
def weights(request) -> tuple[torch.Tensor, torch.Tensor]:
    rows, columns = request.param
    blocks = torch.randint(0, 256, (2, rows, columns // 2), dtype=torch.uint8)
    return blocks, torch.randint(0, 255, (2, rows, columns // 32), dtype=torch.uint8)


def test_blocks_follow_the_equation(weights):
    blocks, _ = weights
    out = swizzle_blocks(blocks)
    _, rows, half_columns = blocks.shape
    assert out.shape == (2, -(-rows // 16) * 4, -(-half_columns // 32) * 32)

    def code(row: int, column: int) -> int:
        if row >= rows or column >= 2 * half_columns:
            return 0
        return int(blocks[1, row, column // 2]) >> 4 * (column % 2) & 15

    for g, q, k, s, c, t in torch.randint(0, 1 << 30, (200, 6)).tolist():
        g, q, k, s, c, t = g % (out.shape[1] // 4), q % 4, k % (out.shape[2] // 32), s % 2, c % 4, t % 4
        word = int(out[1, 4 * g + q, 32 * k + 16 * s + 4 * c + t]) & 0xFFFFFFFF
        row, column = 16 * g + 2 * q + s, 64 * k + 16 * t + 2 * c
        for half, bits in enumerate((word & 0xFFFF, word >> 16)):
            values = [
                code(row, column + half),
                code(row + 8, column + half),
                code(row, column + 8 + half),
                code(row + 8, column + 8 + half),
            ]
            assert [bits >> shift & 1 for shift in (15, 12, 9, 14)] == [value >> 3 for value in values]
            assert [bits >> shift & 7 for shift in (6, 3, 0)] == [value & 7 for value in values[:3]]
            assert (bits >> 10 & 3) << 1 | bits >> 13 & 1 == values[3] & 7


def test_it_is_what_vllms_kernels_read(weights):
    pytest.importorskip("vllm")
    from vllm.utils.import_utils import import_triton_kernels

    import_triton_kernels()
    from triton_kernels.tensor_details.layout import HopperMXScaleLayout, HopperMXValueLayout

    blocks, scales = weights
    values = HopperMXValueLayout(blocks.mT.shape, mx_axis=1).swizzle_data(blocks.mT)
    assert torch.equal(swizzle_blocks(blocks).view(torch.uint8), values.mT)
    # vLLM pads to four scales a row before it puts them in order.
    padded = torch.nn.functional.pad(scales, (0, -scales.shape[2] % 4)).mT
    factors = HopperMXScaleLayout(padded.shape, mx_axis=1, num_warps=8).swizzle_data(padded)
    assert torch.equal(swizzle_scales(scales), factors.mT)
