"""The product that both halves of an expert are: rows of MXFP4 weights times up to 128 gathered token rows.

    acc[r, n] = sum_c weight[row + r, c] * x[source[n], c]      fp32, over a share of the columns, in steps

A step is 128 columns, or 128 for each of the warps that split the columns; those sum up last, in one order. Bytes
arrive through a ring in shared memory, a burst of steps at a time, and stay stages - 1 bursts ahead. A lane copies the
weights that it will multiply itself and decodes them into its part of the tensor core's A operand; the tokens are the B
operand, which Hopper's warpgroup product reads where they lie. A token that is masked (its source is negative) costs no
bytes.

Decoding is most of the work. Of few tokens a block's scale multiplies the product of its 32 columns, in fp32, rather
than each weight: less work, and on a pipe that has nothing else to do. Such products are of values times 2 ** -126, and
of tokens that are lifted by 2 ** 96 to stay away from the least fp32; powers of two change no digit. Of weights below
2 ** -92 alone something may be lost, where a sum is as small.
"""

import torch
import triton.language as tl

from vllm_gptoss.kernels.dependent_launch import let_successor_start, wait_for_predecessor
from vllm_gptoss.kernels.gluon import async_copy, constexpr_function, fence_async_shared, gl, jit, mma_v2, warpgroup_mma
from vllm_gptoss.kernels.mxfp4_operand import (
    factors_of,
    halves_layout,
    scales_layout,
    split_columns,
    values_of,
    weights_of,
)
from vllm_gptoss.kernels.tuning import ExpertConfig

PART = tl.constexpr(128)
"""Columns of a warp in a step: for a lane, two 16-byte loads of weights for each 16 rows of its warp."""

LIFT = tl.constexpr(2.0**96)
"""A bf16 holds what it makes of tokens up to 2 ** 31."""
_LOWER = tl.constexpr(2.0**30)
"""What remains of 2 ** 126 behind the lift."""

_MOST_SCALED_LATE = tl.constexpr(16)
"""Tokens of a tile; of more, scaling all products costs more than scaling the weights."""


def is_lifted(config: ExpertConfig) -> bool:
    """Whether `expert_product` takes tokens times LIFT."""
    return not config.warpgroup and config.tokens <= _MOST_SCALED_LATE.value


def lifted(x: torch.Tensor, config: ExpertConfig) -> torch.Tensor:
    """`x` as `expert_product` takes it."""
    return x * LIFT.value if is_lifted(config) else x


@constexpr_function
def _product_layout(config):
    """Of the accumulators [column_warps, rows, tokens], or for a warpgroup [rows, tokens]: warps along the rows."""
    if config.warpgroup:
        return gl.NVMMADistributedLayout([3, 0], [config.warps, 1], [16, config.tokens, 16])
    row_warps = config.warps // config.column_warps
    return gl.NVMMADistributedLayout([2, 0], [config.column_warps, row_warps, 1], [1, 16, 8])


@constexpr_function
def _tokens_layout(config):
    """Of a step's tokens [column_warps, tokens, 128]: 16 bytes a lane."""
    row_warps = config.warps // config.column_warps
    return gl.BlockedLayout([1, 1, 8], [1, 2, 16], [config.column_warps, row_warps, 1], [2, 1, 0])


@constexpr_function
def _scale_copy_layout(config):
    """Of a step's scales [column_warps, rows / 2, 2]."""
    row_warps = config.warps // config.column_warps
    return gl.BlockedLayout([1, 1, 1], [1, 32, 1], [config.column_warps, row_warps // 2, 2], [1, 2, 0])


@constexpr_function
def _halves_layout(config):
    return halves_layout(config.rows, config.warps // config.column_warps, config.column_warps)


@constexpr_function
def _scales_layout(config):
    return scales_layout(config.rows, config.warps // config.column_warps, config.column_warps)


@constexpr_function
def _token_ring_layout(config):
    """In shared memory, as the product reads it without bank conflicts."""
    return gl.NVMMASharedLayout(128, 16, 2) if config.warpgroup else gl.SwizzledSharedLayout(8, 1, 8, [2, 1, 0])


@constexpr_function
def product_layout(config):
    """Of what `expert_product` returns, [rows, tokens]."""
    if config.warpgroup:
        return gl.NVMMADistributedLayout([3, 0], [config.warps, 1], [16, config.tokens, 16])
    row_warps = config.warps // config.column_warps
    return gl.SliceLayout(0, gl.NVMMADistributedLayout([2, 0], [config.column_warps, row_warps, 1], [1, 16, 8]))


@constexpr_function
def source_layout(config):
    """Of `source`, as `_tokens_layout` copies its tokens."""
    row_warps = config.warps // config.column_warps
    tokens = gl.BlockedLayout([1, 1, 8], [1, 2, 16], [config.column_warps, row_warps, 1], [2, 1, 0])
    return gl.SliceLayout(0, gl.SliceLayout(2, tokens))


@jit
def _line(layout: tl.constexpr, at: tl.constexpr, count: tl.constexpr):
    """0, 1, .. along dimension `at` of three, 1 long in the others."""
    if at == 0:
        line = gl.arange(0, count, layout=gl.SliceLayout(1, gl.SliceLayout(2, layout)))[:, None, None]
    elif at == 1:
        line = gl.arange(0, count, layout=gl.SliceLayout(0, gl.SliceLayout(2, layout)))[None, :, None]
    else:
        line = gl.arange(0, count, layout=gl.SliceLayout(0, gl.SliceLayout(1, layout)))[None, None, :]
    return line


@jit
def _copy_weights(step, slot, rings, half_ptr, scale_ptr, columns: tl.constexpr, config: tl.constexpr):
    """Start the copies of one step."""
    layout: tl.constexpr = _halves_layout(config)
    copies: tl.constexpr = _scale_copy_layout(config)
    half = (step * config.column_warps + _line(layout, 0, config.column_warps)) * PART + _line(layout, 2, PART)
    part = step * config.column_warps + _line(copies, 0, config.column_warps)
    scale_ptr += (part * 2 + _line(copies, 2, 2)) * 16
    # A mask costs as much as a copy: only the last step has one. Scales of its first part are padded to 128 columns.
    if step < columns // (PART * config.column_warps):
        async_copy.async_copy_global_to_shared(rings[0].index(slot), half_ptr + half)
        async_copy.async_copy_global_to_shared(rings[1].index(slot), scale_ptr)
    else:
        inside = half < (columns + 63) // 64 * 64
        async_copy.async_copy_global_to_shared(rings[0].index(slot), half_ptr + half, mask=inside)
        async_copy.async_copy_global_to_shared(rings[1].index(slot), scale_ptr, mask=part * PART < columns)


@jit
def _copy_tokens(step, slot, rings, token_ptr, token_inside, columns: tl.constexpr, config: tl.constexpr):
    """Start the copies of one step."""
    layout: tl.constexpr = _tokens_layout(config)
    column = (step * config.column_warps + _line(layout, 0, config.column_warps)) * PART + _line(layout, 2, PART)
    token_ptr, inside = gl.broadcast(token_ptr + column, token_inside)
    ring = rings[2].index(slot)
    if config.warpgroup:
        ring = ring.reshape((1, config.tokens, PART))
    if step < columns // (PART * config.column_warps):
        async_copy.async_copy_global_to_shared(ring, token_ptr, mask=inside)
    else:
        async_copy.async_copy_global_to_shared(ring, token_ptr, mask=inside & (column < columns))


@jit
def _multiply(slot, rings, acc, config: tl.constexpr):
    """`acc` and the product of one step."""
    halves = rings[0].index(slot).load(_halves_layout(config))
    scales = rings[1].index(slot).load(_scales_layout(config))
    product: tl.constexpr = _product_layout(config)
    if config.warpgroup:
        a = weights_of(halves, scales, config.warps).reshape(config.rows, PART)
        a = gl.convert_layout(a, gl.DotOperandLayout(0, product, 2), assert_trivial=True)
        acc = warpgroup_mma(a, rings[2].index(slot).permute((1, 0)), acc)
    else:
        tokens = rings[2].index(slot).permute((0, 2, 1)).load(gl.DotOperandLayout(1, product, 2))
        if config.tokens <= _MOST_SCALED_LATE:
            acc = _multiply_values(halves, scales, tokens, acc, config)
        else:
            a = weights_of(halves, scales, config.warps // config.column_warps)
            acc = mma_v2(gl.convert_layout(a, gl.DotOperandLayout(0, product, 2), assert_trivial=True), tokens, acc)
    return acc


@jit
def _multiply_values(halves, scales, tokens, acc, config: tl.constexpr):
    """`acc` and the product of one step, where a block's scales multiply its product."""
    product: tl.constexpr = _product_layout(config)
    blocks, block_scales = split_columns(halves, scales)
    # [p, 32, tokens] of each block.
    even, odd = gl.split(tokens.reshape(config.column_warps, 2, 2, 32, config.tokens).permute(0, 3, 4, 1, 2))
    first, third = gl.split(even)
    second, fourth = gl.split(odd)
    block_tokens = first, second, third, fourth
    block: tl.constexpr = (config.column_warps, config.rows, config.tokens)
    for i in gl.static_range(4):
        a = gl.convert_layout(values_of(blocks[i]), gl.DotOperandLayout(0, product, 2), assert_trivial=True)
        b = gl.convert_layout(block_tokens[i], gl.DotOperandLayout(1, product, 2), assert_trivial=True)
        factors = factors_of(block_scales[i], i % 2 * 2)
        factors = gl.convert_layout(factors, gl.SliceLayout(2, product), assert_trivial=True)
        acc += mma_v2(a, b, gl.zeros(block, gl.float32, layout=product)) * factors[:, :, None]
    return acc


@jit
def expert_product(
    x, source, blocks, scales, row, share,
    rows: tl.constexpr, columns: tl.constexpr, config: tl.constexpr, waits: tl.constexpr,
):  # fmt: skip
    """fp32 [config.rows, config.tokens] in `product_layout`.

    `x` bf16 [.., columns] is contiguous, and lifted if `is_lifted(config)`; `source` [tokens] lies in `source_layout`;
    `blocks` (i16, halves of words) and `scales` (i32, four bytes a word) point to one expert of `rows` and `columns`,
    in the order of mxfp4_swizzle.py; `row` is a multiple of config.rows, and `share` one of config.shares of the
    columns. If it `waits` for the launch before (dependent_launch.py), it does so once the ring fills with weights, and
    before it reads `x`.
    """
    layout: tl.constexpr = _halves_layout(config)
    copies: tl.constexpr = _scale_copy_layout(config)
    burst: tl.constexpr = config.burst
    ahead: tl.constexpr = (config.stages - 1) * burst
    slots: tl.constexpr = config.stages * burst
    steps: tl.constexpr = (columns + PART * config.column_warps - 1) // (PART * config.column_warps)
    if config.shares == 1:
        begin: tl.constexpr = 0
        end: tl.constexpr = steps
    else:
        begin, end = share * steps // config.shares, (share + 1) * steps // config.shares
    if config.warpgroup:
        tile: tl.constexpr = (config.rows, config.tokens)
        token_ring: tl.constexpr = (slots, config.tokens, PART)
    else:
        tile: tl.constexpr = (config.column_warps, config.rows, config.tokens)
        token_ring: tl.constexpr = (slots, config.column_warps, config.tokens, PART)
    plain: tl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [2, 1, 0])
    rings = (
        gl.allocate_shared_memory(gl.int16, [slots, config.column_warps, config.rows // 4, PART], plain),
        gl.allocate_shared_memory(gl.int32, [slots, config.column_warps, config.rows // 2, 2], plain),
        gl.allocate_shared_memory(gl.bfloat16, token_ring, _token_ring_layout(config)),
    )
    # Rows past the last one repeat it.
    quarter = gl.minimum(row // 4 + _line(layout, 1, config.rows // 4), (rows + 15) // 16 * 4 - 1)
    half_ptr = blocks + quarter * ((columns + 63) // 64 * 64)
    # Two rows, r and r + 8 of 16, share a word.
    pair = _line(copies, 1, config.rows // 2)
    group = row // 16 + pair // 8
    line = group // 16 * 8 + group % 8
    scale_ptr = scales + line * ((columns + 127) // 128 * 32) + group // 8 % 2 * 8 + pair % 8
    token_ptr = x + (source.to(gl.int64) * columns)[None, :, None]
    token_inside = (source >= 0)[None, :, None]
    acc = gl.zeros(tile, gl.float32, layout=_product_layout(config))
    for i in gl.static_range(ahead):
        if begin + i < end:
            _copy_weights(begin + i, i, rings, half_ptr, scale_ptr, columns, config)
            if not waits:
                _copy_tokens(begin + i, i, rings, token_ptr, token_inside, columns, config)
        if not waits and (i + 1) % burst == 0:
            async_copy.commit_group()
    if waits:
        wait_for_predecessor()
        let_successor_start()
        for i in gl.static_range(ahead):
            if begin + i < end:
                _copy_tokens(begin + i, i, rings, token_ptr, token_inside, columns, config)
            if (i + 1) % burst == 0:
                async_copy.commit_group()
    slot, free = 0, ahead
    for step in range(begin, end, burst):
        async_copy.wait_group(config.stages - 2)
        if config.warpgroup:
            # What the copies wrote must be seen by the tensor core's own way to shared memory.
            fence_async_shared()
        # The slots of the burst before are free, as every warp has come here.
        for i in gl.static_range(burst):
            later = step + ahead + i
            # Of a short product the compiler finds out that there is none, and then stumbles over its copies.
            if steps > ahead:  # noqa: SIM102  a constant
                if later < end:
                    _copy_weights(later, free + i, rings, half_ptr, scale_ptr, columns, config)
                    _copy_tokens(later, free + i, rings, token_ptr, token_inside, columns, config)
        async_copy.commit_group()
        for i in gl.static_range(burst):
            if i == 0 or step + i < end:
                acc = _multiply(slot + i, rings, acc, config)
        free = slot
        slot += burst
        if slot == slots:
            slot = 0
    if not config.warpgroup:
        acc = gl.sum(acc, 0)
        if config.tokens <= _MOST_SCALED_LATE:
            acc *= _LOWER
    return acc
