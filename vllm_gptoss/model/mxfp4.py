"""How experts are held and computed: MXFP4 as in the checkpoint, or dense for bf16 checkpoints.

Where there is no accelerator the bytes of the checkpoint stay as they are in memory and `ops` decodes
the experts that a step uses. For a GPU: gpu_experts.py.

Layout, E local experts: w13 [E, 2I, H], gate and up rows alternating; w2 [E, H, I]; two MXFP4 values a
byte along the last dimension, one scale byte for 32 values; biases w13 [E, 2I], w2 [E, H].
"""

from collections.abc import Callable

import torch
from torch import nn
from vllm.config import get_current_vllm_config
from vllm.model_executor.layers.fused_moe import FusedMoEMethodBase
from vllm.model_executor.layers.fused_moe.config import FusedMoEQuantConfig
from vllm.model_executor.layers.fused_moe.routed_experts import RoutedExperts
from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod
from vllm.model_executor.layers.quantization.base_config import QuantizationConfig, QuantizeMethodBase
from vllm.model_executor.utils import set_weight_attrs
from vllm.platforms import current_platform

from vllm_gptoss import ops
from vllm_gptoss.model.config import MXFP4_BLOCK
from vllm_gptoss.model.kernel_choice import ExpertsState, choose_kernels


class GptOssMxfp4Config(QuantizationConfig):
    """Takes `quant_method: mxfp4` of gpt-oss checkpoints; all but the experts is in bf16 there."""

    def __init__(self) -> None:
        super().__init__()
        self.experts_state = ExpertsState()

    @classmethod
    def get_name(cls) -> str:
        return "gpt_oss_mxfp4"

    @classmethod
    def get_supported_act_dtypes(cls) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float32] if _on_cpu() else [torch.bfloat16]

    @classmethod
    def get_min_capability(cls) -> int:
        return 80

    @staticmethod
    def get_config_filenames() -> list[str]:
        return []

    @classmethod
    def from_config(cls, config: dict) -> "GptOssMxfp4Config":
        return cls()

    @classmethod
    def override_quantization_method(cls, hf_quant_cfg, user_quant, hf_config=None) -> str | None:
        """Claims MXFP4 checkpoints of gpt-oss, and no others."""
        is_mxfp4 = isinstance(hf_quant_cfg, dict) and hf_quant_cfg.get("quant_method") in (
            "mxfp4",
            cls.get_name(),
        )
        is_gpt_oss = getattr(hf_config, "model_type", None) == "gpt_oss"
        return cls.get_name() if is_mxfp4 and is_gpt_oss else None

    def get_quant_method(self, layer: nn.Module, prefix: str) -> QuantizeMethodBase | None:
        if isinstance(layer, LinearBase):
            return UnquantizedLinearMethod()
        if isinstance(layer, RoutedExperts):
            return Mxfp4Experts(layer.moe_config) if _on_cpu() else self._gpu_method(layer)
        return None

    def _gpu_method(self, layer: RoutedExperts) -> FusedMoEMethodBase:
        # Imported here: vLLM's module probes for its CUDA libraries.
        from vllm.model_executor.layers.quantization.mxfp4 import GptOssMxfp4MoEMethod

        from vllm_gptoss.model.gpu_experts import GpuExperts

        if (layer.swiglu_alpha, layer.swiglu_limit) != (1.702, 7.0):
            raise ValueError(
                f"swiglu_alpha {layer.swiglu_alpha} and swiglu_limit {layer.swiglu_limit} are not supported on "
                "this device: vLLM's expert kernels hold 1.702 and 7.0"
            )
        if not choose_kernels(get_current_vllm_config()).experts:
            return GptOssMxfp4MoEMethod(layer.moe_config)
        return GpuExperts(layer.moe_config, self.experts_state)


class Mxfp4Experts(FusedMoEMethodBase):
    """Experts kept in MXFP4; a step decodes those that its tokens use, one at a time."""

    # vLLM's compiled top-k is not there without an accelerator: routing is done here.
    is_monolithic = True

    def create_weights(
        self,
        layer: RoutedExperts,
        num_experts: int,
        hidden_size: int,
        intermediate_size_per_partition: int,
        params_dtype: torch.dtype,
        weight_loader: Callable,
        **_,
    ) -> None:
        inter = intermediate_size_per_partition
        for name, shape in {
            "w13_weight": (2 * inter, hidden_size // 2),
            "w13_weight_scale": (2 * inter, hidden_size // MXFP4_BLOCK),
            "w2_weight": (hidden_size, inter // 2),
            "w2_weight_scale": (hidden_size, inter // MXFP4_BLOCK),
        }.items():
            _register(layer, name, (num_experts, *shape), torch.uint8, weight_loader)
        _register(layer, "w13_bias", (num_experts, 2 * inter), params_dtype, weight_loader)
        _register(layer, "w2_bias", (num_experts, hidden_size), params_dtype, weight_loader)

    def get_fused_moe_quant_config(self, layer: RoutedExperts) -> FusedMoEQuantConfig | None:
        return None

    def apply_monolithic(
        self,
        layer: RoutedExperts,
        x: torch.Tensor,
        router_logits: torch.Tensor,
        input_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """x [M, H], router_logits [M, global experts]; returns [M, H], this rank's part of the sum."""
        weights, ids = _route(layer, router_logits)
        return ops.mxfp4_experts(
            x,
            weights,
            ids,
            layer.w13_weight,
            layer.w13_weight_scale,
            layer.w13_bias,
            layer.w2_weight,
            layer.w2_weight_scale,
            layer.w2_bias,
            alpha=layer.swiglu_alpha,
            limit=layer.swiglu_limit,
        )


class DenseExperts(FusedMoEMethodBase):
    """Experts of a bf16 checkpoint, as they are."""

    is_monolithic = True

    def create_weights(
        self,
        layer: RoutedExperts,
        num_experts: int,
        hidden_size: int,
        intermediate_size_per_partition: int,
        params_dtype: torch.dtype,
        weight_loader: Callable,
        **_,
    ) -> None:
        inter = intermediate_size_per_partition
        for name, shape in {
            "w13_weight": (2 * inter, hidden_size),
            "w13_bias": (2 * inter,),
            "w2_weight": (hidden_size, inter),
            "w2_bias": (hidden_size,),
        }.items():
            _register(layer, name, (num_experts, *shape), params_dtype, weight_loader)

    def get_fused_moe_quant_config(self, layer: RoutedExperts) -> FusedMoEQuantConfig | None:
        return None

    def apply_monolithic(
        self,
        layer: RoutedExperts,
        x: torch.Tensor,
        router_logits: torch.Tensor,
        input_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """x [M, H], router_logits [M, global experts]; returns [M, H], this rank's part of the sum."""
        weights, ids = _route(layer, router_logits)
        return ops.dense_experts(
            x,
            weights,
            ids,
            layer.w13_weight,
            layer.w13_bias,
            layer.w2_weight,
            layer.w2_bias,
            alpha=layer.swiglu_alpha,
            limit=layer.swiglu_limit,
        )


def _on_cpu() -> bool:
    return current_platform.device_type == "cpu"


def _register(layer, name: str, shape: tuple[int, ...], dtype: torch.dtype, weight_loader: Callable) -> None:
    param = nn.Parameter(torch.empty(shape, dtype=dtype), requires_grad=False)
    set_weight_attrs(param, {"weight_loader": weight_loader})
    layer.register_parameter(name, param)


def _route(layer: RoutedExperts, router_logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Routing weights and local expert ids [M, K]; an id of -1 lives on another rank."""
    weights, ids = ops.router(router_logits, layer.top_k)
    return weights, ids if layer.expert_map is None else layer.expert_map[ids]
