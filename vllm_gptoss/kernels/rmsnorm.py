"""Root-mean-square normalisation, with the addition of the residual stream in front of it.

    s = x + residual                               in fp32; cast for the next residual
    y = s / sqrt(mean(s ** 2) + eps) * weight      in fp32, one cast at the end

Layout: one row of [M, H] a token; any strides.

The norm is that of the sum before its cast, as where vLLM's compiler joins the two.

Source: Zhang and Sennrich 2019, arXiv 1910.07467.
"""

from typing import overload

import torch
import triton
import triton.language as tl

from vllm_gptoss.kernels.dependent_launch import launches_dependently, let_successor_start, wait_for_predecessor


@triton.jit
def _rmsnorm_kernel(
    x, weight, residual, normed, total, eps, x_stride, residual_stride,
    width: tl.constexpr, block: tl.constexpr, dependent: tl.constexpr,
):  # fmt: skip
    """One row a program."""
    if dependent:
        let_successor_start()
    column = tl.arange(0, block)
    inside = column < width
    factor = tl.load(weight + column, mask=inside, other=0).to(tl.float32)
    if dependent:
        wait_for_predecessor()
    row = tl.program_id(0).to(tl.int64)
    value = tl.load(x + row * x_stride + column, mask=inside, other=0).to(tl.float32)
    if residual is not None:
        value += tl.load(residual + row * residual_stride + column, mask=inside, other=0).to(tl.float32)
        tl.store(total + row * width + column, value.to(x.dtype.element_ty), mask=inside)
    scale = tl.rsqrt(tl.sum(value * value) / width + eps)
    tl.store(normed + row * width + column, (value * scale * factor).to(x.dtype.element_ty), mask=inside)


@overload
def rmsnorm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor: ...
@overload
def rmsnorm(
    x: torch.Tensor, weight: torch.Tensor, eps: float, residual: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]: ...
def rmsnorm(
    x: torch.Tensor, weight: torch.Tensor, eps: float, residual: torch.Tensor | None = None
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """What `rmsnorm_ref` computes, in one launch: for few rows, since each is one program's.

    Rows of `x` and `residual` [M, H] may lie apart, their values may not. `weight` [H] is contiguous, and constant: it
    is read while the launch before may still write.

    Raises: ValueError for values that lie apart, and a `residual` of another shape or dtype than `x`.
    """
    if residual is not None and (residual.shape, residual.dtype) != (x.shape, x.dtype):
        raise ValueError(f"a residual {residual.dtype} {list(residual.shape)} for {x.dtype} {list(x.shape)}")
    for tensor in (x, weight) if residual is None else (x, weight, residual):
        if tensor.stride(-1) != 1:
            raise ValueError(f"the values of a row lie side by side, not {tensor.stride(-1)} apart")
    num_tokens, width = x.shape
    normed = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    total = None if residual is None else torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if num_tokens > 0:
        dependent = launches_dependently(x.device)
        _rmsnorm_kernel[num_tokens,](
            x, weight, residual, normed, total, eps, x.stride(0), 0 if residual is None else residual.stride(0),
            width, triton.next_power_of_2(width), dependent, num_warps=8, launch_pdl=dependent,
        )  # fmt: skip
    return normed if residual is None else (normed, total)


@overload
def rmsnorm_ref(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor: ...
@overload
def rmsnorm_ref(
    x: torch.Tensor, weight: torch.Tensor, eps: float, residual: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]: ...
def rmsnorm_ref(
    x: torch.Tensor, weight: torch.Tensor, eps: float, residual: torch.Tensor | None = None
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Norm of `x` [M, H] in its dtype; with `residual` [M, H] the norm of the sum, and the sum.

    `weight` [H] may have another dtype: the product is in fp32. Neither input is written.
    """
    wide = x.float() if residual is None else x.float() + residual.float()
    scale = wide.square().mean(dim=-1, keepdim=True).add_(eps).rsqrt_()
    normed = (wide * scale).mul_(weight.float()).to(x.dtype)
    return normed if residual is None else (normed, wide.to(x.dtype))
