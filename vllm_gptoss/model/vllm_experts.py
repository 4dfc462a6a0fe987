"""Swizzled experts as the tensors of vLLM's expert kernels: the same bytes, wrapped.

Imported only where experts live on a GPU: vLLM carries these kernels as a package of its own.
"""

import torch
from vllm.model_executor.layers.fused_moe.routed_experts import RoutedExperts
from vllm.model_executor.layers.quantization.utils.mxfp4_utils import mx_scale_kwargs

from vllm_gptoss.model.config import MXFP4_BLOCK
from vllm_gptoss.ops import SwizzledExperts


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
