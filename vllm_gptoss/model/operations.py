"""Operations that the compiler does not look into.

vLLM's compiler traces a model once for all numbers of tokens: a choice by their number has to stand inside of an
operation, and so does what keeps a result where another operation finds it, and what it would make a bad kernel for.
"""

import functools

import torch
import torch.nn.functional as F
from torch.library import Library
from vllm.utils.torch_utils import direct_register_custom_op

from vllm_gptoss import ops

NAME = "vllm_gptoss"
"""Where torch keeps them: `torch.ops.vllm_gptoss`."""


@functools.cache
def register_operations() -> Library:
    """Once a process, and kept: an operation ends with its library."""
    library = Library(NAME, "FRAGMENT")
    register = functools.partial(direct_register_custom_op, target_lib=library)
    register("embedding", _embedding, fake_impl=_embedding_shape)
    register("linear", _linear, fake_impl=_linear_shape)
    register("rmsnorm", _rmsnorm, fake_impl=_rmsnorm_shape)
    register("add_rmsnorm", _add_rmsnorm, fake_impl=_add_rmsnorm_shape)
    register("hold_angles", _hold_angles, mutates_args=["held"], fake_impl=_hold_angles_shape)
    return library


def _embedding(ids: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return F.embedding(ids, weight)


def _embedding_shape(ids: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return weight.new_empty(ids.shape[0], weight.shape[1])


def _linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return ops.dense(x, weight, bias)


def _linear_shape(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    # `len` would be a number of this trace.
    return x.new_empty(x.shape[0], weight.shape[0])


def _rmsnorm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return ops.decode_rmsnorm(x, weight, eps)


def _rmsnorm_shape(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return torch.empty_like(x)


def _add_rmsnorm(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    return ops.decode_rmsnorm(x, weight, eps, residual)


def _add_rmsnorm_shape(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(x), torch.empty_like(x)


def _hold_angles(cos: torch.Tensor, sin: torch.Tensor, held: torch.Tensor) -> None:
    # Copies of memory, not kernels: no launch overlaps them, so attention may read what they wrote before it waits.
    held[0, : len(cos)] = cos
    held[1, : len(sin)] = sin


def _hold_angles_shape(cos: torch.Tensor, sin: torch.Tensor, held: torch.Tensor) -> None:
    return None
