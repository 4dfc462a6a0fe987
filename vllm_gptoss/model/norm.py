"""RMSNorm: vLLM's layer, computed by our own operation where vLLM has no kernels."""

import torch
from vllm.model_executor.layers.layernorm import RMSNorm as VllmRMSNorm

from vllm_gptoss import ops


class RMSNorm(VllmRMSNorm):
    """On CUDA vLLM's layer, so that its compiler passes fuse it; on our platform `ops.rmsnorm`."""

    def forward_oot(
        self, x: torch.Tensor, residual: torch.Tensor | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """x and residual [M, H]; returns the norm, and with a residual also `x + residual`."""
        return ops.rmsnorm(x, self.weight, self.variance_epsilon, residual)
