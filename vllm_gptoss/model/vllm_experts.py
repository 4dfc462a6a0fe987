"""vLLM's expert kernels over swizzled experts: the same bytes, wrapped, and the tokens of a prompt.

vLLM's own way to these kernels lays out who chose whom such that two of its kernels have the number of tokens as a
constant: every step of a length not seen before, up to 480 of them below 8192, waits most of a second for the compiler.
Here the layout does not depend on it, and rows are padded to a multiple of ROWS, which leaves a handful of variants of
the others. They are compiled before the first request.

Imported only where experts live on a GPU: vLLM carries these kernels as a package of its own.
"""

import torch
import torch.nn.functional as F
from vllm.model_executor.layers.fused_moe import FusedMoEQuantConfig
from vllm.model_executor.layers.fused_moe.routed_experts import RoutedExperts
from vllm.model_executor.layers.quantization.utils.mxfp4_utils import mx_scale_kwargs

from vllm_gptoss.model.config import MXFP4_BLOCK
from vllm_gptoss.ops import SwizzledExperts, choose_experts

ROWS = 64


def wrap(layer: RoutedExperts, experts: SwizzledExperts) -> tuple[object, object]:
    """Put `experts` where vLLM's kernels look in `layer`; returns what holds the scales of each product."""
    from triton_kernels.matmul_ogs_details import opt_flags

    # What vLLM sets when it puts weights in this order itself.
    opt_flags.update_opt_flags_constraints({"split_k": 1})
    hidden, inter = layer.hidden_size, layer.intermediate_size_per_partition
    layer.w13_weight, w13_precision = _wrap(experts.gate_up_blocks, experts.gate_up_scales, 2 * inter, hidden)
    layer.w2_weight, w2_precision = _wrap(experts.down_blocks, experts.down_scales, hidden, inter)
    layer.w13_bias, layer.w2_bias = experts.gate_up_bias, experts.down_bias
    return w13_precision, w2_precision


def many_tokens(
    layer: RoutedExperts, x: torch.Tensor, logits: torch.Tensor, quant_config: FusedMoEQuantConfig
) -> torch.Tensor:
    """Weighted sum [M, H] of the experts that `logits` bf16 [M, E] choose for `x` bf16 [M, H]."""
    from vllm.model_executor.layers.fused_moe.experts.gpt_oss_triton_kernels_moe import triton_kernel_fused_experts

    num_tokens, rows = len(x), padded_rows(len(x))
    padded = x if rows == num_tokens else F.pad(x, (0, 0, 0, rows - num_tokens))
    out = triton_kernel_fused_experts(
        torch.empty_like(padded),
        padded,
        layer.w13_weight,
        layer.w2_weight,
        *routing(logits, layer.top_k, rows),
        topk=layer.top_k,
        quant_config=quant_config,
        swiglu_alpha=layer.swiglu_alpha,
        swiglu_limit=layer.swiglu_limit,
    )
    return out[:num_tokens]


def padded_rows(num_tokens: int) -> int:
    return -(-num_tokens // ROWS) * ROWS


def routing(logits: torch.Tensor, top_k: int, rows: int) -> tuple[object, object, object]:
    """What vLLM's products need to know of `logits` bf16 [M, E] in so many rows: the choice, gather and scatter."""
    from triton_kernels.routing import routing_from_bitmatrix
    from triton_kernels.tensor import Bitmatrix

    choice = choose_experts(logits, top_k, rows)
    shape = [rows, len(choice.zeros)]
    # Tensors of triton_kernels want the type that they were written with.
    chosen = Bitmatrix(choice.words.view(torch.uint32), shape=shape, shape_max=[rows, None], scratchpad=choice.zeros)
    return routing_from_bitmatrix(chosen, choice.weights, choice.ids, logits.shape[1], top_k)


def _wrap(blocks: torch.Tensor, scales: torch.Tensor, rows: int, columns: int) -> tuple[object, object]:
    from triton_kernels.matmul_ogs import FlexCtx, PrecisionConfig
    from triton_kernels.numerics import InFlexData
    from triton_kernels.tensor import FP4, Storage, Tensor
    from triton_kernels.tensor_details.layout import HopperMXScaleLayout, HopperMXValueLayout

    num_experts = len(blocks)
    values = HopperMXValueLayout((num_experts, columns // 2, rows), mx_axis=1)
    weight = Tensor(Storage(blocks.view(torch.uint8).mT, values), dtype=FP4, shape=[num_experts, columns, rows])
    shape = [num_experts, scales.shape[2] // MXFP4_BLOCK, rows]
    scale = Tensor(Storage(scales.mT, HopperMXScaleLayout(shape, mx_axis=1, num_warps=8)), shape=shape)
    return weight, PrecisionConfig(**mx_scale_kwargs(scale), flex_ctx=FlexCtx(rhs_data=InFlexData()))
