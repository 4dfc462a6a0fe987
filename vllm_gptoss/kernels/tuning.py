"""Launch parameters, by what decides them. Measured offline; nothing tunes itself while serving."""

from typing import NamedTuple


class ExpertConfig(NamedTuple):
    rows: int
    """Weight rows of a program: 64, 128 or 256, and at least 16 a warp."""
    tokens: int
    """Tokens of a tile: 8 to 128."""
    stages: int
    """Steps in the ring."""
    shares: int = 1
    """Programs that split the columns of a row."""
    warps: int = 4
    warpgroup: bool = False
    """Hopper's products of four warps together, which leave the tokens in shared memory."""


class DenseConfig(NamedTuple):
    rows: int
    """Weight rows of a program: 16, 32, or a multiple of 64."""
    tokens: int
    """Of its tile, which has room for all: 8, 16, 32 or 64."""
    step: int
    """Columns of a step: 64 or 128."""
    stages: int
    """Steps in the ring."""
    shares: int = 1
    """Programs that split the columns of a row."""

    @property
    def warps(self) -> int:
        return min(4, self.rows // 16)


def tile_tokens(num_pairs: int, num_experts: int) -> int:
    """Pairs of a tile, such that most experts have one."""
    mean = num_pairs / num_experts
    return 8 if mean <= 2 else 16 if mean <= 8 else 32 if mean <= 24 else 64


def pick_gate_up(num_pairs: int, num_experts: int) -> ExpertConfig:
    """Few experts in use need every program; many want few reads of the tokens."""
    if num_pairs <= 4:
        return ExpertConfig(64, tile_tokens(num_pairs, num_experts), stages=4)
    return _many_pairs(tile_tokens(num_pairs, num_experts))


def pick_down(num_pairs: int, num_experts: int) -> ExpertConfig:
    tokens = tile_tokens(num_pairs, num_experts)
    if num_pairs <= 4:
        return ExpertConfig(64, tokens, stages=4, shares=2)
    return _many_pairs(tokens, shares=2 if num_pairs <= 32 else 1)


def _many_pairs(tokens: int, shares: int = 1) -> ExpertConfig:
    # Wide tiles are for more warps: an accumulator of four would leave no registers for the weights.
    return ExpertConfig(128, tokens, 3, shares, warps=8) if tokens >= 64 else ExpertConfig(128, tokens, 4, shares)


def pick_dense(num_tokens: int, rows: int, columns: int) -> DenseConfig:
    """Of weights [rows, columns]: about two programs for each of an H200's 132 processors, which all run at once."""
    tokens = max(8, 1 << (num_tokens - 1).bit_length())
    tile_rows, stages, programs = (64, 6, 330) if tokens <= 16 else (128, 4, 264)
    shares = min(programs // -(-rows // tile_rows), columns // 256, 8)
    return DenseConfig(tile_rows, tokens, step=64, stages=stages, shares=max(1, shares))
