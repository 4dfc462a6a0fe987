"""Root-mean-square normalisation, with the addition of the residual stream in front of it.

    s = x + residual                               in the dtype of x
    y = s / sqrt(mean(s ** 2) + eps) * weight      in fp32, one cast at the end

Layout: one row of [M, H] a token; any strides.

Source: Zhang and Sennrich 2019, arXiv 1910.07467; the rounding points of gpt-oss.
"""

from typing import overload

import torch


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
    total = x if residual is None else x + residual
    wide = total.float()
    scale = wide.square().mean(dim=-1, keepdim=True).add_(eps).rsqrt_()
    normed = (wide * scale).mul_(weight.float()).to(x.dtype)
    return normed if residual is None else (normed, total)
