"""Rotary position embedding with YaRN; its angles are made once a step and shared by all layers."""

from dataclasses import asdict

import torch
from torch import nn

from vllm_gptoss import ops
from vllm_gptoss.model.config import ModelArgs
from vllm_gptoss.model.operations import register_operations


class RotaryAngles(nn.Module):
    """Positions [M] to cos and sin fp32 [M, D/2], YaRN's concentration included."""

    inv_freq: torch.Tensor

    def __init__(self, args: ModelArgs) -> None:
        super().__init__()
        inv_freq, self.concentration = ops.yarn_inv_freq(args.head_dim, **asdict(args.rope))
        # vLLM builds the model under its device: a buffer made on the CPU has to follow.
        self.register_buffer("inv_freq", inv_freq.to(torch.get_default_device()), persistent=False)

    def forward(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return ops.rope_cos_sin(positions, self.inv_freq, self.concentration)


class HeldAngles(RotaryAngles):
    """Angles that attention finds where they were put, for it is called without them."""

    held: torch.Tensor

    def __init__(self, args: ModelArgs, max_tokens: int) -> None:
        super().__init__(args)
        register_operations()
        # One place for all steps: a CUDA graph holds its address.
        held = torch.zeros(2, max_tokens, args.head_dim // 2, dtype=torch.float32)
        self.register_buffer("held", held, persistent=False)

    def forward(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cos, sin = super().forward(positions)
        torch.ops.vllm_gptoss.hold_angles(cos, sin, self.held)
        return cos, sin
