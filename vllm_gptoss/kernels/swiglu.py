"""The gated activation of gpt-oss: clamped SwiGLU with one added to the linear half.

    g = min(gate, limit);  u = clamp(up, -limit, limit);  y = g * sigmoid(alpha * g) * (u + 1)

Layout: x [M, 2I] alternates gate and up: gate = x[:, 0::2], up = x[:, 1::2].

Source: the gpt-oss model card, arXiv 2508.10925, section 2.2; `swiglu_limit` of `config.json`.
"""

import torch


def swiglu_ref(x: torch.Tensor, alpha: float, limit: float) -> torch.Tensor:
    """Activation [M, I] of `x` [M, 2I], in its dtype: fp32 inside, one cast. Any strides."""
    wide = x.float()
    gate = wide[..., 0::2].clamp(max=limit)
    up = wide[..., 1::2].clamp(min=-limit, max=limit)
    return up.add_(1).mul_(gate).mul_(gate.mul_(alpha).sigmoid_()).to(x.dtype)
