"""MXFP4 experts on a GPU: this package's kernels for few tokens, vLLM's for many, over one copy of the weights.

Imported only where experts live on a GPU: vLLM's module probes for its CUDA libraries.
"""

import torch
import torch.nn.functional as F
from torch import nn
from vllm.forward_context import get_forward_context, is_forward_context_available
from vllm.logger import init_logger
from vllm.model_executor.layers.fused_moe import FusedMoEConfig, FusedMoEQuantConfig
from vllm.model_executor.layers.fused_moe.oracle.mxfp4 import Mxfp4MoeBackend, make_mxfp4_moe_kernel
from vllm.model_executor.layers.fused_moe.routed_experts import RoutedExperts
from vllm.model_executor.layers.quantization.mxfp4 import GptOssMxfp4MoEMethod
from vllm.platforms import current_platform

from vllm_gptoss import ops
from vllm_gptoss.model import vllm_experts
from vllm_gptoss.model.kernel_choice import ExpertsState
from vllm_gptoss.model.prompt_warmup import PromptWarmup

SMALLEST_FOR_VLLM = 256
"""Hidden size below which vLLM's kernels do not compile: their tile is wider than the matrix."""

CHUNK_BYTES = 64 << 20
"""Weights that are put in order at once; five times as many bytes are in use meanwhile."""

CHECKED_TOKENS = 64
FEW_TOKENS = 8
"""Of them once more by themselves: few tokens have kernels of their own."""
CHECK_LIMIT = 5e-3
"""Relative error of the checked output. Rounding to bf16 is 1.7e-3; a wrong weight in a thousand is 3e-2."""

logger = init_logger(f"vllm.{__name__}")


class GpuExperts(GptOssMxfp4MoEMethod):
    """vLLM's method for MXFP4 experts with this package's router and products in front of it.

    It routes itself: `apply_monolithic` takes tokens where other methods take router logits.
    """

    router: nn.Module | None = None
    attention_name: str | None = None
    """The layer whose slot mapping says which rows pad a captured batch."""

    def __init__(self, moe: FusedMoEConfig, state: ExpertsState) -> None:
        super().__init__(moe)
        self.state = state

    @property
    def is_monolithic(self) -> bool:
        return True

    def get_fused_moe_quant_config(self, layer: RoutedExperts) -> FusedMoEQuantConfig | None:
        return super().get_fused_moe_quant_config(layer) if self.vllm_computes else None

    def process_weights_after_loading(self, layer: RoutedExperts) -> None:
        """Put the weights in the order of both kernels; check ours on the first layer of a model."""
        shares_layout = current_platform.is_device_capability(90) and self.mxfp4_backend == Mxfp4MoeBackend.TRITON
        self.vllm_computes = shares_layout and layer.hidden_size >= SMALLEST_FOR_VLLM
        self._refuse_large_scales(layer)
        check = SelfCheck(layer) if self.state.own and not self.state.checked else None
        self.experts = _take_weights(layer)
        if self.vllm_computes:
            self.w13_precision_config, self.w2_precision_config = vllm_experts.wrap(layer, self.experts)
            self.moe_quant_config = self.get_fused_moe_quant_config(layer)
            self.moe_kernel = make_mxfp4_moe_kernel(
                moe_quant_config=self.moe_quant_config,
                moe_config=self.moe,
                mxfp4_backend=self.mxfp4_backend,
                experts_cls=self.experts_cls,
                routing_tables=layer._expert_routing_tables(),
            )
            self.moe_kernel.fused_experts.process_weights_after_loading(layer)
            if not self.state.warmed_up:
                self.state.warmed_up = True
                PromptWarmup(layer).register_warmup()
        if check is not None:
            self.state.checked = True
            self._judge(check.error(self.experts))

    def _refuse_large_scales(self, layer: RoutedExperts) -> None:
        largest = max(int(layer.w13_weight_scale.max()), int(layer.w2_weight_scale.max()))
        if self.state.own and largest > ops.LARGEST_SCALE:
            self._give_up(f"take scale bytes up to {ops.LARGEST_SCALE}, and the checkpoint has {largest}")

    def _judge(self, error: float) -> None:
        if not error <= CHECK_LIMIT:
            self._give_up(f"are off by {error:.1e} (limit {CHECK_LIMIT:.1e}) on one layer and {CHECKED_TOKENS} tokens")

    def _give_up(self, what: str) -> None:
        if not self.vllm_computes:
            raise RuntimeError(f"this package's expert kernels {what}, and vLLM's do not take this checkpoint")
        logger.warning("This package's expert kernels %s: vLLM's are used.", what)
        self.state.own = False

    def apply_monolithic(
        self,
        layer: RoutedExperts,
        x: torch.Tensor,
        router_logits: torch.Tensor,
        input_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """x [M, H], and again as router_logits; returns [M, H], this rank's part of the sum."""
        # Runs while a graph is captured: a captured batch size costs nothing to choose for.
        if self.state.own and (len(x) <= ops.MAX_ROUTED_TOKENS or not self.vllm_computes):
            return ops.routed_experts(
                x,
                self.router.weight,
                self.router.bias,
                self.experts,
                layer.top_k,
                layer.swiglu_alpha,
                layer.swiglu_limit,
                self._slot_mapping(),
            )
        # Not through the layer: many tokens outside of a graph wait for Python.
        logits = F.linear(x, self.router.weight, self.router.bias)
        if len(x) > ops.MAX_ROUTED_TOKENS:
            return vllm_experts.many_tokens(layer, x, logits, self.moe_quant_config)
        return super().apply_monolithic(layer, x, logits, input_ids)

    def _slot_mapping(self) -> torch.Tensor | None:
        """Where vLLM writes the keys of each row, negative for rows that pad a captured batch."""
        slots = get_forward_context().slot_mapping if is_forward_context_available() else None
        # A list belongs to a batch in two halves.
        return slots.get(self.attention_name) if isinstance(slots, dict) else None


class SelfCheck:
    """The products of one layer, before its weights are put in order and after, on random tokens and experts."""

    def __init__(self, layer: RoutedExperts) -> None:
        weight = layer.w13_weight
        generator = torch.Generator(weight.device).manual_seed(0)
        self.alpha, self.limit = layer.swiglu_alpha, layer.swiglu_limit
        shape = (CHECKED_TOKENS, layer.hidden_size)
        self.x = torch.randn(shape, generator=generator, device=weight.device, dtype=torch.bfloat16)
        scores = torch.rand(CHECKED_TOKENS, len(weight), generator=generator, device=weight.device)
        weights, ids = scores.topk(layer.top_k)
        self.routings = [ops.group_pairs(weights[:n], ids[:n].int(), len(weight)) for n in (CHECKED_TOKENS, FEW_TOKENS)]
        self.expected = ops.mxfp4_experts(
            self.x.float(),
            weights,
            ids,
            weight.data,
            layer.w13_weight_scale.data,
            layer.w13_bias.data,
            layer.w2_weight.data,
            layer.w2_weight_scale.data,
            layer.w2_bias.data,
            self.alpha,
            self.limit,
        )

    def error(self, experts: ops.SwizzledExperts) -> float:
        """The larger relative error of the kernels' outputs; NaN where one is not a number."""
        errors = []
        for routing in self.routings:
            x, expected = self.x[: len(routing.ids)], self.expected[: len(routing.ids)]
            y = ops.expert_products(x, routing, experts, self.alpha, self.limit).float()
            errors.append((y - expected).norm() / expected.norm())
        return torch.stack(errors).max().item()


def _take_weights(layer: RoutedExperts) -> ops.SwizzledExperts:
    """The layer's parameters, swizzled in place where the bytes allow, biases in fp32; the layer lets go of them."""
    # New tensors that stay come first, into memory that no temporary holds: the allocator keeps a segment as long as
    # anything lies in it.
    torch.cuda.empty_cache()
    w13_scales, w2_scales = (ops.swizzle_scales(w.data) for w in (layer.w13_weight_scale, layer.w2_weight_scale))
    w13_bias, w2_bias = layer.w13_bias.data.float(), layer.w2_bias.data.float()
    w13, w2 = _swizzle(layer.w13_weight.data), _swizzle(layer.w2_weight.data)
    experts = ops.SwizzledExperts(w13, w13_scales, w13_bias, w2, w2_scales, w2_bias)
    for name in ("w13_weight", "w13_weight_scale", "w13_bias", "w2_weight", "w2_weight_scale", "w2_bias"):
        delattr(layer, name)
    return experts


def _swizzle(blocks: torch.Tensor) -> torch.Tensor:
    num_experts, rows, half_columns = blocks.shape
    step = max(1, CHUNK_BYTES // (rows * half_columns))
    chunks = (ops.swizzle_blocks(blocks[i : i + step]) for i in range(0, num_experts, step))
    if rows % 16 or half_columns % 32:
        return torch.cat(list(chunks))
    # The same bytes in another order: a second copy of the model would not fit beside it.
    out = blocks.view(torch.int32).view(num_experts, rows // 4, half_columns)
    for i, chunk in enumerate(chunks):
        out[i * step : i * step + len(chunk)] = chunk
    return out
