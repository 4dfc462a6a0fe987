"""The first half of the experts: gate and up projections with their bias, and the clamped SwiGLU.

    h[p] = swiglu(gate_up[e] @ x[p // K] + bias[e])      for each pair p = K m + k of token m and its expert e = ids[p]

One launch: a program computes 32 to 128 values of h (twice as many rows, gate and up alternating) for one tile of pairs
that share an expert (see grouping.py), and reads those rows of the weights once. fp32 from the product to the store.

Source: the gpt-oss model card, arXiv 2508.10925, section 2.2.
"""

import torch
import torch.nn.functional as F
import triton.language as tl

from vllm_gptoss.kernels.dependent_launch import launches_dependently, let_successor_start, wait_for_predecessor
from vllm_gptoss.kernels.expert_product import LIFT, expert_product, is_lifted, product_layout, source_layout
from vllm_gptoss.kernels.gluon import constexpr_function, gl, jit
from vllm_gptoss.kernels.grouping import TILE_EXPERT, Routing
from vllm_gptoss.kernels.swiglu import swiglu_ref
from vllm_gptoss.kernels.tuning import ExpertConfig


@jit
def _swiglu(acc, alpha, limit, config: tl.constexpr):
    """h [rows / 2, tokens] of gate and up rows in turn, in the layout `_stored_layout`."""
    # Both rows of a value in one lane, and the values of a pair side by side in a warp.
    acc = gl.convert_layout(acc, gl.BlockedLayout([config.rows // 32, 1], [32, 1], [1, config.warps], [0, 1]))
    gate, up = gl.split(acc.reshape(config.rows // 2, 2, config.tokens).permute(0, 2, 1))
    gate = gl.minimum(gate, limit)
    up = gl.minimum(gl.maximum(up, -limit), limit)
    return gl.convert_layout((up + 1) * gate / (1 + gl.exp(-alpha * gate)), _stored_layout(config))


@constexpr_function
def _stored_layout(config):
    return gl.BlockedLayout([config.rows // 64, 1], [32, 1], [1, config.warps], [0, 1])


@jit
def _gate_up_kernel(
    x, tiles, pairs, blocks, scales, bias, hidden,
    block_stride, scale_stride, alpha, limit,
    rows: tl.constexpr, columns: tl.constexpr, top_k: tl.constexpr, config: tl.constexpr, lifts: tl.constexpr,
    dependent: tl.constexpr,
):  # fmt: skip
    if dependent:
        wait_for_predecessor()
        let_successor_start()
    tile = gl.load(tiles + gl.program_id(1))
    pairs += gl.program_id(1) * config.tokens
    lane = gl.arange(0, config.tokens, layout=source_layout(config))
    # On its way together with the tile's word, whose count says how much of it there is.
    pair = gl.load(pairs + lane)
    expert, count = (tile // TILE_EXPERT).to(gl.int64), tile % TILE_EXPERT
    if count == 0:
        return
    row = gl.program_id(0) * config.rows
    source = gl.where(lane < count, pair // top_k, -1)
    blocks += expert * block_stride
    scales += expert * scale_stride
    r = row + gl.arange(0, config.rows, layout=gl.SliceLayout(1, product_layout(config)))
    bias += expert * rows
    if config.tokens < 64:
        # Ahead of its use: it comes from memory, and would be the last to come. A wide tile has no registers for it.
        offset = gl.load(bias + r, mask=r < rows, other=0).to(gl.float32)
    acc = expert_product(x, source, blocks, scales, row, 0, rows, columns, config, False)
    if config.tokens >= 64:
        offset = gl.load(bias + r, mask=r < rows, other=0).to(gl.float32)
    h = _swiglu(acc + offset[:, None], alpha, limit, config)
    if lifts:
        h *= LIFT
    out: tl.constexpr = _stored_layout(config)
    n = gl.arange(0, config.tokens, layout=gl.SliceLayout(0, out))
    pair = gl.load(pairs + n, mask=n < count, other=0).to(gl.int64)
    value = row // 2 + gl.arange(0, config.rows // 2, layout=gl.SliceLayout(1, out))
    inside = (value < rows // 2)[:, None] & (n < count)[None, :]
    gl.store(hidden + pair[None, :] * (rows // 2) + value[:, None], h.to(gl.bfloat16), mask=inside)


def gate_up(
    x: torch.Tensor,
    routing: Routing,
    blocks: torch.Tensor,
    scales: torch.Tensor,
    bias: torch.Tensor,
    alpha: float,
    limit: float,
    config: ExpertConfig,
) -> torch.Tensor:
    """h bf16 [M * K, I] of `x` bf16 [M, H], both lifted if `is_lifted(config)` (expert_product.py).

    The rows of pairs in no tile are not written.

    `routing`: grouping.py; `blocks` i32 [E, 2I / 4, H / 2] and `scales` u8 [E, .., ..]: mxfp4_swizzle.py; `bias`
    [E, 2I]; contiguous, all of them. H is a multiple of 8.
    """
    top_k, rows = routing.ids.shape[1], bias.shape[1]
    hidden = torch.empty(routing.ids.numel(), rows // 2, dtype=x.dtype, device=x.device)
    halves, words = blocks.view(torch.int16), scales.view(torch.int32)
    grid = (-(-rows // config.rows), len(routing.tiles))
    # All columns are one program's: its values are no sums of others'.
    config, dependent = config._replace(shares=1), launches_dependently(x.device)
    _gate_up_kernel[grid](
        x, routing.tiles, routing.pairs, halves, words, bias, hidden,
        halves.stride(0), words.stride(0), alpha, limit, rows, x.shape[1],
        top_k, config, is_lifted(config), dependent,
        num_warps=config.warps, maxnreg=config.registers, launch_pdl=dependent,
    )  # fmt: skip
    return hidden


def gate_up_ref(
    x: torch.Tensor, ids: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, alpha: float, limit: float
) -> torch.Tensor:
    """h fp32 [M * K, I] of `x` [M, H] and fp32 `weight` [E, 2I, H]; zero where `ids` [M, K] is negative."""
    top_k = ids.shape[1]
    hidden = torch.zeros(ids.numel(), weight.shape[1] // 2, device=x.device)
    for pair, expert in enumerate(ids.flatten().tolist()):
        if expert >= 0:
            product = F.linear(x[pair // top_k].float(), weight[expert], bias[expert].float())
            hidden[pair] = swiglu_ref(product[None], alpha, limit)[0]
    return hidden
