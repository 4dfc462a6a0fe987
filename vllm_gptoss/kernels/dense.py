"""A dense layer for few tokens: attention's projections in decode steps, where weights are nearly all the bytes.

    y[m, n] = sum_k x[m, k] * weight[n, k] + bias[n]

One launch. A program multiplies a tile of weight rows, the A operand of the tensor cores, by all tokens. Its warps
split the columns, a step of them after the other, and sum up last, in one order, so that every run gives the same bits.

Weights arrive through a ring in shared memory, of which most programs need no second turn: it fills while the launch
before still runs (dependent_launch.py), and behind the wait there is little left to do. Tokens come from memory to the
registers that multiply them. For that a lane takes 8 columns in a row of both operands: which column a tensor core
calls which is free, as long as weights and tokens agree.

Rounding: products and bias add up in fp32, and round to bf16 once.

Source: the gpt-oss model card, arXiv 2508.10925, section 2.3.
"""

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from vllm_gptoss.kernels.dependent_launch import launches_dependently, let_successor_start, wait_for_predecessor
from vllm_gptoss.kernels.gluon import async_copy, barrier, constexpr_function, gl, jit, mma_v2
from vllm_gptoss.kernels.tuning import DenseConfig

MAX_TOKENS = 16
"""The widest tile: of more tokens the registers do not hold enough."""

PART = tl.constexpr(64)
"""Columns that a warp multiplies in a step."""


@constexpr_function
def _product_layout(config):
    """Of the accumulators [warps, rows, tokens]: one for each warp's columns."""
    return gl.NVMMADistributedLayout([2, 0], [config.warps, 1, 1], [1, 16, 8])


@constexpr_function
def _operand_layout(config, index):
    """Of a step's weights [warps, rows, 64] and tokens [warps, 64, tokens]: 8 columns a lane."""
    product = gl.NVMMADistributedLayout([2, 0], [config.warps, 1, 1], [1, 16, 8])
    return gl.DotOperandLayout(index, product, 8)


@constexpr_function
def _copy_layout(config):
    """Of a step's weights [warps, rows, 64]: 16 bytes a lane."""
    return gl.BlockedLayout([1, 1, 8], [1, 4, 8], [config.warps, 1, 1], [2, 1, 0])


@jit
def _copy(step: tl.constexpr, ring, pointer, row_inside, columns: tl.constexpr, config: tl.constexpr):
    """Start the copies of one step's weights."""
    copies: tl.constexpr = _copy_layout(config)
    warp = gl.arange(0, config.warps, layout=gl.SliceLayout(1, gl.SliceLayout(2, copies)))[:, None, None]
    lane = gl.arange(0, PART, layout=gl.SliceLayout(0, gl.SliceLayout(1, copies)))[None, None, :]
    column = (step * config.warps + warp) * PART + lane
    slot = ring.index(step % (config.stages * config.burst))
    if (step + 1) * config.warps * PART <= columns:
        async_copy.async_copy_global_to_shared(slot, pointer + column, mask=row_inside)
    else:
        # What is past the last column is zero.
        async_copy.async_copy_global_to_shared(slot, pointer + column, mask=row_inside & (column < columns))


@jit
def _tokens(step: tl.constexpr, x, num_tokens, columns: tl.constexpr, config: tl.constexpr):
    """[warps, 64, tokens]; past the last token anything."""
    layout: tl.constexpr = _operand_layout(config, 1)
    warp = gl.arange(0, config.warps, layout=gl.SliceLayout(1, gl.SliceLayout(2, layout)))[:, None, None]
    lane = gl.arange(0, PART, layout=gl.SliceLayout(0, gl.SliceLayout(2, layout)))[None, :, None]
    m = gl.arange(0, config.tokens, layout=gl.SliceLayout(0, gl.SliceLayout(1, layout)))[None, None, :]
    column = (step * config.warps + warp) * PART + lane
    pointer = x + m * columns + column
    if (step + 1) * config.warps * PART <= columns:
        value = gl.load(pointer, mask=m < num_tokens)
    else:
        value = gl.load(pointer, mask=(m < num_tokens) & (column < columns), other=0)
    return value


@jit(do_not_specialize=["num_tokens"])
def _dense_kernel(
    x, weight, bias, y, num_tokens,
    rows: tl.constexpr, columns: tl.constexpr, config: tl.constexpr, dependent: tl.constexpr,
):  # fmt: skip
    """Grid: row tiles."""
    copies: tl.constexpr = _copy_layout(config)
    product: tl.constexpr = _product_layout(config)
    burst: tl.constexpr = config.burst
    slots: tl.constexpr = config.stages * burst
    steps: tl.constexpr = (columns + PART * config.warps - 1) // (PART * config.warps)
    ring = gl.allocate_shared_memory(
        gl.bfloat16, [slots, config.warps, config.rows, PART], gl.SwizzledSharedLayout(32, 1, 2, [2, 1, 0])
    )
    row = gl.program_id(0) * config.rows
    r = row + gl.arange(0, config.rows, layout=gl.SliceLayout(0, gl.SliceLayout(2, copies)))[None, :, None]
    pointer = weight + r.to(gl.int64) * columns
    for step in gl.static_range(slots):
        if step < steps:
            _copy(step, ring, pointer, r < rows, columns, config)
        if (step + 1) % burst == 0:
            async_copy.commit_group()
    out: tl.constexpr = gl.SliceLayout(0, product)
    out_row = row + gl.arange(0, config.rows, layout=gl.SliceLayout(1, out))
    if bias is None:
        line: tl.constexpr = (config.rows,)
        offset = gl.zeros(line, gl.float32, layout=gl.SliceLayout(1, out))
    else:
        # Ahead of its use: it comes from memory, and would be the last to come.
        offset = gl.load(bias + out_row, mask=out_row < rows, other=0).to(gl.float32)
    if dependent:
        wait_for_predecessor()
        let_successor_start()
    ahead: tl.constexpr = config.ahead
    tokens = ()
    for step in gl.static_range(steps):
        if step < ahead:
            tokens += (_tokens(step, x, num_tokens, columns, config),)
    # A product waits for the one before it in its sum: of few tokens several sums take turns.
    tile: tl.constexpr = (config.warps, config.rows, config.tokens)
    sums = (gl.zeros(tile, gl.float32, layout=product),) * (32 // config.tokens)
    for begin in gl.static_range(0, steps, burst):
        async_copy.wait_group(config.stages - 1)
        for step in gl.static_range(begin, begin + burst):
            if step + ahead < steps:
                tokens += (_tokens(step + ahead, x, num_tokens, columns, config),)
            if step < steps:
                a = ring.index(step % slots).load(_operand_layout(config, 0))
                sums = sums[1:] + (mma_v2(a, tokens[step], sums[0]),)  # noqa: RUF005  Triton takes no stars
        if begin + slots < steps:
            # Every warp has read what makes room now.
            barrier()
        for step in gl.static_range(begin + slots, begin + slots + burst):
            if step < steps:
                _copy(step, ring, pointer, r < rows, columns, config)
        async_copy.commit_group()
    total = sums[0]
    for i in gl.static_range(1, 32 // config.tokens):
        total += sums[i]
    total = gl.sum(total, 0) + offset[:, None]
    out_token = gl.arange(0, config.tokens, layout=gl.SliceLayout(0, out))
    inside = (out_row < rows)[:, None] & (out_token < num_tokens)[None, :]
    gl.store(y + out_token[None, :] * rows + out_row[:, None], total.to(gl.bfloat16), mask=inside)


def dense(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, config: DenseConfig) -> torch.Tensor:
    """y bf16 [M, N] of `x` [M, K], `weight` [N, K] and `bias` [N]; bf16 and contiguous, all of them.

    `bias` and `weight` are constant: they are read while the launch before may still write.

    Raises: ValueError for other tensors, a K that is no multiple of 8, more tokens than MAX_TOKENS or the configuration
    has.
    """
    check_dense(x, weight, bias, min(config.tokens, MAX_TOKENS))
    (num_tokens, columns), rows = x.shape, len(weight)
    y = torch.empty(num_tokens, rows, dtype=x.dtype, device=x.device)
    if num_tokens > 0:
        dependent = launches_dependently(x.device)
        _dense_kernel[(triton.cdiv(rows, config.rows),)](
            x, weight, bias, y, num_tokens, rows, columns, config, dependent,
            num_warps=config.warps, maxnreg=config.registers, launch_pdl=dependent,
        )  # fmt: skip
    return y


def check_dense(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, max_tokens: int) -> None:
    """Raises: ValueError for what a dense layer does not take."""
    (num_tokens, columns), rows = x.shape, len(weight)
    for tensor, shape in ((x, x.shape), (weight, (rows, columns)), (bias, (rows,))):
        if tensor is not None and (tensor.dtype != torch.bfloat16 or not tensor.is_contiguous()):
            raise ValueError(f"a dense layer takes contiguous bf16, not {tensor.dtype} of strides {tensor.stride()}")
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"a tensor {list(tensor.shape)} instead of {list(shape)} beside tokens {list(x.shape)}")
    if columns % 8:
        raise ValueError(f"a dense layer takes a multiple of 8 columns, not {columns}")
    if num_tokens > max_tokens:
        raise ValueError(f"{num_tokens} tokens are more than a tile of {max_tokens}")


def dense_ref(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """y [M, N] in the dtype of `x` [M, K]: the product with `weight` [N, K] and `bias` [N] in fp32."""
    return F.linear(x.float(), weight.float(), None if bias is None else bias.float()).to(x.dtype)
