"""The product that both halves of an expert are: rows of MXFP4 weights times up to 64 gathered token rows.

    acc[r, n] = sum_c weight[row + r, c] * x[source[n], c]      fp32, over the steps `begin` to `end` of 128 columns

Bytes arrive through a ring in shared memory that stays stages - 1 steps ahead. A lane copies the weights that it will
multiply itself and decodes them into its part of the tensor core's A operand; the tokens are the B operand. A token
that is masked (its source is negative) costs no bytes.
"""

import triton.language as tl

from vllm_gptoss.kernels.gluon import async_copy, constexpr_function, gl, jit, mma_v2
from vllm_gptoss.kernels.mxfp4_swizzle import decode_tile, scales_layout, words_layout

STEP = tl.constexpr(128)
"""Columns a step: for a lane, two 16-byte loads of weights for each 64 rows."""


@constexpr_function
def product_layout():
    """Of the accumulator [rows, tokens]: four warps along the rows."""
    return gl.NVMMADistributedLayout([2, 0], [4, 1], [16, 8])


@constexpr_function
def tokens_layout():
    """Of a step's tokens [tokens, 128]: 16 bytes a lane."""
    return gl.BlockedLayout([1, 8], [2, 16], [4, 1], [1, 0])


@constexpr_function
def _scale_copy_layout():
    return gl.BlockedLayout([1, 1], [32, 1], [2, 2], [0, 1])


@jit
def _start_copies(
    step,
    end,
    word_ring,
    scale_ring,
    token_ring,
    word_ptr,
    scale_ptr,
    token_ptr,
    row_inside,
    token_inside,
    columns,
    tile_rows: tl.constexpr,
    stages: tl.constexpr,
):
    """Of one step; past the last one they bring nothing, and count nevertheless."""
    slot = step % stages
    word = step * (STEP // 2) + gl.arange(0, STEP // 2, layout=gl.SliceLayout(0, words_layout(tile_rows)))
    inside = row_inside[:, None] & ((word < (columns + 63) // 64 * 32) & (step < end))[None, :]
    async_copy.async_copy_global_to_shared(word_ring.index(slot), word_ptr + word[None, :], mask=inside)
    pair = step * 2 + gl.arange(0, 2, layout=gl.SliceLayout(0, _scale_copy_layout()))
    inside = ((pair * 64 < columns) & (step < end))[None, :]
    async_copy.async_copy_global_to_shared(scale_ring.index(slot), scale_ptr + (pair * 16)[None, :], mask=inside)
    column = step * STEP + gl.arange(0, STEP, layout=gl.SliceLayout(0, tokens_layout()))
    inside = token_inside[:, None] & ((column < columns) & (step < end))[None, :]
    async_copy.async_copy_global_to_shared(token_ring.index(slot), token_ptr + column[None, :], mask=inside)
    async_copy.commit_group()


@jit
def expert_product(
    x,
    source,
    blocks,
    scales,
    row,
    rows,
    columns,
    begin,
    end,
    tile_rows: tl.constexpr,
    tile_tokens: tl.constexpr,
    stages: tl.constexpr,
):
    """fp32 [tile_rows, tile_tokens] in `product_layout()`.

    `x` bf16 [.., columns] is contiguous; `source` [tile_tokens] lies as the rows of `tokens_layout()`; `blocks` and
    `scales` (i32, four bytes a word) point to one expert of `rows` and `columns`, in the order of mxfp4_swizzle.py;
    `row` is a multiple of tile_rows, 64 or 128.
    """
    words: tl.constexpr = words_layout(tile_rows)
    copies: tl.constexpr = _scale_copy_layout()
    product: tl.constexpr = product_layout()
    plain: tl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [1, 0])
    word_ring = gl.allocate_shared_memory(gl.int32, [stages, tile_rows // 4, STEP // 2], plain)
    scale_ring = gl.allocate_shared_memory(gl.int32, [stages, tile_rows // 2, 2], plain)
    token_ring = gl.allocate_shared_memory(
        gl.bfloat16, [stages, tile_tokens, STEP], gl.SwizzledSharedLayout(8, 1, 8, [1, 0])
    )
    quarter = row // 4 + gl.arange(0, tile_rows // 4, layout=gl.SliceLayout(1, words))
    word_ptr = blocks + quarter[:, None] * ((columns + 63) // 64 * 32)
    row_inside = quarter < (rows + 15) // 16 * 4
    # Two rows, r and r + 8 of 16, share a word.
    pair = gl.arange(0, tile_rows // 2, layout=gl.SliceLayout(1, copies))
    line = row // 256 * 8 + row % 128 // 16 + pair // 8
    scale_ptr = scales + (line * ((columns + 127) // 128 * 32) + row % 256 // 128 * 8 + pair % 8)[:, None]
    token_ptr = x + source.to(gl.int64)[:, None] * columns
    token_inside = source >= 0
    acc = gl.zeros([tile_rows, tile_tokens], gl.float32, layout=product)
    for ahead in gl.static_range(stages - 1):
        _start_copies(
            begin + ahead, end, word_ring, scale_ring, token_ring, word_ptr, scale_ptr, token_ptr, row_inside,
            token_inside, columns, tile_rows, stages,
        )  # fmt: skip
    for step in range(begin, end):
        async_copy.wait_group(stages - 2)
        slot = step % stages
        weights = decode_tile(
            word_ring.index(slot).load(words), scale_ring.index(slot).load(scales_layout(tile_rows)), tile_rows
        )
        a = gl.convert_layout(weights, gl.DotOperandLayout(0, product, 2), assert_trivial=True)
        b = token_ring.index(slot).permute((1, 0)).load(gl.DotOperandLayout(1, product, 2))
        acc = mma_v2(a, b, acc)
        _start_copies(
            step + stages - 1, end, word_ring, scale_ring, token_ring, word_ptr, scale_ptr, token_ptr, row_inside,
            token_inside, columns, tile_rows, stages,
        )  # fmt: skip
    return acc
