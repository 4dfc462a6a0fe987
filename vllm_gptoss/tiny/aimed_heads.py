"""Attention biases that make heads of random weights look at a chosen distance.

With q and k biases that are one vector per pair of dimensions, k's rotated by the angle of distance d,

    logit(q at p, k at p - x) = rise / n * sum_i cos(inv_freq_i * (x - d)) + (peak - rise) + content

which is `peak` at x = d and falls off on both sides. The constant comes from the slowest frequencies. It keeps the
logits that matter small, where bf16 is fine-grained.

- Sliding layers turn every second head of a group to the edge of the window, with the frequencies that YaRN keeps:
  a key too many or too few has weight.
- Full layers turn each head to a distance of its own, with frequencies on YaRN's ramp: the rounding of that ramp
  (`truncate`) moves the peak by a few tokens.
"""

import math
from dataclasses import dataclass

import torch

from vllm_gptoss.kernels.rope import yarn_inv_freq_ref
from vllm_gptoss.model.config import ModelArgs

CONTENT_BIAS = 0.5
"""Deviation of the biases that aim at nothing."""


@dataclass(frozen=True)
class Aim:
    """How far the peak rises above the mean of its waves, where it ends, and at which distances it stands."""

    rise: float
    peak: float
    nearest: float
    farthest: float


TO_THE_EDGE = Aim(rise=8, peak=3, nearest=-0.5, farthest=-0.5)
"""Distances from the window: the last key in it and the first behind it."""

FAR = Aim(rise=44, peak=6, nearest=250, farthest=300)


def aimed_biases(args: ModelArgs, layer: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Biases of q `[heads * D]` and k `[kv_heads * D]`, fp32."""
    window = args.windows[layer]
    aim = FAR if window is None else TO_THE_EDGE
    inv_freq, gain, kept, blended, slow = frequencies(args)
    waves = blended if window is None else kept
    group = args.num_heads // args.num_kv_heads

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    direction = normal(args.num_kv_heads, 1, 2, args.head_dim // 2)
    direction /= direction.norm(dim=2, keepdim=True)
    distance = torch.empty(args.num_kv_heads, group, 1)
    distance.uniform_(aim.nearest, aim.farthest, generator=generator).add_(window or 0)
    wave_norm = math.sqrt(aim.rise / gain / max(waves.sum().item(), 1))
    slow_norm = math.sqrt((aim.rise - aim.peak) / gain / max(slow.sum().item(), 1))

    q = CONTENT_BIAS * normal(args.num_kv_heads, group, 2, args.head_dim // 2)
    k = CONTENT_BIAS * normal(args.num_kv_heads, 1, 2, args.head_dim // 2)
    k = torch.where(waves, wave_norm * direction, torch.where(slow, slow_norm * direction, k))
    aimed = torch.where(waves, wave_norm * turned(direction, -distance * inv_freq), q)
    aimed = torch.where(slow, -slow_norm * direction, aimed)
    chosen = torch.ones(group, dtype=torch.bool) if window is None else torch.arange(group) % 2 == 0
    return torch.where(chosen[:, None, None], aimed, q).flatten(), k.flatten()


def turned(vectors: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """`vectors` [..., 2, D/2] rotated by `angle` [..., D/2]."""
    x, y = vectors.unbind(dim=-2)
    return torch.stack((x * angle.cos() - y * angle.sin(), y * angle.cos() + x * angle.sin()), dim=-2)


def frequencies(args: ModelArgs) -> tuple[torch.Tensor, float, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Frequencies, the factor from products to logits, and masks of those kept, in mid-ramp, and divided."""
    rope = args.rope
    inv_freq, concentration = yarn_inv_freq_ref(
        args.head_dim, rope.theta, rope.factor, rope.beta_fast, rope.beta_slow, rope.original_max_positions, False
    )
    plain = rope.theta ** (-torch.arange(args.head_dim // 2) / (args.head_dim // 2))
    ramp = (1 - inv_freq / plain) / (1 - 1 / rope.factor)
    gain = concentration**2 / math.sqrt(args.head_dim)
    return inv_freq, gain, ramp < 0.01, (ramp > 0.25) & (ramp < 0.7), ramp > 0.99
