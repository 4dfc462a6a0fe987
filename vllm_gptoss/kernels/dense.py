"""A dense layer for few tokens: attention's projections in decode steps, where weights are nearly all the bytes.

    y[m, n] = sum_k x[m, k] * weight[n, k] + bias[n]

One launch. A program multiplies a tile of weight rows, the A operand of the tensor cores, by all tokens, over its share
of the columns; both arrive through rings in shared memory that stay stages - 1 steps ahead. The ring of weights fills
while the launch before still runs (dependent_launch.py). Partial sums of several shares go through memory; of the
programs of the same rows the last to arrive adds them in their order, so that every run gives the same bits.

Rounding: products, partial sums and bias add up in fp32, and round to bf16 once.

Source: the gpt-oss model card, arXiv 2508.10925, section 2.3.
"""

import functools

import torch
import torch.nn.functional as F
import triton.language as tl

from vllm_gptoss.kernels.dependent_launch import launches_dependently, let_successor_start, wait_for_predecessor
from vllm_gptoss.kernels.gluon import INTERPRETED, async_copy, barrier, constexpr_function, gl, jit, mma_v2
from vllm_gptoss.kernels.scratch import check_not_capturing
from vllm_gptoss.kernels.tuning import DenseConfig

MAX_TOKENS = 64
"""The widest tile: beyond it, weights are no longer nearly all the bytes."""

MAX_TILES = 1024
"""Row tiles that there are counters for."""


@constexpr_function
def _product_layout(config):
    """Of the accumulator [rows, tokens]: warps along the rows."""
    return gl.NVMMADistributedLayout([2, 0], [config.warps, 1], [16, 8])


@constexpr_function
def _copy_layout(config):
    """Of a step's weights [rows, step] and tokens [tokens, step]: 16 bytes a lane."""
    lanes = config.step // 8
    return gl.BlockedLayout([1, 8], [32 // lanes, lanes], [config.warps, 1], [1, 0])


@constexpr_function
def _sum_layout(config):
    """Of shares to be summed [tokens, rows]: 16 bytes a lane."""
    lanes = min(32, config.rows // 4)
    return gl.BlockedLayout([1, 4], [32 // lanes, lanes], [config.warps, 1], [1, 0])


@constexpr_function
def _sum_block(config):
    """Tokens and rows summed at once: at most 16 values a lane of each share, which are all on their way together."""
    return min(config.tokens, 512 * config.warps // config.rows), config.rows


@jit
def _inside(step, end, columns: tl.constexpr, config: tl.constexpr):
    """Columns of a step, and which of them there are: past the last step none."""
    column = step * config.step + gl.arange(0, config.step, layout=gl.SliceLayout(0, _copy_layout(config)))
    return column[None, :], ((column < columns) & (step < end))[None, :]


@jit
def _copy(step, end, ring, pointer, line_inside, columns: tl.constexpr, config: tl.constexpr):
    """Start the copies of one step, of weights or of tokens; past the last one they bring nothing."""
    column, inside = _inside(step, end, columns, config)
    slot = ring.index(step % config.stages)
    async_copy.async_copy_global_to_shared(slot, pointer + column, mask=line_inside & inside)


@jit
def _bring_first_tokens(begin, end, ring, pointer, token_inside, columns: tl.constexpr, config: tl.constexpr):
    """Of the steps whose weights are on their way. As copies they would be counted behind all of these weights, and
    the first product would wait for the last of them.
    """
    values = ()
    for ahead in gl.static_range(config.stages - 1):
        column, inside = _inside(begin + ahead, end, columns, config)
        values += (gl.load(pointer + column, mask=token_inside & inside, other=0),)
    for ahead in gl.static_range(config.stages - 1):
        if INTERPRETED:
            # There, nothing is counted.
            _copy(begin + ahead, end, ring, pointer, token_inside, columns, config)
        else:
            ring.index((begin + ahead) % config.stages).store(values[ahead])


@jit
def _partial_sums(
    x, weight, row, num_tokens, share,
    rows: tl.constexpr, columns: tl.constexpr, config: tl.constexpr, dependent: tl.constexpr,
):  # fmt: skip
    """fp32 [config.rows, config.tokens] of one share of the columns; waits for the launch before."""
    copies: tl.constexpr = _copy_layout(config)
    product: tl.constexpr = _product_layout(config)
    swizzled: tl.constexpr = gl.SwizzledSharedLayout(8, 1, 8, [1, 0])
    tile: tl.constexpr = (config.rows, config.tokens)
    steps: tl.constexpr = (columns + config.step - 1) // config.step
    weight_ring = gl.allocate_shared_memory(gl.bfloat16, [config.stages, config.rows, config.step], swizzled)
    token_ring = gl.allocate_shared_memory(gl.bfloat16, [config.stages, config.tokens, config.step], swizzled)
    r = row + gl.arange(0, config.rows, layout=gl.SliceLayout(1, copies))[:, None]
    weight_ptr = weight + r.to(gl.int64) * columns
    m = gl.arange(0, config.tokens, layout=gl.SliceLayout(1, copies))[:, None]
    token_ptr = x + m * columns
    begin, end = share * steps // config.shares, (share + 1) * steps // config.shares
    for ahead in gl.static_range(config.stages - 1):
        _copy(begin + ahead, end, weight_ring, weight_ptr, r < rows, columns, config)
        async_copy.commit_group()
    if dependent:
        wait_for_predecessor()
        let_successor_start()
    _bring_first_tokens(begin, end, token_ring, token_ptr, m < num_tokens, columns, config)
    acc = gl.zeros(tile, gl.float32, layout=product)
    for step in range(begin, end):
        async_copy.wait_group(config.stages - 2)
        # The slot of the step before is free, as every warp has come here.
        later = step + config.stages - 1
        _copy(later, end, weight_ring, weight_ptr, r < rows, columns, config)
        _copy(later, end, token_ring, token_ptr, m < num_tokens, columns, config)
        async_copy.commit_group()
        slot = step % config.stages
        a = weight_ring.index(slot).load(gl.DotOperandLayout(0, product, 2))
        b = token_ring.index(slot).permute((1, 0)).load(gl.DotOperandLayout(1, product, 2))
        acc = mma_v2(a, b, acc)
    # Copies past the last step write zeros into memory that is used anew.
    async_copy.wait_group(0)
    return acc


@jit
def _sum_shares(partial, bias, y, row, num_tokens, rows: tl.constexpr, config: tl.constexpr):
    """Of a row tile, `bias` [config.rows] of which lies as the columns of `_sum_layout`."""
    shares: tl.constexpr = config.shares
    layout: tl.constexpr = _sum_layout(config)
    block: tl.constexpr = _sum_block(config)
    r = row + gl.arange(0, config.rows, layout=gl.SliceLayout(0, layout))
    for begin in range(0, num_tokens, block[0]):
        m = begin + gl.arange(0, block[0], layout=gl.SliceLayout(1, layout))
        at = m[:, None] * rows + r[None, :]
        inside = (m < num_tokens)[:, None] & (r < rows)[None, :]
        total = gl.zeros(block, gl.float32, layout=layout)
        for share in gl.static_range(shares):
            # Past L1, which does not see what other programs store.
            part = partial + share * (config.tokens * rows)
            total += gl.load(part + at, mask=inside, other=0, cache_modifier=".cg")
        gl.store(y + at, (total + bias[None, :]).to(gl.bfloat16), mask=inside)


@jit(do_not_specialize=["num_tokens"])
def _dense_kernel(
    x, weight, bias, partial, arrived, y, num_tokens,
    rows: tl.constexpr, columns: tl.constexpr, config: tl.constexpr, dependent: tl.constexpr,
):  # fmt: skip
    """Grid: row tiles, shares."""
    row, share = gl.program_id(0) * config.rows, gl.program_id(1)
    product: tl.constexpr = _product_layout(config)
    line: tl.constexpr = (config.rows,)
    lines: tl.constexpr = gl.SliceLayout(1, product) if config.shares == 1 else gl.SliceLayout(0, _sum_layout(config))
    if bias is None:
        offset = gl.zeros(line, gl.float32, layout=lines)
    else:
        # Ahead of its use: it comes from memory, and would be the last to come.
        r = row + gl.arange(0, config.rows, layout=lines)
        offset = gl.load(bias + r, mask=r < rows, other=0).to(gl.float32)
    acc = _partial_sums(x, weight, row, num_tokens, share, rows, columns, config, dependent)
    r = row + gl.arange(0, config.rows, layout=gl.SliceLayout(1, product))[:, None]
    m = gl.arange(0, config.tokens, layout=gl.SliceLayout(0, product))[None, :]
    # At most 64 rows: 32 bits hold every offset but those of the weights.
    at, inside = m * rows + r, (r < rows) & (m < num_tokens)
    if config.shares == 1:
        gl.store(y + at, (acc + offset[:, None]).to(gl.bfloat16), mask=inside)
    else:
        gl.store(partial + share * (config.tokens * rows) + at, acc, mask=inside)
        # Every thread's stores come before the one thread that counts.
        barrier()
        counter = arrived + gl.program_id(0)
        if gl.atomic_add(counter, 1) == config.shares - 1:
            # Zero again for the next launch.
            gl.store(counter, 0)
            _sum_shares(partial, offset, y, row, num_tokens, rows, config)


@functools.cache
def _arrived(device: torch.device) -> torch.Tensor:
    """Programs that have arrived, of each row tile; 0 between launches. A captured graph holds its address."""
    check_not_capturing(device, "dense")
    return torch.zeros(MAX_TILES, dtype=torch.int32, device=device)


def dense(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, config: DenseConfig) -> torch.Tensor:
    """y bf16 [M, N] of `x` [M, K], `weight` [N, K] and `bias` [N]; bf16 and contiguous, all of them.

    `bias` and `weight` are constant: they are read while the launch before may still write.

    The first call on a device must be outside of a graph capture: it makes counters. All launches on a device share
    them, so they must follow one another, on one stream or through events.

    Raises: ValueError for other tensors, a K that is no multiple of 8, more tokens than MAX_TOKENS or the
    configuration has, and more than MAX_TILES tiles of rows.
    """
    (num_tokens, columns), rows = x.shape, len(weight)
    _check(x, weight, bias, config)
    y = torch.empty(num_tokens, rows, dtype=x.dtype, device=x.device)
    if num_tokens == 0:
        return y
    tiles = -(-rows // config.rows)
    partial = arrived = None
    if config.shares > 1:
        partial = torch.empty(config.shares, config.tokens, rows, dtype=torch.float32, device=x.device)
        arrived = _arrived(x.device)
    dependent = launches_dependently(x.device)
    _dense_kernel[tiles, config.shares](
        x, weight, bias, partial, arrived, y, num_tokens, rows, columns, config, dependent,
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
    if rows > MAX_TILES * config.rows:
        raise ValueError(f"{rows} rows are more than {MAX_TILES} tiles of {config.rows}")
    if num_tokens > min(config.tokens, MAX_TOKENS):
        raise ValueError(f"{num_tokens} tokens are more than a tile of {config.tokens}, or than {MAX_TOKENS}")


def dense_ref(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """y [M, N] in the dtype of `x` [M, K]: the product with `weight` [N, K] and `bias` [N] in fp32."""
    return F.linear(x.float(), weight.float(), None if bias is None else bias.float()).to(x.dtype)
