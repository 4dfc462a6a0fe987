"""The model's only door to kernels: every operation that the model computes itself, by one name.

Each calls its specification in `kernels/<op>.py`, whose docstrings hold the mathematics and the rounding.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from vllm_gptoss.kernels.capability import HOPPER, capability
from vllm_gptoss.kernels.choice import Choice, choose
from vllm_gptoss.kernels.decode_attention import NewTokens
from vllm_gptoss.kernels.decode_attention import decode_attention as decode_attention_kernel
from vllm_gptoss.kernels.dense import MAX_TOKENS as MAX_DENSE_TOKENS
from vllm_gptoss.kernels.dense import dense as dense_kernel
from vllm_gptoss.kernels.dense_wide import MAX_TOKENS as MAX_WIDE_DENSE_TOKENS
from vllm_gptoss.kernels.dense_wide import dense_wide
from vllm_gptoss.kernels.down import down
from vllm_gptoss.kernels.expert_product import is_lifted, lifted
from vllm_gptoss.kernels.experts import dense_experts_ref, mxfp4_experts_ref
from vllm_gptoss.kernels.gate_up import gate_up
from vllm_gptoss.kernels.grouping import Routing, group_ref
from vllm_gptoss.kernels.kv_write import rotate_and_write as rotate_and_write_kernel
from vllm_gptoss.kernels.mxfp4_operand import LARGEST_SCALE
from vllm_gptoss.kernels.mxfp4_swizzle import swizzle_blocks, swizzle_scales
from vllm_gptoss.kernels.rmsnorm import rmsnorm as rmsnorm_kernel
from vllm_gptoss.kernels.rmsnorm import rmsnorm_ref
from vllm_gptoss.kernels.rope import rope_cos_sin_ref, rope_ref, yarn_inv_freq_ref
from vllm_gptoss.kernels.router import route, router_ref
from vllm_gptoss.kernels.sink_attention import sink_attention_ref
from vllm_gptoss.kernels.tuning import (
    ExpertConfig,
    pick_dense,
    pick_down,
    pick_gate_up,
    pick_wide_dense,
    tile_tokens,
)

__all__ = [
    "LARGEST_SCALE",
    "MAX_DENSE_TOKENS",
    "MAX_ROUTED_TOKENS",
    "MAX_WIDE_DENSE_TOKENS",
    "NewTokens",
    "swizzle_blocks",
    "swizzle_scales",
]
"""What layers need of the kernels besides the operations below."""

MAX_ROUTED_TOKENS = 512
"""Tokens of one `routed_experts` in the model: the most for which it was measured to be faster than vLLM's."""


def rmsnorm(
    x: torch.Tensor, weight: torch.Tensor, eps: float, residual: torch.Tensor | None = None
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Norm of `x` [M, H]; with `residual` [M, H] the norm of `x + residual`, and that sum."""
    return rmsnorm_ref(x, weight, eps, residual)


def decode_rmsnorm(
    x: torch.Tensor, weight: torch.Tensor, eps: float, residual: torch.Tensor | None = None
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """`rmsnorm` of the few tokens of a decode step on a GPU, in one launch."""
    return rmsnorm_kernel(x, weight, eps, residual)


def dense(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """`x @ weight.T + bias` [M, N] in bf16 on a GPU, of `x` [M, K] and `weight` [N, K].

    One launch of this package's for the few tokens of a decode step, cuBLAS for more.
    """
    if len(x) <= MAX_DENSE_TOKENS:
        return dense_kernel(x, weight, bias, pick_dense(len(x), *weight.shape))
    if len(x) <= MAX_WIDE_DENSE_TOKENS and capability(x.device) == HOPPER:
        return dense_wide(x, weight, bias, pick_wide_dense(*weight.shape))
    return F.linear(x, weight, bias)


def yarn_inv_freq(
    head_dim: int,
    theta: float,
    factor: float,
    beta_fast: float,
    beta_slow: float,
    original_max_positions: int,
    truncate: bool,
) -> tuple[torch.Tensor, float]:
    """Rotary frequencies fp32 [D/2] on the CPU, and the concentration that cos and sin carry."""
    return yarn_inv_freq_ref(head_dim, theta, factor, beta_fast, beta_slow, original_max_positions, truncate)


def rope_cos_sin(
    positions: torch.Tensor, inv_freq: torch.Tensor, concentration: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin fp32 [M, D/2] of `positions` [M]: once a step, for the rotations of all layers."""
    return rope_cos_sin_ref(positions, inv_freq, concentration)


def rope(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """`x` [M, heads, D] rotated by `cos` and `sin` fp32 [M, D/2]."""
    return rope_ref(x, cos, sin)


def router(logits: torch.Tensor, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`weights` [M, K] in the dtype of `logits` [M, E], and the expert `ids` int64 [M, K]."""
    return router_ref(logits, top_k)


def choose_experts(logits: torch.Tensor, top_k: int, num_rows: int) -> Choice:
    """The `top_k` largest of `logits` bf16 [M, E] on a GPU, as vLLM's expert products take them, in `num_rows`."""
    return choose(logits, top_k, num_rows)


def mxfp4_experts(
    x: torch.Tensor,
    weights: torch.Tensor,
    ids: torch.Tensor,
    gate_up_blocks: torch.Tensor,
    gate_up_scales: torch.Tensor,
    gate_up_bias: torch.Tensor,
    down_blocks: torch.Tensor,
    down_scales: torch.Tensor,
    down_bias: torch.Tensor,
    alpha: float,
    limit: float,
    first_expert: int = 0,
) -> torch.Tensor:
    """Weighted sum [M, H] of each token's K experts, from MXFP4 weights.

    Blocks u8 [E, 2I, H/2] and [E, H, I/2], scales u8 [E, 2I, H/32] and [E, H, I/32], biases [E, 2I] and
    [E, H] of the experts from `first_expert` on: `ids` of other experts add zero.
    """
    return mxfp4_experts_ref(
        x,
        weights,
        ids,
        gate_up_blocks,
        gate_up_scales,
        gate_up_bias,
        down_blocks,
        down_scales,
        down_bias,
        alpha,
        limit,
        first_expert,
    )


class SwizzledExperts(NamedTuple):
    """MXFP4 weights in the order of `kernels/mxfp4_swizzle.py`."""

    gate_up_blocks: torch.Tensor
    gate_up_scales: torch.Tensor
    gate_up_bias: torch.Tensor
    down_blocks: torch.Tensor
    down_scales: torch.Tensor
    down_bias: torch.Tensor


def routed_experts(
    x: torch.Tensor,
    router_weight: torch.Tensor,
    router_bias: torch.Tensor,
    experts: SwizzledExperts,
    top_k: int,
    alpha: float,
    limit: float,
    slot_mapping: torch.Tensor | None = None,
) -> torch.Tensor:
    """Router and experts of `x` bf16 [M, H] on a GPU, three launches for MAX_ROUTED_TOKENS; returns [M, H].

    A row whose `slot_mapping` is negative pads a captured batch: it reads no expert, and is zero.
    """
    parts = []
    for begin in range(0, len(x), MAX_ROUTED_TOKENS):
        tokens = x[begin : begin + MAX_ROUTED_TOKENS]
        slots = None if slot_mapping is None else slot_mapping[begin : begin + MAX_ROUTED_TOKENS]
        gate_up_config, down_config = _pick_products(len(tokens) * top_k, experts, x.device)
        taken = torch.empty_like(tokens) if is_lifted(gate_up_config) else None
        routing = route(tokens, router_weight, router_bias, top_k, slots, gate_up_config.tokens, lifted=taken)
        hidden = gate_up(tokens if taken is None else taken, routing, *experts[:3], alpha, limit, gate_up_config)
        parts.append(down(hidden, routing, *experts[3:], down_config))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _pick_products(num_pairs: int, experts: SwizzledExperts, device: torch.device) -> tuple[ExpertConfig, ExpertConfig]:
    """Launch parameters of both products: their tiles, and whether tokens are lifted, are the same."""
    shape = num_pairs, len(experts.gate_up_blocks), capability(device) == HOPPER
    configs = pick_gate_up(*shape), pick_down(*shape)
    assert len({(config.tokens, is_lifted(config)) for config in configs}) == 1, configs
    return configs


def expert_products(
    x: torch.Tensor, routing: Routing, experts: SwizzledExperts, alpha: float, limit: float
) -> torch.Tensor:
    """Weighted sum [M, H] of the experts that `routing` gives to `x` bf16 [M, H]."""
    gate_up_config, down_config = _pick_products(routing.ids.numel(), experts, x.device)
    hidden = gate_up(lifted(x, gate_up_config), routing, *experts[:3], alpha, limit, gate_up_config)
    return down(hidden, routing, *experts[3:], down_config)


def group_pairs(weights: torch.Tensor, ids: torch.Tensor, num_experts: int) -> Routing:
    """Routing by chosen `weights` and `ids` [M, K], made outside of a step."""
    return Routing(weights, ids, *group_ref(ids, num_experts, tile_tokens(ids.numel(), num_experts)))


def dense_experts(
    x: torch.Tensor,
    weights: torch.Tensor,
    ids: torch.Tensor,
    gate_up: torch.Tensor,
    gate_up_bias: torch.Tensor,
    down: torch.Tensor,
    down_bias: torch.Tensor,
    alpha: float,
    limit: float,
    first_expert: int = 0,
) -> torch.Tensor:
    """Weighted sum [M, H] of each token's K experts, from weights [E, 2I, H] and [E, H, I].

    Of the experts from `first_expert` on: `ids` of other experts add zero.
    """
    return dense_experts_ref(x, weights, ids, gate_up, gate_up_bias, down, down_bias, alpha, limit, first_expert)


def sink_attention(
    q: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_table: torch.Tensor,
    query_start: torch.Tensor,
    seq_lens: torch.Tensor,
    sinks: torch.Tensor | None,
    scale: float,
    window: int | None,
) -> torch.Tensor:
    """Causal attention [M, Hq, D] of `q` over a paged cache [blocks, Hkv, block, D], with sinks [Hq].

    `block_table` [R, max_blocks], `query_start` [R + 1] and `seq_lens` [R] say where the requests are.
    """
    return sink_attention_ref(q, key_cache, value_cache, block_table, query_start, seq_lens, sinks, scale, window)


def decode_attention(
    q: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    sinks: torch.Tensor,
    scale: float,
    window: int | None,
    out: torch.Tensor,
    max_seq_len: int,
    new: NewTokens,
) -> None:
    """Attention of `q` [R, Hq, D], one new token a request, into `out`; in one launch with what precedes it.

    `q` and the `new` keys are rotated, and those keys and their values written to the caches; then `sink_attention`.
    No request has more than `max_seq_len` keys; `seq_lens` stays on the device, so that a CUDA graph may hold the call.
    """
    decode_attention_kernel(
        q, key_cache, value_cache, block_table, seq_lens, sinks, scale, window, out, max_seq_len, new
    )


def rotate_and_write(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    slots: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
) -> torch.Tensor:
    """Rotated `q` [M, Hq, D]; the rotated `k`, and `v`, [M, Hkv, D] go to `slots` [M] of the paged caches."""
    return rotate_and_write_kernel(q, k, v, cos, sin, slots, key_cache, value_cache)
