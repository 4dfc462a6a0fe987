"""A dense layer for up to 64 tokens on Hopper: attention's projections where `dense.py` has too many tokens to hold.

    y[m, n] = sum_k x[m, k] * weight[n, k] + bias[n]

One launch. A program multiplies all tokens, the A operand of a warpgroup's product, by a tile of weight rows; both lie
in shared memory as the tensor cores read them. Weights arrive through a ring that fills while the launch before still
runs (dependent_launch.py), tokens through one as long behind the wait.

Rounding: products and bias add up in fp32, and round to bf16 once.

Source: the gpt-oss model card, arXiv 2508.10925, section 2.3.
"""

import torch
import triton
import triton.language as tl

from vllm_gptoss.kernels.dense import check_dense
from vllm_gptoss.kernels.dependent_launch import launches_dependently, let_successor_start, wait_for_predecessor
from vllm_gptoss.kernels.gluon import async_copy, constexpr_function, fence_async_shared, gl, jit, warpgroup_mma
from vllm_gptoss.kernels.tuning import WideDenseConfig

MAX_TOKENS = 64
"""Rows of a warpgroup's product."""

_TOKENS = tl.constexpr(64)
_STEP = tl.constexpr(128)
"""Columns that are waited for together."""


@constexpr_function
def _product_layout(config):
    """Of the accumulator [tokens, rows]: four warps along the tokens, the others along the rows."""
    row_warps = config.warps // 4
    return gl.NVMMADistributedLayout([3, 0], [4, row_warps], [16, config.rows // row_warps, 16])


@constexpr_function
def _copy_layout(config):
    """Of a step's weights [rows, 128] and tokens [tokens, 128]: 16 bytes a lane."""
    return gl.BlockedLayout([1, 8], [2, 16], [config.warps, 1], [1, 0])


@jit
def _copy(step, slot, ring, pointer, inside, columns: tl.constexpr, config: tl.constexpr):
    """Start the copies of one step, of weights or of tokens; past the last column they bring zeros."""
    column = step * _STEP + gl.arange(0, _STEP, layout=gl.SliceLayout(0, _copy_layout(config)))[None, :]
    if step < columns // _STEP:
        async_copy.async_copy_global_to_shared(ring.index(slot), pointer + column, mask=inside)
    else:
        async_copy.async_copy_global_to_shared(ring.index(slot), pointer + column, mask=inside & (column < columns))


@jit(do_not_specialize=["num_tokens"])
def _dense_wide_kernel(
    x, weight, bias, y, num_tokens,
    rows: tl.constexpr, columns: tl.constexpr, config: tl.constexpr, dependent: tl.constexpr,
):  # fmt: skip
    """Grid: row tiles."""
    copies: tl.constexpr = _copy_layout(config)
    product: tl.constexpr = _product_layout(config)
    stages: tl.constexpr = config.stages
    steps: tl.constexpr = (columns + _STEP - 1) // _STEP
    shared: tl.constexpr = gl.NVMMASharedLayout(128, 16, 2)
    weight_ring = gl.allocate_shared_memory(gl.bfloat16, [stages, config.rows, _STEP], shared)
    token_ring = gl.allocate_shared_memory(gl.bfloat16, [stages, _TOKENS, _STEP], shared)
    row = gl.program_id(0) * config.rows
    r = row + gl.arange(0, config.rows, layout=gl.SliceLayout(1, copies))[:, None]
    weight_ptr = weight + r.to(gl.int64) * columns
    m = gl.arange(0, _TOKENS, layout=gl.SliceLayout(1, copies))[:, None]
    token_ptr = x + m * columns
    for step in gl.static_range(stages - 1):
        if step < steps:
            _copy(step, step, weight_ring, weight_ptr, r < rows, columns, config)
    out_row = row + gl.arange(0, config.rows, layout=gl.SliceLayout(0, product))
    if bias is None:
        line: tl.constexpr = (config.rows,)
        offset = gl.zeros(line, gl.float32, layout=gl.SliceLayout(0, product))
    else:
        # Ahead of its use: it comes from memory, and would be the last to come.
        offset = gl.load(bias + out_row, mask=out_row < rows, other=0).to(gl.float32)
    if dependent:
        wait_for_predecessor()
        let_successor_start()
    for step in gl.static_range(stages - 1):
        if step < steps:
            _copy(step, step, token_ring, token_ptr, m < num_tokens, columns, config)
        async_copy.commit_group()
    tile: tl.constexpr = (_TOKENS, config.rows)
    acc = gl.zeros(tile, gl.float32, layout=product)
    slot, free = 0, stages - 1
    for step in range(steps):
        async_copy.wait_group(stages - 2)
        # What the copies wrote must be seen by the tensor core's own way to shared memory.
        fence_async_shared()
        # The slot of the step before is free, as every warp has come here.
        later = step + stages - 1
        # Of a short product the compiler finds out that there is none, and then stumbles over its copies.
        if steps > stages - 1:  # noqa: SIM102  a constant
            if later < steps:
                _copy(later, free, weight_ring, weight_ptr, r < rows, columns, config)
                _copy(later, free, token_ring, token_ptr, m < num_tokens, columns, config)
        async_copy.commit_group()
        acc = warpgroup_mma(token_ring.index(slot), weight_ring.index(slot).permute((1, 0)), acc)
        free = slot
        slot += 1
        if slot == stages:
            slot = 0
    out_token = gl.arange(0, _TOKENS, layout=gl.SliceLayout(1, product))
    inside = (out_token < num_tokens)[:, None] & (out_row < rows)[None, :]
    gl.store(y + out_token[:, None] * rows + out_row[None, :], (acc + offset[None, :]).to(gl.bfloat16), mask=inside)


def dense_wide(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, config: WideDenseConfig
) -> torch.Tensor:
    """y bf16 [M, N] of `x` [M, K], `weight` [N, K] and `bias` [N]; bf16 and contiguous, all of them.

    `bias` and `weight` are constant: they are read while the launch before may still write.

    Raises: ValueError for other tensors, a K that is no multiple of 8, and more tokens than MAX_TOKENS.
    """
    check_dense(x, weight, bias, MAX_TOKENS)
    (num_tokens, columns), rows = x.shape, len(weight)
    y = torch.empty(num_tokens, rows, dtype=x.dtype, device=x.device)
    if num_tokens > 0:
        dependent = launches_dependently(x.device)
        _dense_wide_kernel[(triton.cdiv(rows, config.rows),)](
            x, weight, bias, y, num_tokens, rows, columns, config, dependent,
            num_warps=config.warps, launch_pdl=dependent,
        )  # fmt: skip
    return y
