"""Layers of vLLM with this package's operations in them: projections, norms, the embedding."""

import torch
from torch import nn
from vllm.config import VllmConfig
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod

from vllm_gptoss.model.kernel_choice import choose_kernels
from vllm_gptoss.model.norm import RMSNorm
from vllm_gptoss.model.operations import register_operations


class DecodeLinearMethod(UnquantizedLinearMethod):
    """A dense layer in bf16 by `ops.dense`, which chooses by the number of tokens."""

    def __init__(self) -> None:
        super().__init__()
        register_operations()

    def apply(self, layer: nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """x [M, K]; returns [M, N]."""
        return torch.ops.vllm_gptoss.linear(x, layer.weight, bias)


class DecodeRMSNorm(RMSNorm):
    """RMSNorm in a launch of its own, between launches that are this package's too."""

    def __init__(self, hidden_size: int, eps: float) -> None:
        super().__init__(hidden_size, eps=eps)
        register_operations()

    def forward(
        self, x: torch.Tensor, residual: torch.Tensor | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """x and residual [M, H]; returns the norm, and with a residual also `x + residual`."""
        if residual is None:
            return torch.ops.vllm_gptoss.rmsnorm(x, self.weight, self.variance_epsilon)
        return torch.ops.vllm_gptoss.add_rmsnorm(x, residual, self.weight, self.variance_epsilon)


class WholeEmbeddingMethod(UnquantizedEmbeddingMethod):
    """Rows of the embedding without a kernel of the compiler's, which tries its own on a second table of a gigabyte."""

    def __init__(self) -> None:
        super().__init__()
        register_operations()

    def embedding(self, layer: nn.Module, input_: torch.Tensor) -> torch.Tensor:
        """input_ [M]; returns [M, H]."""
        return torch.ops.vllm_gptoss.embedding(input_, layer.weight)


def norm_class(vllm_config: VllmConfig) -> type[RMSNorm]:
    """The norm that goes with the other kernels of a model."""
    return DecodeRMSNorm if choose_kernels(vllm_config).dense else RMSNorm
