"""Rotary position embedding over the two halves of a head, with YaRN's frequencies.

    angle[m, i] = position[m] * inv_freq[i]
    y[:D/2] = x[:D/2] * cos - x[D/2:] * sin
    y[D/2:] = x[D/2:] * cos + x[:D/2] * sin

YaRN keeps the frequencies that turn more than `beta_fast` times within the original context, divides those
that turn less than `beta_slow` times by `factor`, and blends linearly between. cos and sin carry the
concentration 0.1 ln(factor) + 1.

Layout: x [M, heads, D]; cos and sin fp32 [M, D/2], one column a pair of dimensions (i, i + D/2).

Source: Su et al. 2021, arXiv 2104.09864; Peng et al. 2023 (YaRN), arXiv 2309.00071, section 3.
"""

import math

import torch


def yarn_ramp_ref(
    head_dim: int,
    theta: float,
    beta_fast: float,
    beta_slow: float,
    original_max_positions: int,
    truncate: bool,
) -> tuple[float, float]:
    """Where the blend begins and ends, as (fractional, unless `truncate`) frequency indices."""

    def index_of(turns: float) -> float:
        # theta ** (-2 i / D) * positions = 2 pi * turns, solved for i.
        return head_dim * math.log(original_max_positions / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = index_of(beta_fast), index_of(beta_slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    return max(low, 0), min(high, head_dim - 1)


def yarn_inv_freq_ref(
    head_dim: int,
    theta: float,
    factor: float,
    beta_fast: float,
    beta_slow: float,
    original_max_positions: int,
    truncate: bool,
) -> tuple[torch.Tensor, float]:
    """Frequencies in radians a position, fp32 [D/2] on the CPU, and the concentration of cos and sin."""
    low, high = yarn_ramp_ref(head_dim, theta, beta_fast, beta_slow, original_max_positions, truncate)
    index = torch.arange(head_dim // 2, dtype=torch.float32, device="cpu")
    # fp32, and in the reference's order of operations: far positions multiply every last bit.
    wavelengths = theta ** (2 * index / head_dim)
    # A ramp of no width becomes a step.
    kept = 1 - ((index - low) / max(high - low, 1e-3)).clamp_(0, 1)
    inv_freq = 1 / (factor * wavelengths) * (1 - kept) + 1 / wavelengths * kept
    concentration = 0.1 * math.log(factor) + 1 if factor > 1 else 1.0
    return inv_freq, concentration


def rope_cos_sin_ref(
    positions: torch.Tensor, inv_freq: torch.Tensor, concentration: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin, fp32 [M, D/2], of integer `positions` [M]. The angle is an fp32 product."""
    angles = positions.float()[:, None] * inv_freq
    return angles.cos().mul_(concentration), angles.sin().mul_(concentration)


def rope_ref(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """`x` [M, heads, D] rotated: contiguous, same dtype, fp32 inside, one rounding. Any strides."""
    cos, sin = cos[:, None], sin[:, None]  # [M, 1, D/2]
    # Without `out=`: on a GPU the compiler traces this and fuses it with what stands around it.
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)
