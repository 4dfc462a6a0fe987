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


def pick_gate_up(num_pairs: int, num_experts: int, hopper: bool) -> ExpertConfig:
    """Few experts in use need every program; many want few reads of the tokens."""
    if num_pairs <= 16:
        return ExpertConfig(64 if num_pairs <= 8 else 128, tile_tokens(num_pairs, num_experts), stages=8)
    return _many_pairs(tile_tokens(num_pairs, num_experts), hopper, stages=4)


def pick_down(num_pairs: int, num_experts: int, hopper: bool) -> ExpertConfig:
    tokens = tile_tokens(num_pairs, num_experts)
    if num_pairs <= 16:
        return ExpertConfig(128, tokens, stages=8 if num_pairs <= 4 else 6, shares=2)
    return _many_pairs(tokens, hopper, stages=3 if tokens > 8 else 4, shares=2 if num_pairs <= 64 else 1)


def _many_pairs(tokens: int, hopper: bool, stages: int, shares: int = 1) -> ExpertConfig:
    # Wide tiles are for more warps: an accumulator of four would leave no registers for the weights.
    if tokens >= 64:
        return ExpertConfig(128, tokens, 3, shares, warps=8, warpgroup=hopper)
    return ExpertConfig(128, tokens, stages, shares, warpgroup=hopper and tokens > 8)


def pick_dense(num_tokens: int, rows: int, columns: int) -> DenseConfig:
    """Of weights [rows, columns]: two or three programs for each of an H200's 132 processors, which all run at once."""
    tokens = max(8, 1 << (num_tokens - 1).bit_length())
    if tokens == 8:
        tile_rows, step, stages, programs = 64, 128, 4, 360
    elif tokens == 16:
        tile_rows, step, stages, programs = 64, 64, 6, 330
    else:
        tile_rows, step, stages, programs = 128, 64, 4, 264
    shares = min(programs // -(-rows // tile_rows), columns // 256, 8)
    return DenseConfig(tile_rows, tokens, step, stages, max(1, shares))
