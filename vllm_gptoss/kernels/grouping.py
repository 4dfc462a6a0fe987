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


class Routing(NamedTuple):
    """What the experts need to know of a batch. Experts are local ids where there is an `expert_map`."""

    weights: torch.Tensor  # [M, K] fp32, 0 in padding rows
    ids: torch.Tensor  # [M, K] int32, -1 in padding rows and for experts held elsewhere
    pairs: torch.Tensor  # [M * K] int32, by expert, ascending within one; -1 behind the last
    tile_expert: torch.Tensor  # [T] int32, ascending; 0 behind the last tile
    tile_start: torch.Tensor  # [T] int32, where the tile begins in `pairs`; 0 behind the last tile
    tile_count: torch.Tensor  # [T] int32, at most `tile`; 0 behind the last tile


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
def _store_tile(tile_expert_ptr, tile_start_ptr, tile_count_ptr, first, i, experts, starts, counts, tile: tl.constexpr):
    """Tile `i` of each of `experts` that has so many; its first is tile `first` of all."""
    mask = i * tile < counts
    tl.store(tile_expert_ptr + first + i, experts, mask)
    tl.store(tile_start_ptr + first + i, starts + i * tile, mask)
    tl.store(tile_count_ptr + first + i, tl.minimum(counts - i * tile, tile), mask)


@triton.jit
def _store_tiles(
    starts, counts, experts, tile_expert_ptr, tile_start_ptr, tile_count_ptr, num_tiles,
    tile: tl.constexpr, max_rows: tl.constexpr, max_num_tiles: tl.constexpr,
):  # fmt: skip
    tiles = (counts + tile - 1) // tile
    first = tl.cumsum(tiles) - tiles
    most: tl.constexpr = (max_rows + tile - 1) // tile
    if most <= 8:
        for i in tl.static_range(most):
            _store_tile(tile_expert_ptr, tile_start_ptr, tile_count_ptr, first, i, experts, starts, counts, tile)
    else:
        for i in range(0, tl.max(tiles)):
            _store_tile(tile_expert_ptr, tile_start_ptr, tile_count_ptr, first, i, experts, starts, counts, tile)
    at = tl.arange(0, max_num_tiles)
    is_unused = (at >= tl.sum(tiles)) & (at < num_tiles)
    tl.store(tile_expert_ptr + at, 0, mask=is_unused)
    tl.store(tile_start_ptr + at, 0, mask=is_unused)
    tl.store(tile_count_ptr + at, 0, mask=is_unused)


@triton.jit
def group(
    chosen_by, ids, experts, pairs_ptr, tile_expert_ptr, tile_start_ptr, tile_count_ptr, num_tokens, num_tiles,
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
    at = tl.arange(0, max_rows * slots)
    token, slot = at // slots, at % slots
    pair = token * top_k + slot
    found = tl.gather(chosen_by, tl.maximum(ids, 0) * words + token // ROW, 0)
    place = (found >> ROW) + _popcount(found & ((1 << (token % ROW)) - 1))
    tl.store(pairs_ptr + place, pair, mask=ids >= 0)
    is_pair = (token < num_tokens) & (slot < top_k)
    tl.store(pairs_ptr + pair, -1, mask=is_pair & (pair >= tl.sum(counts)))
    _store_tiles(
        starts, counts, experts, tile_expert_ptr, tile_start_ptr, tile_count_ptr, num_tiles, tile, max_rows,
        max_num_tiles,
    )  # fmt: skip


def group_ref(ids: torch.Tensor, num_experts: int, tile: int) -> tuple[torch.Tensor, ...]:
    """`pairs`, `tile_expert`, `tile_start` and `tile_count` of `ids` [M, K], as `Routing` lays them out."""
    pairs, tiles = [], []
    for expert in range(num_experts):
        members = (ids.flatten() == expert).nonzero()[:, 0].tolist()
        tiles += [(expert, len(pairs) + i, min(tile, len(members) - i)) for i in range(0, len(members), tile)]
        pairs += members
    pairs += [-1] * (ids.numel() - len(pairs))
    tiles += [(0, 0, 0)] * (max_tiles(*ids.shape, num_experts, tile) - len(tiles))
    ints = functools.partial(torch.tensor, dtype=torch.int32, device=ids.device)
    return ints(pairs), *ints(tiles).view(-1, 3).T.contiguous().unbind()
