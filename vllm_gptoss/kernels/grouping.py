"""Grouping: the pairs of tokens and chosen experts, sorted by expert and cut into tiles.

Pair p is slot p % K of token p // K. An expert's pairs stand together, ascending, and are cut into tiles of a fixed
size; experts ascend. A token chooses an expert once. So words of 16 bits, one for each expert and row of 16 tokens,
say who chose whom, and a pair's place among its expert's is the number of bits set for tokens before its own.
"""

import functools
from typing import NamedTuple

import torch
import triton
import triton.language as tl

ROW = tl.constexpr(16)
"""Tokens of a word."""
MAX_PAIRS = (1 << 15) - 1
"""What 15 bits count: a place stands above the bits of a row, in a word of 32 with a sign."""


TILE_EXPERT = tl.constexpr(256)
"""Of a tile's word: more than a tile has pairs."""


class Routing(NamedTuple):
    """What the experts need to know of a batch. Experts are local ids where there is an `expert_map`."""

    weights: torch.Tensor  # [M, K] fp32, 0 in padding rows
    ids: torch.Tensor  # [M, K] int32, -1 in padding rows and for experts held elsewhere
    tiles: torch.Tensor  # [T] int32, TILE_EXPERT * expert + pairs of the tile; experts ascend; 0 behind the last tile
    pairs: torch.Tensor  # [T, tile] int32, those of each tile, ascending; anything behind the last of a tile


def max_tiles(num_tokens: int, top_k: int, num_experts: int, tile: int) -> int:
    """T: the most tiles that any choice of experts needs."""
    pairs = num_tokens * top_k
    used = min(num_experts, pairs)
    return min(used + (pairs - used) // tile, used * -(-num_tokens // tile))


@triton.jit
def _popcount(bits):
    """Bits set in each int32, of the lower 16."""
    bits -= (bits >> 1) & 0x5555
    bits = (bits & 0x3333) + ((bits >> 2) & 0x3333)
    bits = (bits + (bits >> 4)) & 0x0F0F
    return (bits + (bits >> 8)) & 0x1F


@triton.jit
def _store_tiles(
    first, counts, experts, tiles_ptr, num_tiles,
    tile: tl.constexpr, max_rows: tl.constexpr, max_num_tiles: tl.constexpr,
):  # fmt: skip
    """Of each expert its tiles, beginning with tile `first` of all; zeros behind the last expert's."""
    tiles = (counts + tile - 1) // tile
    most: tl.constexpr = (max_rows + tile - 1) // tile
    if most <= 8:
        for i in tl.static_range(most):
            held = tl.minimum(counts - i * tile, tile)
            tl.store(tiles_ptr + first + i, experts * TILE_EXPERT + held, mask=held > 0)
    else:
        for i in range(0, tl.max(tiles)):
            held = tl.minimum(counts - i * tile, tile)
            tl.store(tiles_ptr + first + i, experts * TILE_EXPERT + held, mask=held > 0)
    at = tl.arange(0, max_num_tiles)
    tl.store(tiles_ptr + at, 0, mask=(at >= tl.sum(tiles)) & (at < num_tiles))


@triton.jit
def group(
    chosen_by, ids, experts, tiles_ptr, pairs_ptr, num_tiles,
    top_k: tl.constexpr, tile: tl.constexpr, max_rows: tl.constexpr, max_num_tiles: tl.constexpr,
):  # fmt: skip
    """Sort pairs by expert and cut tiles. `ids`: int32 [max_rows * slots], -1 where there is no pair; slots >= top_k.

    Bit m of int32 `chosen_by` [experts * words], words = max_rows / ROW, says of a row if its token m chose the expert.
    """
    words: tl.constexpr = max_rows // ROW
    slots: tl.constexpr = ids.shape[0] // max_rows
    counts = _popcount(chosen_by)
    # Words stand in the order of pairs. Where those of a word begin stands above its bits: one gather finds both.
    starts = tl.cumsum(counts) - counts
    chosen_by |= starts << ROW
    if words > 1:
        last = tl.gather(chosen_by, experts * words + words - 1, 0)
        starts = tl.gather(chosen_by, experts * words, 0) >> ROW
        counts = (last >> ROW) + _popcount(last) - starts
    tiles = (counts + tile - 1) // tile
    first = tl.cumsum(tiles) - tiles
    _store_tiles(first, counts, experts, tiles_ptr, num_tiles, tile, max_rows, max_num_tiles)
    at = tl.arange(0, max_rows * slots)
    token, slot = at // slots, at % slots
    expert = tl.maximum(ids, 0)
    found = tl.gather(chosen_by, expert * words + token // ROW, 0)
    place = (found >> ROW) + _popcount(found & ((1 << (token % ROW)) - 1))
    # From its place among all pairs to that in its expert's tiles, of which the last may have room behind it.
    place += tl.gather(first * tile - starts, expert, 0)
    tl.store(pairs_ptr + place, token * top_k + slot, mask=ids >= 0)


def group_ref(ids: torch.Tensor, num_experts: int, tile: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`tiles` and `pairs` of `ids` [M, K], as `Routing` lays them out; -1 behind the last pair of a tile."""
    tiles, pairs = [], []
    for expert in range(num_experts):
        members = (ids.flatten() == expert).nonzero()[:, 0].tolist()
        for begin in range(0, len(members), tile):
            held = members[begin : begin + tile]
            tiles.append(TILE_EXPERT.value * expert + len(held))
            pairs += held + [-1] * (tile - len(held))
    unused = max_tiles(*ids.shape, num_experts, tile) - len(tiles)
    ints = functools.partial(torch.tensor, dtype=torch.int32, device=ids.device)
    return ints(tiles + [0] * unused), ints(pairs + [-1] * (unused * tile)).view(-1, tile)
