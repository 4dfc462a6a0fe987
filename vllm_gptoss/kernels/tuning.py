"""Launch parameters, by what decides them. Measured offline; nothing tunes itself while serving."""

from typing import NamedTuple


class ExpertConfig(NamedTuple):
    rows: int
    """Weight rows of a program, 64 or 128."""
    tokens: int
    """Tokens of a tile: 8, 16, 32 or 64."""
    stages: int
    """Steps in the ring."""
    shares: int = 1
    """Programs that split the columns of a row."""


def tile_tokens(num_pairs: int, num_experts: int) -> int:
    """Pairs of a tile, such that most experts have one."""
    mean = num_pairs / num_experts
    return 8 if mean <= 2 else 16 if mean <= 8 else 32


def pick_gate_up(num_pairs: int, num_experts: int) -> ExpertConfig:
    """Few experts in use need every program; many want few reads of the tokens."""
    return ExpertConfig(64 if num_pairs <= 4 else 128, tile_tokens(num_pairs, num_experts), stages=4)


def pick_down(num_pairs: int, num_experts: int) -> ExpertConfig:
    tokens = tile_tokens(num_pairs, num_experts)
    if num_pairs <= 4:
        return ExpertConfig(64, tokens, stages=4, shares=2)
    return ExpertConfig(128, tokens, stages=4, shares=2 if num_pairs <= 32 else 1)
