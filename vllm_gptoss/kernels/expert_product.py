"""The product that both halves of an expert are: rows of MXFP4 weights times up to 128 gathered token rows.

    acc[r, n] = sum_c weight[row + r, c] * x[source[n], c]      fp32, over a share of the columns, 128 a step

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
def _copy_weights(step, rings, word_ptr, scale_ptr, columns: tl.constexpr, config: tl.constexpr):
    """Start the copies of one step."""
    word_ring, scale_ring, _ = rings
    slot = step % config.stages
    lane = gl.arange(0, STEP // 2, layout=gl.SliceLayout(0, words_layout(config.rows, config.warps)))
    word = step * (STEP // 2) + lane
    pointer = word_ptr + word[None, :]
    # A mask costs as much as a copy: only the last step has one.
    if step < columns // STEP:
        async_copy.async_copy_global_to_shared(word_ring.index(slot), pointer)
    else:
        inside = (word < (columns + 63) // 64 * 32)[None, :]
        async_copy.async_copy_global_to_shared(word_ring.index(slot), pointer, mask=inside)
    # Those of the last step are padded to its columns.
    pair = step * 2 + gl.arange(0, 2, layout=gl.SliceLayout(0, _scale_copy_layout(config)))
    async_copy.async_copy_global_to_shared(scale_ring.index(slot), scale_ptr + (pair * 16)[None, :])


@jit
def _copy_tokens(step, rings, token_ptr, token_inside, columns: tl.constexpr, config: tl.constexpr):
    """Start the copies of one step."""
    column = step * STEP + gl.arange(0, STEP, layout=gl.SliceLayout(0, tokens_layout(config)))
    slot, tokens = rings[2].index(step % config.stages), token_ptr + column[None, :]
    if step < columns // STEP:
        async_copy.async_copy_global_to_shared(slot, tokens, mask=token_inside)
    else:
        async_copy.async_copy_global_to_shared(slot, tokens, mask=token_inside & (column < columns)[None, :])


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
    x, source, blocks, scales, row, share,
    rows: tl.constexpr, columns: tl.constexpr, config: tl.constexpr, waits: tl.constexpr,
):  # fmt: skip
    """fp32 [config.rows, config.tokens] in `product_layout`.

    `x` bf16 [.., columns] is contiguous; `source` [tokens] lies as the rows of `tokens_layout`; `blocks` and `scales`
    (i32, four bytes a word) point to one expert of `rows` and `columns`, in the order of mxfp4_swizzle.py; `row` is a
    multiple of config.rows, and `share` one of config.shares of the columns. If it `waits` for the launch before
    (dependent_launch.py), it does so once the ring fills with weights, and before it reads `x`.
    """
    steps: tl.constexpr = (columns + STEP - 1) // STEP
    if config.shares == 1:
        begin: tl.constexpr = 0
        end: tl.constexpr = steps
    else:
        begin, end = share * steps // config.shares, (share + 1) * steps // config.shares
    copies: tl.constexpr = _scale_copy_layout(config)
    plain: tl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [1, 0])
    word_ring = gl.allocate_shared_memory(gl.int32, [config.stages, config.rows // 4, STEP // 2], plain)
    scale_ring = gl.allocate_shared_memory(gl.int32, [config.stages, config.rows // 2, 2], plain)
    token_ring = gl.allocate_shared_memory(
        gl.bfloat16, [config.stages, config.tokens, STEP], _token_ring_layout(config)
    )
    rings = word_ring, scale_ring, token_ring
    quarter = row // 4 + gl.arange(
        0, config.rows // 4, layout=gl.SliceLayout(1, words_layout(config.rows, config.warps))
    )
    # Rows past the last one repeat it.
    quarter = gl.minimum(quarter, (rows + 15) // 16 * 4 - 1)
    word_ptr = blocks + quarter[:, None] * ((columns + 63) // 64 * 32)
    # Two rows, r and r + 8 of 16, share a word.
    pair = gl.arange(0, config.rows // 2, layout=gl.SliceLayout(1, copies))
    group = row // 16 + pair // 8
    line = group // 16 * 8 + group % 8
    scale_ptr = scales + (line * ((columns + 127) // 128 * 32) + group // 8 % 2 * 8 + pair % 8)[:, None]
    token_ptr = x + source.to(gl.int64)[:, None] * columns
    token_inside = (source >= 0)[:, None]
    tile: tl.constexpr = (config.rows, config.tokens)
    acc = gl.zeros(tile, gl.float32, layout=product_layout(config))
    for ahead in gl.static_range(config.stages - 1):
        if begin + ahead < end:
            _copy_weights(begin + ahead, rings, word_ptr, scale_ptr, columns, config)
            if not waits:
                _copy_tokens(begin + ahead, rings, token_ptr, token_inside, columns, config)
        if not waits:
            async_copy.commit_group()
    if waits:
        wait_for_predecessor()
        let_successor_start()
        for ahead in gl.static_range(config.stages - 1):
            if begin + ahead < end:
                _copy_tokens(begin + ahead, rings, token_ptr, token_inside, columns, config)
            async_copy.commit_group()
    for step in range(begin, end):
        async_copy.wait_group(config.stages - 2)
        if config.warpgroup:
            # What the copies wrote must be seen by the tensor core's own way to shared memory.
            fence_async_shared()
        # The slot of the step before is free, as every warp has come here.
        later = step + config.stages - 1
        # Of a single step the compiler knows that there is none, and then stumbles over its copies.
        if steps > 1:  # noqa: SIM102  a constant
            if later < end:
                _copy_weights(later, rings, word_ptr, scale_ptr, columns, config)
                _copy_tokens(later, rings, token_ptr, token_inside, columns, config)
        async_copy.commit_group()
        slot = step % config.stages
        acc = _multiply(word_ring.index(slot), scale_ring.index(slot), token_ring.index(slot), acc, config)
    return acc
