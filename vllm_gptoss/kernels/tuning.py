"""Launch parameters, by what decides them. Measured offline; nothing tunes itself while serving."""

from typing import NamedTuple


class ExpertConfig(NamedTuple):
    rows: int
    """Weight rows of a program: 64, 128 or 256, and at least 16 for each warp along them."""
    tokens: int
    """Tokens of a tile: 8 to 128."""
    stages: int
    """Bursts in the ring."""
    shares: int = 1
    """Programs that split the columns of a row."""
    warps: int = 4
    warpgroup: bool = False
    """Hopper's products of four warps together, which leave the tokens in shared memory."""
    burst: int = 1
    """Steps of columns that arrive, and are waited for, together."""
    column_warps: int = 1
    """Warps that split the columns of a step, where the others split its rows; not with a warpgroup."""
    registers: int | None = None
    """The most that a thread may have, so that more programs run at once; None for as many as the compiler likes."""


class DenseConfig(NamedTuple):
    rows: int
    """Weight rows of a program: a multiple of 16."""
    tokens: int
    """Of its tile, which has room for all: 8 or 16."""
    stages: int
    """Bursts in the ring."""
    burst: int = 1
    """Steps that are waited for together, of 64 columns a warp."""
    warps: int = 4
    """Which split the columns."""
    ahead: int = 64
    """Steps whose tokens are on their way or in registers."""
    registers: int | None = None
    """The most that a thread may have; None for as many as the compiler likes."""


class WideDenseConfig(NamedTuple):
    rows: int
    """Weight rows of a program: 32 or 64."""
    stages: int
    """Steps in the ring, of 128 columns."""
    warps: int = 4
    """4 or 8."""


def tile_tokens(num_pairs: int, num_experts: int) -> int:
    """Pairs of a tile, such that most experts have one."""
    mean = num_pairs / num_experts
    return 8 if mean <= 2 else 16 if mean <= 8 else 32 if mean <= 24 else 64


def pick_gate_up(num_pairs: int, num_experts: int, hopper: bool) -> ExpertConfig:
    """Few experts in use need long rings, and one token many programs; many want few reads of the tokens."""
    tokens = tile_tokens(num_pairs, num_experts)
    if num_pairs <= 4:
        return ExpertConfig(64, tokens, stages=5, burst=2)
    if num_pairs <= 8:
        return ExpertConfig(128, tokens, stages=3, burst=2)
    if tokens == 8 and num_pairs <= 32:
        return ExpertConfig(64, tokens, stages=3, burst=2)
    if tokens >= 64 and hopper:
        # Four programs of four warps at once, and no register to spare: down would spill.
        return ExpertConfig(128, tokens, stages=2, warpgroup=True, registers=128)
    return _many_pairs(tokens, hopper)


def pick_down(num_pairs: int, num_experts: int, hopper: bool) -> ExpertConfig:
    tokens = tile_tokens(num_pairs, num_experts)
    if num_pairs <= 4:
        return ExpertConfig(64, tokens, stages=4, shares=4)
    if num_pairs <= 8:
        return ExpertConfig(128, tokens, stages=3, shares=2, burst=2)
    if tokens == 8:
        return ExpertConfig(64, tokens, stages=3, burst=2)
    return _many_pairs(tokens, hopper)


def _many_pairs(tokens: int, hopper: bool) -> ExpertConfig:
    if tokens <= 16:
        return ExpertConfig(128, tokens, stages=2, burst=2, warpgroup=hopper and tokens == 16)
    # Wide tiles are for more warps: each of four would hold twice the accumulator.
    if tokens >= 64:
        return ExpertConfig(128, tokens, stages=3, warps=8, warpgroup=hopper)
    return ExpertConfig(128, tokens, stages=4, warpgroup=hopper)


def pick_dense(num_tokens: int, rows: int, columns: int) -> DenseConfig:
    """Of weights [rows, columns]: programs that all run at once on an H200, with as long rings as there is room for."""
    tokens = max(8, 1 << (num_tokens - 1).bit_length())
    tile_rows, warps, burst, processors = 16, 4, 2, 132
    at_once = -(-rows // (tile_rows * processors))
    # Ada and consumer Blackwell let a program have 99 KiB.
    slots = min(98 << 10, (225 << 10) // at_once) // (128 * warps * tile_rows)
    steps = -(-columns // (64 * warps))
    stages = max(1, min(slots, steps) // burst)
    ahead = 64 if tokens == 8 else 4
    return DenseConfig(tile_rows, tokens, stages, burst, warps, ahead, dense_registers(at_once, warps))


def dense_registers(at_once: int, warps: int) -> int:
    """For each thread of so many programs at once; fewer than 128 are not enough, then fewer run."""
    return max(128, min(255, (1 << 16) // (at_once * 32 * warps)) // 8 * 8)


def pick_wide_dense(rows: int, columns: int) -> WideDenseConfig:
    """Of weights [rows, columns]: as few reads of the tokens as leave most of an H200 something to do."""
    return WideDenseConfig(64 if rows >= 64 * 66 else 32, stages=5)
