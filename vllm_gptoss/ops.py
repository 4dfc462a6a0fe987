"""The model's only door to kernels: every operation that the model computes itself, by one name.

Each calls its specification in `kernels/<op>.py`, whose docstrings hold the mathematics and the rounding.
"""

import torch

from vllm_gptoss.kernels.experts import dense_experts_ref, mxfp4_experts_ref
from vllm_gptoss.kernels.rmsnorm import rmsnorm_ref
from vllm_gptoss.kernels.rope import rope_cos_sin_ref, rope_ref, yarn_inv_freq_ref
from vllm_gptoss.kernels.router import router_ref
from vllm_gptoss.kernels.sink_attention import sink_attention_ref


def rmsnorm(
    x: torch.Tensor, weight: torch.Tensor, eps: float, residual: torch.Tensor | None = None
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Norm of `x` [M, H]; with `residual` [M, H] the norm of `x + residual`, and that sum."""
    return rmsnorm_ref(x, weight, eps, residual)


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
