"""vLLM's expert kernels for prompts of all lengths, compiled before the first request: by its registry of warm-ups."""

import torch
from vllm.config import VllmConfig
from vllm.model_executor.layers.fused_moe.routed_experts import RoutedExperts
from vllm.model_executor.warmup.jit_warmup import VllmJitKernel

from vllm_gptoss import ops
from vllm_gptoss.model import vllm_experts

LARGEST = 4096
"""Tokens of a step beyond which there are no other variants: all tiles are full."""


class PromptWarmup(VllmJitKernel[int]):
    """Runs one layer of experts, whose shapes are those of all, on every number of rows that may bring a variant."""

    def __init__(self, layer: RoutedExperts) -> None:
        super().__init__()
        self.layer = layer

    def get_warmup_keys(self, vllm_config: VllmConfig) -> list[int]:
        most = min(vllm_config.scheduler_config.max_num_batched_tokens, LARGEST)
        first, last = (vllm_experts.padded_rows(tokens) for tokens in (ops.MAX_ROUTED_TOKENS + 1, most))
        return list(range(first, last + 1, vllm_experts.ROWS))

    @torch.inference_mode()
    def compile(self, compile_key: int) -> None:
        method = self.layer.quant_method
        router = method.router.weight
        x = torch.zeros(compile_key, router.shape[1], dtype=router.dtype, device=router.device)
        method.apply_monolithic(self.layer, x, x)
