"""The expert layer: a router picks K of E experts for every token, each a clamped SwiGLU network.

vLLM's runner moves tokens between ranks and sums; our quantization methods compute the experts.
"""

import torch
from torch import nn
from vllm.config import VllmConfig
from vllm.distributed import (
    get_dp_group,
    get_pcp_group,
    get_tensor_model_parallel_world_size,
    tensor_model_parallel_all_gather,
)
from vllm.model_executor.layers.fused_moe import FusedMoEFactory, FusedMoEMethodBase
from vllm.model_executor.layers.fused_moe.routed_experts import RoutedExperts
from vllm.model_executor.layers.linear import ReplicatedLinear
from vllm.model_executor.models.utils import sequence_parallel_chunk
from vllm.platforms import current_platform

from vllm_gptoss.model.config import MXFP4_BLOCK, ModelArgs
from vllm_gptoss.model.mxfp4 import DenseExperts


class GptOssRoutedExperts(RoutedExperts):
    """The experts of one rank, loaded from the checkpoint's tensors over all experts."""

    def _get_quant_method(self, prefix, quant_config, moe_config) -> FusedMoEMethodBase:
        if quant_config is None and current_platform.device_type == "cpu":
            return DenseExperts(moe_config)
        return super()._get_quant_method(prefix, quant_config, moe_config)

    def weight_loader(self, param: nn.Parameter, loaded_weight: torch.Tensor, **_) -> None:
        """Copy this rank's part of `loaded_weight` into `param`; what pads a parameter stays zero.

        Both are [experts, rows, columns] or, for biases, [experts, rows]; `param.shard_dim` is the
        dimension that tensor parallelism cuts and `param.shard_unit` its elements per intermediate
        value. A parameter without a `shard_dim` is the down bias, which one rank alone must add.
        """
        parallel = self.moe_config.moe_parallel_config
        part = loaded_weight[self._local_experts()]
        shard_dim, unit = _shard_of(self, param)
        if shard_dim is None:
            if parallel.tp_rank > 0:
                part = torch.zeros_like(part)
        else:
            size = int(self.moe_config.intermediate_size_per_partition_unpadded * unit)
            start = min(parallel.tp_rank * size, part.shape[shard_dim])
            part = part.narrow(shard_dim, start, min(size, part.shape[shard_dim] - start))
        param.data.zero_()
        param.data[tuple(slice(0, size) for size in part.shape)].copy_(part)

    def _local_experts(self) -> slice | list[int]:
        if self.local_num_experts == self.global_num_experts:
            return slice(None)
        local_of = self.expert_map_manager.map_global_to_local
        ours = [e for e in range(self.global_num_experts) if local_of(e) >= 0]
        return sorted(ours, key=local_of)


def _shard_of(experts: RoutedExperts, param: nn.Parameter) -> tuple[int | None, float]:
    """The dimension that tensor parallelism cuts, and its elements per intermediate value."""
    name = next(name for name, value in experts.named_parameters() if value is param)
    return {
        "w13_weight": (1, 2),
        "w13_weight_scale": (1, 2),
        "w13_bias": (1, 2),
        "w2_weight": (2, 1 / 2 if param.dtype == torch.uint8 else 1),
        "w2_weight_scale": (2, 1 / MXFP4_BLOCK),
        "w2_bias": (None, 0),
    }[name]


class GptOssMoE(nn.Module):
    def __init__(self, vllm_config: VllmConfig, args: ModelArgs, prefix: str) -> None:
        super().__init__()
        parallel = vllm_config.parallel_config
        self.is_sequence_parallel = parallel.use_sequence_parallel_moe and vllm_config.lora_config is None
        self.router = ReplicatedLinear(
            args.hidden_size,
            args.num_experts,
            bias=True,
            quant_config=None,
            prefix=f"{prefix}.router",
            return_bias=False,
        )
        self.experts = FusedMoEFactory(
            num_experts=args.num_experts,
            top_k=args.experts_per_token,
            hidden_size=args.hidden_size,
            intermediate_size=_padded_intermediate_size(args, parallel.enable_expert_parallel),
            renormalize=True,
            quant_config=vllm_config.quant_config,
            has_bias=True,
            activation="swigluoai",
            swiglu_alpha=args.swiglu_alpha,
            swiglu_beta=1.0,
            swiglu_limit=args.swiglu_limit,
            is_sequence_parallel=self.is_sequence_parallel,
            routed_experts_cls=GptOssRoutedExperts,
            prefix=f"{prefix}.experts",
        )
        method = self.experts.routed_experts.quant_method
        # This package's kernels on a GPU hold the router's product too.
        self.experts_route = hasattr(method, "router")
        if self.experts_route:
            method.router = self.router
            method.attention_name = f"{prefix.removesuffix('mlp')}self_attn.attn"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [M, H]; returns [M, H], summed over the ranks."""
        num_tokens, hidden_size = x.shape
        if self.is_sequence_parallel:
            x = sequence_parallel_chunk(x)
        router_logits = x if self.experts_route else self.router(x)
        out = self.experts(hidden_states=x, router_logits=router_logits)[:, :hidden_size]
        if self.is_sequence_parallel:
            out = tensor_model_parallel_all_gather(out.contiguous(), 0)[:num_tokens]
        return out


def _padded_intermediate_size(args: ModelArgs, expert_parallel: bool) -> int:
    """The intermediate size, padded with zeros such that every rank has whole MXFP4 blocks."""
    if expert_parallel:
        return args.intermediate_size
    # Without expert parallelism vLLM cuts each expert over tensor, data and context parallel ranks.
    ranks = get_tensor_model_parallel_world_size() * get_dp_group().world_size * get_pcp_group().world_size
    unit = MXFP4_BLOCK * ranks
    return -(-args.intermediate_size // unit) * unit
