"""The second half of the experts (down.py) for at most 8 pairs of token and expert, without partial sums in memory.

    y[m] = sum_k weights[m, k] * (down[e] @ h[K m + k] + bias[e])      with e = ids[m, k]; nothing where e is negative

One launch. A program computes 16 rows of y: for each pair in turn those rows of its expert, times the h of all pairs,
of which that pair's column counts. Which experts these are is known before h is, so most of their rows are on their
way, or there, when the launch before ends; then each h is loaded once, to registers, and what is left is arithmetic.
Warps split the columns and sum up last, then the slots of a token: in one order, so that every run gives the same bits.

Source: the gpt-oss model card, arXiv 2508.10925, section 2.2.
"""

import torch
import triton
import triton.language as tl

from vllm_gptoss.kernels.dependent_launch import launches_dependently, let_successor_start, wait_for_predecessor
from vllm_gptoss.kernels.expert_product import LOWER, PART, line, multiply_values
from vllm_gptoss.kernels.gluon import async_copy, barrier, constexpr_function, gl, jit
from vllm_gptoss.kernels.grouping import Routing
from vllm_gptoss.kernels.mxfp4_operand import halves_layout, scales_layout
from vllm_gptoss.kernels.tuning import ExpertConfig

MAX_PAIRS = 8
"""Columns of a tensor core's product."""

ROWS = tl.constexpr(16)
"""Of a program: rows of a tensor core's product."""


@constexpr_function
def _product_layout(config):
    """Of the accumulators [warps, 16, 8]."""
    return gl.NVMMADistributedLayout([2, 0], [config.warps, 1, 1], [1, 16, 8])


@constexpr_function
def _halves_layout(config):
    """Of a step's weights [warps, 4, 128]."""
    return halves_layout(16, 1, config.warps)


@constexpr_function
def _scale_copy_layout(config):
    """Of a step's scales [warps, 8, 2]."""
    return gl.BlockedLayout([1, 1, 1], [1, 16, 2], [config.warps, 1, 1], [1, 2, 0])


@jit
def _copy(
    expert, first_slot, rings, half_ptr, scale_ptr, block_stride, scale_stride,
    columns: tl.constexpr, steps: tl.constexpr, config: tl.constexpr,
):  # fmt: skip
    """Start the copies of one expert's rows, to the slots from `first_slot` on; zeros if it is negative."""
    layout: tl.constexpr = _halves_layout(config)
    copies: tl.constexpr = _scale_copy_layout(config)
    chosen = gl.maximum(expert, 0).to(gl.int64)
    half_ptr += chosen * block_stride
    scale_ptr += chosen * scale_stride + line(copies, 2, 2) * 16
    for step in gl.static_range(steps):
        half = (step * config.warps + line(layout, 0, config.warps)) * PART + line(layout, 2, PART)
        part = step * config.warps + line(copies, 0, config.warps)
        # Scales of a part are padded to 128 columns.
        half_inside = (half < (columns + 63) // 64 * 64) & (expert >= 0)
        scale_inside = (part * PART < columns) & (expert >= 0)
        async_copy.async_copy_global_to_shared(rings[0].index(first_slot + step), half_ptr + half, mask=half_inside)
        async_copy.async_copy_global_to_shared(
            rings[1].index(first_slot + step), scale_ptr + part * 32, mask=scale_inside
        )
    async_copy.commit_group()


@jit
def _tokens(step: tl.constexpr, hidden, columns: tl.constexpr, pairs: tl.constexpr, config: tl.constexpr):
    """[warps, 128, 8]: a step's columns of every pair's h; of no pair, and past the last column, zero."""
    layout: tl.constexpr = gl.DotOperandLayout(1, _product_layout(config), 2)
    column = (step * config.warps + line(layout, 0, config.warps)) * PART + line(layout, 1, PART)
    n = line(layout, 2, 8)
    return gl.load(hidden + n * columns + column, mask=(n < pairs) & (column < columns), other=0)


@jit
def _down_few_kernel(
    hidden, blocks, scales, bias, weights, ids, y, block_stride, scale_stride,
    rows: tl.constexpr, columns: tl.constexpr, top_k: tl.constexpr, pairs: tl.constexpr, config: tl.constexpr,
    dependent: tl.constexpr,
):  # fmt: skip
    """Grid: row tiles."""
    layout: tl.constexpr = _halves_layout(config)
    copies: tl.constexpr = _scale_copy_layout(config)
    product: tl.constexpr = _product_layout(config)
    steps: tl.constexpr = (columns + PART * config.warps - 1) // (PART * config.warps)
    stages: tl.constexpr = config.stages if config.stages < pairs else pairs
    plain: tl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [2, 1, 0])
    rings = (
        gl.allocate_shared_memory(gl.int16, [stages * steps, config.warps, ROWS // 4, PART], plain),
        gl.allocate_shared_memory(gl.int32, [stages * steps, config.warps, ROWS // 2, 2], plain),
    )
    tile = gl.program_id(0)
    half_ptr = blocks + (tile * 4 + line(layout, 1, 4)) * ((columns + 63) // 64 * 64)
    scale_ptr = scales + (tile // 16 * 8 + tile % 8) * ((columns + 127) // 128 * 32) + tile // 8 % 2 * 8
    scale_ptr += line(copies, 1, ROWS // 2)
    # The router has ended before gate_up let this launch start; what it wrote is read past L1.
    for p in gl.static_range(stages):
        expert = gl.load(ids + p, cache_modifier=".cg")
        _copy(expert, p * steps, rings, half_ptr, scale_ptr, block_stride, scale_stride, columns, steps, config)
    r = tile * ROWS + gl.arange(0, ROWS, layout=gl.SliceLayout(1, gl.SliceLayout(0, product)))[:, None]
    n = gl.arange(0, 8, layout=gl.SliceLayout(0, gl.SliceLayout(0, product)))[None, :]
    experts = gl.load(ids + n, mask=n < pairs, other=-1, cache_modifier=".cg")
    weight = gl.load(weights + n, mask=n < pairs, other=0, cache_modifier=".cg")
    offset = gl.load(bias + experts * rows + r, mask=(experts >= 0) & (r < rows), other=0).to(gl.float32)
    if dependent:
        wait_for_predecessor()
        let_successor_start()
    tokens = ()
    for step in gl.static_range(steps):
        tokens += (_tokens(step, hidden, columns, pairs, config),)
    shape: tl.constexpr = (config.warps, ROWS, 8)
    column = gl.arange(0, 8, layout=gl.SliceLayout(0, gl.SliceLayout(1, product)))[None, None, :]
    total = gl.zeros(shape, gl.float32, layout=product)
    slot = 0
    for p in range(pairs):
        if pairs > stages:
            later = gl.load(ids + p + stages, mask=p + stages < pairs, other=-1, cache_modifier=".cg")
        async_copy.wait_group(stages - 1)
        acc = gl.zeros(shape, gl.float32, layout=product)
        for step in gl.static_range(steps):
            halves = rings[0].index(slot + step).load(layout)
            factors = rings[1].index(slot + step).load(scales_layout(ROWS, 1, config.warps))
            acc = multiply_values(halves, factors, tokens[step], acc, config)
        total = gl.where(column == p, acc, total)
        if pairs > stages:
            # Every warp has read what makes room now.
            barrier()
            _copy(later, slot, rings, half_ptr, scale_ptr, block_stride, scale_stride, columns, steps, config)
            slot += steps
            if slot == stages * steps:
                slot = 0
        else:
            async_copy.commit_group()
            slot += steps
    value = gl.where(experts >= 0, weight * (gl.sum(total, 0) * LOWER + offset), 0)
    for m in gl.static_range(pairs // top_k):
        of_token = gl.sum(gl.where(n // top_k == m, value, 0), 1)
        r = tile * ROWS + gl.arange(0, ROWS, layout=gl.SliceLayout(1, gl.SliceLayout(0, product)))
        gl.store(y + m * rows + r, of_token.to(gl.bfloat16), mask=r < rows)


def down_few(
    hidden: torch.Tensor,
    routing: Routing,
    blocks: torch.Tensor,
    scales: torch.Tensor,
    bias: torch.Tensor,
    config: ExpertConfig,
) -> torch.Tensor:
    """`down` (down.py) of at most MAX_PAIRS pairs, with `hidden` lifted, in `config.warps` warps.

    Raises: ValueError for more pairs.
    """
    (num_tokens, top_k), rows = routing.ids.shape, bias.shape[1]
    if num_tokens * top_k > MAX_PAIRS:
        raise ValueError(f"{num_tokens * top_k} pairs are more than the {MAX_PAIRS} columns of a product")
    # What helps to multiply takes the tile from here.
    config = config._replace(tokens=MAX_PAIRS, column_warps=config.warps)
    y = torch.empty(num_tokens, rows, dtype=hidden.dtype, device=hidden.device)
    halves, words = blocks.view(torch.int16), scales.view(torch.int32)
    dependent = launches_dependently(hidden.device)
    _down_few_kernel[(triton.cdiv(rows, ROWS.value),)](
        hidden, halves, words, bias, routing.weights, routing.ids, y, halves.stride(0), words.stride(0),
        rows, hidden.shape[1], top_k, num_tokens * top_k, config, dependent,
        num_warps=config.warps, maxnreg=config.registers, launch_pdl=dependent,
    )  # fmt: skip
    return y
