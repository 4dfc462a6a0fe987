"""The product that both halves of an expert are: rows of MXFP4 weights times up to 128 gathered token rows.

    acc[r, n] = sum_c weight[row + r, c] * x[source[n], c]      fp32, over the steps `begin` to `end` of 128 columns

Bytes arrive through a ring in shared memory that stays stages - 1 steps ahead. A lane copies the weights that it will
multiply itself and decodes them into its part of the tensor core's A operand; the tokens are the B operand, which
Hopper's warpgroup product reads where they lie. A token that is masked (its source is negative) costs no bytes.
"""

import triton.language as tl

from vllm_gptoss.kernels.dependent_launch import let_successor_start, wait_for_predecessor
from vllm_gptoss.kernels.gluon import async_copy, constexpr_function, fence_async_shared, gl, jit, mma_v2, warpgroup_mma
from vllm_gptoss.kernels.mxfp4_swizzle import decode_tile, scales_layout, words_layout

STEP = tl.constexpr(128)
"""Columns a step: for a lane, two 16-byte loads of weights for each 16 rows of its warp."""


@constexpr_function
def product_layout(config):
    """Of the accumulator [rows, tokens]: warps along the rows."""
    if config.warpgroup:
        return gl.NVMMADistributedLayout([3, 0], [config.warps, 1], [16, config.tokens, 16])
    return gl.NVMMADistributedLayout([2, 0], [config.warps, 1], [16, 8])


@constexpr_function
def tokens_layout(config):
    """Of a step's tokens [tokens, 128]: 16 bytes a lane."""
    return gl.BlockedLayout([1, 8], [2, 16], [config.warps, 1], [1, 0])


@constexpr_function
def _scale_copy_layout(config):
    return gl.BlockedLayout([1, 1], [32, 1], [config.warps // 2, 2], [0, 1])


@constexpr_function
def _token_ring_layout(config):
    """In shared memory, as the product reads it without bank conflicts."""
    return gl.NVMMASharedLayout(128, 16, 2) if config.warpgroup else gl.SwizzledSharedLayout(8, 1, 8, [1, 0])


@jit
def _copy_weights(step, end, word_ring, scale_ring, word_ptr, scale_ptr, row_inside, columns, config: tl.constexpr):
    """Start the copies of one step; past the last one they bring nothing."""
    slot = step % config.stages
    layout: tl.constexpr = words_layout(config.rows, config.warps)
    word = step * (STEP // 2) + gl.arange(0, STEP // 2, layout=gl.SliceLayout(0, layout))
    inside = row_inside[:, None] & ((word < (columns + 63) // 64 * 32) & (step < end))[None, :]
    async_copy.async_copy_global_to_shared(word_ring.index(slot), word_ptr + word[None, :], mask=inside)
    pair = step * 2 + gl.arange(0, 2, layout=gl.SliceLayout(0, _scale_copy_layout(config)))
    inside = ((pair * 64 < columns) & (step < end))[None, :]
    async_copy.async_copy_global_to_shared(scale_ring.index(slot), scale_ptr + (pair * 16)[None, :], mask=inside)


@jit
def _copy_tokens(step, end, token_ring, token_ptr, token_inside, columns, config: tl.constexpr):
    """Start the copies of one step, and count them with all that were started since the last count."""
    column = step * STEP + gl.arange(0, STEP, layout=gl.SliceLayout(0, tokens_layout(config)))
    inside = token_inside[:, None] & ((column < columns) & (step < end))[None, :]
    slot = token_ring.index(step % config.stages)
    async_copy.async_copy_global_to_shared(slot, token_ptr + column[None, :], mask=inside)
    async_copy.commit_group()


@jit
def _multiply(word_slot, scale_slot, token_slot, acc, config: tl.constexpr):
    """`acc` and the product of one step."""
    product: tl.constexpr = product_layout(config)
    words = word_slot.load(words_layout(config.rows, config.warps))
    scales = scale_slot.load(scales_layout(config.rows, config.warps))
    weights = decode_tile(words, scales, config.rows, config.warps)
    a = gl.convert_layout(weights, gl.DotOperandLayout(0, product, 2), assert_trivial=True)
    b = token_slot.permute((1, 0))
    lanes: tl.constexpr = gl.DotOperandLayout(1, product, 2)
    return warpgroup_mma(a, b, acc) if config.warpgroup else mma_v2(a, b.load(lanes), acc)


@jit
def expert_product(
    x, source, blocks, scales, row, rows, columns, begin, end, config: tl.constexpr, waits: tl.constexpr
):
    """fp32 [config.rows, config.tokens] in `product_layout`.

    `x` bf16 [.., columns] is contiguous; `source` [tokens] lies as the rows of `tokens_layout`; `blocks` and `scales`
    (i32, four bytes a word) point to one expert of `rows` and `columns`, in the order of mxfp4_swizzle.py; `row` is a
    multiple of config.rows. If it `waits` for the launch before (dependent_launch.py), it does so once the ring fills
    with weights, and before it reads `x`.
    """
    copies: tl.constexpr = _scale_copy_layout(config)
    plain: tl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [1, 0])
    word_ring = gl.allocate_shared_memory(gl.int32, [config.stages, config.rows // 4, STEP // 2], plain)
    scale_ring = gl.allocate_shared_memory(gl.int32, [config.stages, config.rows // 2, 2], plain)
    token_ring = gl.allocate_shared_memory(
        gl.bfloat16, [config.stages, config.tokens, STEP], _token_ring_layout(config)
    )
    quarter = row // 4 + gl.arange(
        0, config.rows // 4, layout=gl.SliceLayout(1, words_layout(config.rows, config.warps))
    )
    word_ptr = blocks + quarter[:, None] * ((columns + 63) // 64 * 32)
    row_inside = quarter < (rows + 15) // 16 * 4
    # Two rows, r and r + 8 of 16, share a word.
    pair = gl.arange(0, config.rows // 2, layout=gl.SliceLayout(1, copies))
    group = row // 16 + pair // 8
    line = group // 16 * 8 + group % 8
    scale_ptr = scales + (line * ((columns + 127) // 128 * 32) + group // 8 % 2 * 8 + pair % 8)[:, None]
    token_ptr = x + source.to(gl.int64)[:, None] * columns
    token_inside = source >= 0
    tile: tl.constexpr = (config.rows, config.tokens)
    acc = gl.zeros(tile, gl.float32, layout=product_layout(config))
    for ahead in gl.static_range(config.stages - 1):
        _copy_weights(begin + ahead, end, word_ring, scale_ring, word_ptr, scale_ptr, row_inside, columns, config)
    if waits:
        wait_for_predecessor()
        let_successor_start()
    for ahead in gl.static_range(config.stages - 1):
        _copy_tokens(begin + ahead, end, token_ring, token_ptr, token_inside, columns, config)
    for step in range(begin, end):
        async_copy.wait_group(config.stages - 2)
        if config.warpgroup:
            # What the copies wrote must be seen by the tensor core's own way to shared memory.
            fence_async_shared()
        # The slot of the step before is free, as every warp has come here.
        later = step + config.stages - 1
        _copy_weights(later, end, word_ring, scale_ring, word_ptr, scale_ptr, row_inside, columns, config)
        _copy_tokens(later, end, token_ring, token_ptr, token_inside, columns, config)
        slot = step % config.stages
        acc = _multiply(word_ring.index(slot), scale_ring.index(slot), token_ring.index(slot), acc, config)
    # Copies past the last step write zeros into memory that is used anew.
    async_copy.wait_group(0)
    return acc
