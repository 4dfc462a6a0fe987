"""One layer's experts: two products with SwiGLU between, weighted and summed over K experts of a token.

    h = swiglu(x @ gate_up[e].T + gate_up_bias[e])
    y = sum_k weights[:, k] * (h @ down[e].T + down_bias[e])      with e = ids[:, k]

Layout: x [M, H]; weights and ids [M, K]; gate_up [E, 2I, H], gate and up rows alternating; down [E, H, I].
MXFP4 weights are `blocks` and `scales` (see mxfp4.py) of those shapes. Expert j of a tensor is expert
`first_expert + j` of the model: ids outside the E experts held here belong to another rank and add zero.

Rounding: products accumulate in fp32 and round to the dtype of x, SwiGLU is fp32 inside, each expert's output
rounds to the dtype of x, the sum over K is in fp32 and rounds once.

Source: the gpt-oss model card, arXiv 2508.10925, section 2.2.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from vllm_gptoss.kernels.mxfp4 import mxfp4_decode_ref
from vllm_gptoss.kernels.swiglu import swiglu_ref


def mxfp4_experts_ref(
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
    """Output [M, H] in the dtype of `x` (bf16 or fp32) from MXFP4 experts.

    `gate_up_blocks` u8 [E, 2I, H/2], `gate_up_scales` u8 [E, 2I, H/32], `gate_up_bias` [E, 2I],
    `down_blocks` u8 [E, H, I/2], `down_scales` u8 [E, H, I/32], `down_bias` [E, H]. Only experts that the
    batch uses are decoded, one product at a time.
    """
    return _sum_over_experts(
        x,
        weights,
        ids,
        lambda e: mxfp4_decode_ref(gate_up_blocks[e], gate_up_scales[e], x.dtype),
        gate_up_bias,
        lambda e: mxfp4_decode_ref(down_blocks[e], down_scales[e], x.dtype),
        down_bias,
        alpha,
        limit,
        first_expert,
    )


def dense_experts_ref(
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
    """Output [M, H] in the dtype of `x` from `gate_up` [E, 2I, H] and `down` [E, H, I], any strides."""
    return _sum_over_experts(
        x,
        weights,
        ids,
        lambda e: gate_up[e].to(x.dtype),
        gate_up_bias,
        lambda e: down[e].to(x.dtype),
        down_bias,
        alpha,
        limit,
        first_expert,
    )


def _sum_over_experts(
    x: torch.Tensor,
    weights: torch.Tensor,
    ids: torch.Tensor,
    gate_up_of: Callable[[int], torch.Tensor],
    gate_up_bias: torch.Tensor,
    down_of: Callable[[int], torch.Tensor],
    down_bias: torch.Tensor,
    alpha: float,
    limit: float,
    first_expert: int,
) -> torch.Tensor:
    local = (ids - first_expert).flatten()  # [M * K]: pair p is slot p % K of token p // K
    held = local[(local >= 0) & (local < gate_up_bias.shape[0])]
    outputs = torch.zeros(local.numel(), x.shape[1], dtype=x.dtype, device=x.device)
    for expert in held.unique().tolist():
        pairs = (local == expert).nonzero()[:, 0]
        hidden = F.linear(x[pairs // ids.shape[1]], gate_up_of(expert), gate_up_bias[expert].to(x.dtype))
        hidden = swiglu_ref(hidden, alpha, limit)
        outputs[pairs] = F.linear(hidden, down_of(expert), down_bias[expert].to(x.dtype))
    return (outputs.view(*ids.shape, x.shape[1]).float() * weights[..., None].float()).sum(dim=1).to(x.dtype)
