"""The second half of the experts: down projection with its bias, times the routing weight, summed over a token's K.

    y[m] = sum_k weights[m, k] * (down[e] @ h[K m + k] + bias[e])      with e = ids[m, k]; nothing where e is negative

A program computes 64 to 256 rows of one tile of pairs over its share of the columns, into fp32 partial sums in memory;
of the programs of the same rows the last to arrive adds the shares and slots of each token in their order, so that
every run gives the same bits, and rounds once. Of many tokens a second launch does.

Source: the gpt-oss model card, arXiv 2508.10925, section 2.2.
"""

import functools

import torch
import triton.language as tl

from vllm_gptoss.kernels.dependent_launch import launches_dependently, let_successor_start, wait_for_predecessor
from vllm_gptoss.kernels.expert_product import expert_product, product_layout, source_layout
from vllm_gptoss.kernels.gluon import barrier, gl, jit
from vllm_gptoss.kernels.grouping import TILE_EXPERT, Routing
from vllm_gptoss.kernels.router import MAX_HIDDEN
from vllm_gptoss.kernels.scratch import check_not_capturing
from vllm_gptoss.kernels.tuning import ExpertConfig

MAX_SUMMED_BY_LAST = 32
"""Tokens whose sums one program for each row tile makes quickly; for more a second launch makes them."""

_SUMMED = tl.constexpr(8)
"""Tokens of a program of that launch."""


@jit
def _partial_sums(
    hidden, pairs, count, blocks, scales, bias, partial, row, share, rows: tl.constexpr, columns: tl.constexpr,
    config: tl.constexpr, dependent: tl.constexpr,
):  # fmt: skip
    lane = gl.arange(0, config.tokens, layout=source_layout(config))
    pair = gl.where(lane < count, gl.load(pairs + lane, cache_modifier=".cg"), -1)
    r = row + gl.arange(0, config.rows, layout=gl.SliceLayout(1, product_layout(config)))
    # Ahead of its use: it comes from memory, and would be the last to come.
    offset = gl.load(bias + r, mask=(r < rows) & (share == 0), other=0).to(gl.float32)
    acc = expert_product(hidden, pair, blocks, scales, row, share, rows, columns, config, dependent)
    out: tl.constexpr = gl.BlockedLayout([4, 1], [16, 2], [1, config.warps], [0, 1])
    acc = gl.convert_layout(acc + offset[:, None], out)
    n = gl.arange(0, config.tokens, layout=gl.SliceLayout(0, out))
    pair = gl.load(pairs + n, mask=n < count, other=0).to(gl.int64)
    r = row + gl.arange(0, config.rows, layout=gl.SliceLayout(1, out))
    gl.store(partial + pair[None, :] * rows + r[:, None], acc, mask=(r < rows)[:, None] & (n < count)[None, :])


@jit
def _sum_shares(
    partial, weights, ids, y, row, rows, begin, end, num_tokens, top_k: tl.constexpr, config: tl.constexpr
):  # fmt: skip
    """Store y of the tokens from `begin` to `end`, in the rows of one tile."""
    shares: tl.constexpr = config.shares
    block: tl.constexpr = (8, config.rows)
    layout: tl.constexpr = gl.BlockedLayout([1, 4], [2, 16], [config.warps, 1], [1, 0])
    r = row + gl.arange(0, config.rows, layout=gl.SliceLayout(0, layout))
    for first in range(begin, end, 8):
        m = first + gl.arange(0, 8, layout=gl.SliceLayout(1, layout))
        total = gl.zeros(block, gl.float32, layout=layout)
        for k in gl.static_range(top_k):
            held = (m < num_tokens) & (gl.load(ids + m * top_k + k, mask=m < num_tokens, other=-1) >= 0)
            weight = gl.load(weights + m * top_k + k, mask=m < num_tokens, other=0)
            # Not after `ids`: the loads of all are on their way together, and what no program wrote is left out.
            inside = (m < num_tokens)[:, None] & (r < rows)[None, :]
            value = gl.zeros(block, gl.float32, layout=layout)
            for share in gl.static_range(shares):
                pair = (share * num_tokens + m).to(gl.int64) * top_k + k
                value += gl.load(partial + pair[:, None] * rows + r[None, :], mask=inside, other=0)
            total += gl.where(held[:, None], weight[:, None] * value, 0)
        inside = (m < num_tokens)[:, None] & (r < rows)[None, :]
        gl.store(y + m.to(gl.int64)[:, None] * rows + r[None, :], total.to(gl.bfloat16), mask=inside)


@jit
def _down_kernel(
    hidden, tiles, pairs, blocks, scales, bias, weights, ids, partial, arrived, y,
    block_stride, scale_stride, num_tokens,
    rows: tl.constexpr, columns: tl.constexpr, top_k: tl.constexpr, config: tl.constexpr, sums: tl.constexpr,
    dependent: tl.constexpr,
):  # fmt: skip
    row, share = gl.program_id(0) * config.rows, gl.program_id(2)
    # The router has ended before gate_up let this launch start; what it wrote is read past L1.
    tile = gl.load(tiles + gl.program_id(1), cache_modifier=".cg")
    expert, count = (tile // TILE_EXPERT).to(gl.int64), tile % TILE_EXPERT
    if count > 0:
        _partial_sums(
            hidden, pairs + gl.program_id(1) * config.tokens, count,
            blocks + expert * block_stride, scales + expert * scale_stride, bias + expert * rows,
            partial + share.to(gl.int64) * num_tokens * top_k * rows,
            row, share, rows, columns, config, dependent,
        )  # fmt: skip
    elif dependent:
        wait_for_predecessor()
        let_successor_start()
    if sums:
        barrier()
        counter = arrived + gl.program_id(0)
        if gl.atomic_add(counter, 1) == gl.num_programs(1) * config.shares - 1:
            # Zero again for the next launch.
            gl.store(counter, 0)
            _sum_shares(partial, weights, ids, y, row, rows, 0, num_tokens, num_tokens, top_k, config)


@jit
def _sum_kernel(
    partial, weights, ids, y, rows, num_tokens, top_k: tl.constexpr, config: tl.constexpr, dependent: tl.constexpr
):  # fmt: skip
    if dependent:
        wait_for_predecessor()
        let_successor_start()
    begin = gl.program_id(1) * _SUMMED
    end = gl.minimum(begin + _SUMMED, num_tokens)
    _sum_shares(partial, weights, ids, y, gl.program_id(0) * config.rows, rows, begin, end, num_tokens, top_k, config)


@functools.cache
def _arrived(device: torch.device) -> torch.Tensor:
    """Programs that have arrived, of each row tile; 0 between launches. A captured graph holds its address."""
    check_not_capturing(device, "down")
    return torch.zeros(MAX_HIDDEN // 64, dtype=torch.int32, device=device)


def down(
    hidden: torch.Tensor,
    routing: Routing,
    blocks: torch.Tensor,
    scales: torch.Tensor,
    bias: torch.Tensor,
    config: ExpertConfig,
) -> torch.Tensor:
    """y bf16 [M, H] of `hidden` bf16 [M * K, I], lifted if `is_lifted(config)`; zero for a token with no expert here.

    `routing`: grouping.py; `blocks` i32 [E, H / 4, I / 2] and `scales` u8 [E, .., ..]: mxfp4_swizzle.py; `bias` [E, H];
    contiguous, all of them. I is a multiple of 8.

    What `routing` holds was written by an earlier launch than the one just before this.

    The first call on a device must be outside of a graph capture: it makes counters. All launches on a device share
    them, so they must follow one another, on one stream or through events.
    """
    (num_tokens, top_k), rows = routing.ids.shape, bias.shape[1]
    partial = torch.empty(config.shares, num_tokens * top_k, rows, dtype=torch.float32, device=hidden.device)
    y = torch.empty(num_tokens, rows, dtype=hidden.dtype, device=hidden.device)
    halves, words = blocks.view(torch.int16), scales.view(torch.int32)
    dependent, sums = launches_dependently(hidden.device), num_tokens <= MAX_SUMMED_BY_LAST
    grid = (-(-rows // config.rows), len(routing.tiles), config.shares)
    _down_kernel[grid](
        hidden, routing.tiles, routing.pairs, halves, words, bias, routing.weights, routing.ids, partial,
        _arrived(hidden.device), y,
        halves.stride(0), words.stride(0), num_tokens, rows, hidden.shape[1],
        top_k, config, sums, dependent, num_warps=config.warps, maxnreg=config.registers, launch_pdl=dependent,
    )  # fmt: skip
    if not sums:
        _sum_kernel[grid[0], -(-num_tokens // _SUMMED.value)](
            partial, routing.weights, routing.ids, y, rows, num_tokens,
            top_k, config, dependent, num_warps=config.warps, launch_pdl=dependent,
        )  # fmt: skip
    return y


def down_ref(
    hidden: torch.Tensor, weights: torch.Tensor, ids: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """y fp32 [M, H] of `hidden` [M * K, I], `weights` and `ids` [M, K] and fp32 `weight` [E, H, I]."""
    y = torch.zeros(len(ids), weight.shape[1], device=hidden.device)
    for pair, (expert, share) in enumerate(zip(ids.flatten().tolist(), weights.flatten().tolist(), strict=True)):
        if expert >= 0:
            y[pair // ids.shape[1]] += share * (weight[expert] @ hidden[pair].float() + bias[expert].float())
    return y
