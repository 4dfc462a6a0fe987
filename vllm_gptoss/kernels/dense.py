"""A dense layer for few tokens: attention's projections in decode steps, where weights are nearly all the bytes.

    y[m, n] = sum_k x[m, k] * weight[n, k] + bias[n]

One launch. A program multiplies a tile of weight rows, the A operand of the tensor cores, by all tokens. Its warps
split the columns and sum up last, in one order, so that every run gives the same bits. Weights and tokens arrive
through rings in shared memory that stay stages - 1 steps ahead; the ring of weights fills while the launch before still
runs (dependent_launch.py).

Rounding: products and bias add up in fp32, and round to bf16 once.

Source: the gpt-oss model card, arXiv 2508.10925, section 2.3.
"""

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from vllm_gptoss.kernels.dependent_launch import launches_dependently, let_successor_start, wait_for_predecessor
from vllm_gptoss.kernels.gluon import async_copy, constexpr_function, gl, jit, mma_v2
from vllm_gptoss.kernels.tuning import DenseConfig

MAX_TOKENS = 32
"""The widest tile; for more tokens cuBLAS is faster."""

PART = tl.constexpr(64)
"""Columns that a warp multiplies in a step."""


@constexpr_function
def _product_layout(config):
    """Of the accumulators [warps, rows, tokens]: one for each warp's columns."""
    return gl.NVMMADistributedLayout([2, 0], [config.warps, 1, 1], [1, 16, 8])


@constexpr_function
def _copy_layout(config):
    """Of a step's weights [warps, rows, 64] and tokens [warps, tokens, 64]: 16 bytes a lane."""
    return gl.BlockedLayout([1, 1, 8], [1, 4, 8], [config.warps, 1, 1], [2, 1, 0])


@jit
def _column(step, config: tl.constexpr):
    """[warps, 1, 64]: those of a step, 64 to a warp."""
    copies: tl.constexpr = _copy_layout(config)
    warp = gl.arange(0, config.warps, layout=gl.SliceLayout(1, gl.SliceLayout(2, copies)))
    lane = gl.arange(0, PART, layout=gl.SliceLayout(0, gl.SliceLayout(1, copies)))
    return ((step * config.warps + warp) * PART)[:, None, None] + lane[None, None, :]


@jit
def _copy(step, ring, pointer, line_inside, columns: tl.constexpr, config: tl.constexpr):
    """Start the copies of one step, of weights or of tokens; past the last one they bring nothing."""
    column = _column(step, config)
    slot = ring.index(step % config.stages)
    async_copy.async_copy_global_to_shared(slot, pointer + column, mask=line_inside & (column < columns))


@jit
def _bring_first_tokens(ring, pointer, token_inside, columns: tl.constexpr, config: tl.constexpr):
    """Of the steps whose weights are on their way. As copies they would be counted behind all of these weights, and
    the first product would wait for the last of them.
    """
    values = ()
    for step in gl.static_range(config.stages - 1):
        column = _column(step, config)
        values += (gl.load(pointer + column, mask=token_inside & (column < columns), other=0),)
    for step in gl.static_range(config.stages - 1):
        ring.index(step).store(values[step])


@jit(do_not_specialize=["num_tokens"])
def _dense_kernel(
    x, weight, bias, y, num_tokens,
    rows: tl.constexpr, columns: tl.constexpr, config: tl.constexpr, dependent: tl.constexpr,
):  # fmt: skip
    """Grid: row tiles."""
    copies: tl.constexpr = _copy_layout(config)
    product: tl.constexpr = _product_layout(config)
    swizzled: tl.constexpr = gl.SwizzledSharedLayout(8, 1, 8, [2, 1, 0])
    steps: tl.constexpr = (columns + PART * config.warps - 1) // (PART * config.warps)
    weight_ring = gl.allocate_shared_memory(gl.bfloat16, [config.stages, config.warps, config.rows, PART], swizzled)
    token_ring = gl.allocate_shared_memory(gl.bfloat16, [config.stages, config.warps, config.tokens, PART], swizzled)
    row = gl.program_id(0) * config.rows
    r = row + gl.arange(0, config.rows, layout=gl.SliceLayout(0, gl.SliceLayout(2, copies)))[None, :, None]
    weight_ptr = weight + r.to(gl.int64) * columns
    m = gl.arange(0, config.tokens, layout=gl.SliceLayout(0, gl.SliceLayout(2, copies)))[None, :, None]
    token_ptr = x + m * columns
    for step in gl.static_range(config.stages - 1):
        _copy(step, weight_ring, weight_ptr, r < rows, columns, config)
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
    _bring_first_tokens(token_ring, token_ptr, m < num_tokens, columns, config)
    tile: tl.constexpr = (config.warps, config.rows, config.tokens)
    acc = gl.zeros(tile, gl.float32, layout=product)
    for step in range(steps):
        async_copy.wait_group(config.stages - 2)
        # The slot of the step before is free, as every warp has come here.
        later = step + config.stages - 1
        _copy(later, weight_ring, weight_ptr, r < rows, columns, config)
        _copy(later, token_ring, token_ptr, m < num_tokens, columns, config)
        async_copy.commit_group()
        slot = step % config.stages
        a = weight_ring.index(slot).load(gl.DotOperandLayout(0, product, 2))
        b = token_ring.index(slot).permute((0, 2, 1)).load(gl.DotOperandLayout(1, product, 2))
        acc = mma_v2(a, b, acc)
    # Copies past the last step write zeros into memory that is used anew.
    async_copy.wait_group(0)
    total = gl.sum(acc, 0) + offset[:, None]
    out_token = gl.arange(0, config.tokens, layout=gl.SliceLayout(0, out))
    inside = (out_row < rows)[:, None] & (out_token < num_tokens)[None, :]
    gl.store(y + out_token[None, :] * rows + out_row[:, None], total.to(gl.bfloat16), mask=inside)


def dense(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, config: DenseConfig) -> torch.Tensor:
    """y bf16 [M, N] of `x` [M, K], `weight` [N, K] and `bias` [N]; bf16 and contiguous, all of them.

    `bias` and `weight` are constant: they are read while the launch before may still write.

    Raises: ValueError for other tensors, a K that is no multiple of 8, more tokens than MAX_TOKENS or the configuration
    has, and a ring of one step.
    """
    (num_tokens, columns), rows = x.shape, len(weight)
    _check(x, weight, bias, config)
    y = torch.empty(num_tokens, rows, dtype=x.dtype, device=x.device)
    if num_tokens > 0:
        dependent = launches_dependently(x.device)
        _dense_kernel[(triton.cdiv(rows, config.rows),)](
            x, weight, bias, y, num_tokens, rows, columns, config, dependent,
            num_warps=config.warps, launch_pdl=dependent,
        )  # fmt: skip
    return y


def _check(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, config: DenseConfig) -> None:
    (num_tokens, columns), rows = x.shape, len(weight)
    for tensor, shape in ((x, x.shape), (weight, (rows, columns)), (bias, (rows,))):
        if tensor is not None and (tensor.dtype != torch.bfloat16 or not tensor.is_contiguous()):
            raise ValueError(f"a dense layer takes contiguous bf16, not {tensor.dtype} of strides {tensor.stride()}")
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"a tensor {list(tensor.shape)} instead of {list(shape)} beside tokens {list(x.shape)}")
    if columns % 8:
        raise ValueError(f"a dense layer takes a multiple of 8 columns, not {columns}")
    if config.stages < 2:
        raise ValueError(f"a ring of {config.stages} has no step to multiply while another arrives: take 2 or more")
    if num_tokens > min(config.tokens, MAX_TOKENS):
        raise ValueError(f"{num_tokens} tokens are more than a tile of {config.tokens}, or than {MAX_TOKENS}")


def dense_ref(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """y [M, N] in the dtype of `x` [M, K]: the product with `weight` [N, K] and `bias` [N] in fp32."""
    return F.linear(x.float(), weight.float(), None if bias is None else bias.float()).to(x.dtype)
