"""Causal attention with one learned sink a query head, over keys and values in the blocks of a paged cache.

    p = softmax([scale * q @ k.T, sink])      over the visible keys and the sink
    y = p[:-1] @ v                            the sink takes its share and is dropped

Query position i sees key position j iff 0 <= i - j, and i - j < window on layers that have one.

Layout: q [M, Hq, D] holds the requests one after the other: request r owns the rows query_start[r] up to
query_start[r + 1], and they are the LAST positions of its seq_lens[r]. Position p of request r lies in block
block_table[r, p // block] of the caches [blocks, Hkv, block, D], at slot p % block. Query head h reads
key-value head h // (Hq / Hkv).

Source: Xiao et al. 2023 (attention sinks), arXiv 2309.17453; the gpt-oss model card, arXiv 2508.10925.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch

_TILE_VALUES = 1 << 22
"""fp32 numbers that the scores, or the keys, of one tile may take (16 MiB): near the size of a cache."""

_TILE_QUERIES = 128
"""Queries of one request in a tile. Under a window, longer tiles would mostly compute what they then hide."""


class _Tile(NamedTuple):
    """Some requests, and as many consecutive queries of each."""

    requests: list[int]  # [R]
    rows: list[int]  # [R] row of q of the first query
    positions: list[int]  # [R] its position
    first_keys: list[int]  # [R] the first key that it sees
    queries: int  # T
    keys: int  # S: the most that a request reads, from its first key on
    kv_heads: int  # key-value heads to attend at once


def sink_attention_ref(
    q: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_table: torch.Tensor,
    query_start: torch.Tensor,
    seq_lens: torch.Tensor,
    sinks: torch.Tensor | None,
    scale: float,
    window: int | None,
) -> torch.Tensor:
    """Attention [M, Hq, D] in the dtype of `q`: fp32 inside, one cast at the end.

    `q` and the caches [blocks, Hkv, block, D] may have any strides; `block_table` [R, max_blocks], and
    `query_start` [R + 1] and `seq_lens` [R] on any device, are integers; `sinks` [Hq]. Nothing is read of the
    caches or the table but the positions that a query sees, so the rest may be uninitialised. Rows of no
    request, and rows before position 0, are zero.
    """
    out = torch.zeros(q.shape, dtype=q.dtype, device=q.device)
    num_kv_heads, block = key_cache.shape[1:3]
    group = q.shape[1] // num_kv_heads
    for tile in _tiles(query_start.tolist(), seq_lens.tolist(), window, q.shape[1], num_kv_heads, q.shape[2]):
        steps = torch.arange(tile.queries, device=q.device)
        rows = torch.tensor(tile.rows, device=q.device)[:, None] + steps
        query_pos = torch.tensor(tile.positions, device=q.device)[:, None] + steps  # [R, T]
        key_pos = torch.tensor(tile.first_keys, device=q.device)[:, None]
        key_pos = key_pos + torch.arange(tile.keys, device=q.device)  # [R, S]
        hidden = key_pos[:, None] > query_pos[..., None]  # [R, T, S]
        if window is not None:
            hidden |= key_pos[:, None] <= query_pos[..., None] - window
        # A request of fewer keys than S repeats its last one, which is hidden: no other slot is read.
        key_pos = key_pos.minimum(query_pos[:, -1:])
        requests = torch.tensor(tile.requests, device=q.device)[:, None]
        blocks, slots = block_table[requests, key_pos // block], key_pos % block
        for head in range(0, num_kv_heads, tile.kv_heads):
            kv_heads = slice(head, min(head + tile.kv_heads, num_kv_heads))
            heads = slice(kv_heads.start * group, kv_heads.stop * group)
            out[rows, heads] = _attend(
                q[rows, heads],
                _gather(key_cache[:, kv_heads], blocks, slots),
                _gather(value_cache[:, kv_heads], blocks, slots),
                hidden,
                None if sinks is None else sinks[heads],
                scale,
            ).to(q.dtype)
    return out


def _tiles(
    query_start: list[int],
    seq_lens: list[int],
    window: int | None,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
) -> Iterator[_Tile]:
    """Cover every query. Requests of equally many queries share tiles: a batch in decode is a few of them."""
    members: dict[int, list[tuple[int, int, int]]] = {}
    for request, (length, stop) in enumerate(zip(seq_lens, query_start[1:], strict=True)):
        queries = min(stop - query_start[request], length)
        if queries > 0:
            members.setdefault(queries, []).append((length - queries, stop - queries, request))
    for queries, group in members.items():
        # Ascending positions: neighbours waste little padding, and the last one reads the most keys.
        group.sort()
        reach = group[-1][0] + queries
        if window is not None:
            reach = min(reach, window + _TILE_QUERIES)
        step = max(1, min(queries, _TILE_QUERIES, _TILE_VALUES * num_kv_heads // (num_heads * reach)))
        for begin in range(0, queries, step):
            count = min(step, queries - begin)
            # All heads at one key of one request: of the keys, or of the scores.
            values = max(num_kv_heads * head_dim, num_heads * count)
            batches: list[list[tuple[int, int, int, int]]] = []
            for position, row, request in group:
                first_key = 0 if window is None else max(0, position + begin - window + 1)
                keys = position + begin + count - first_key
                if not batches or (len(batches[-1]) + 1) * keys * values > _TILE_VALUES:
                    batches.append([])
                batches[-1].append((request, row + begin, position + begin, first_key))
            for batch in batches:
                *_, last, first_key = batch[-1]
                keys = last + count - first_key
                share = _TILE_VALUES * num_kv_heads // (len(batch) * keys * values)
                columns = map(list, zip(*batch, strict=True))
                yield _Tile(*columns, count, keys, kv_heads=min(max(1, share), num_kv_heads))


def _gather(cache: torch.Tensor, blocks: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """fp32 [R, Hkv, S, D] of `cache` [blocks, Hkv, block, D] at `blocks` and `slots` [R, S]."""
    found = cache.transpose(1, 2)[blocks, slots].transpose(1, 2)
    return torch.empty(found.shape, dtype=torch.float32, device=found.device).copy_(found)


def _attend(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    hidden: torch.Tensor,
    sinks: torch.Tensor | None,
    scale: float,
) -> torch.Tensor:
    """fp32 [R, T, Hq, D] of `q` [R, T, Hq, D] over fp32 `keys` and `values` [R, Hkv, S, D].

    `hidden` bool [R, T, S] leaves every query at least one key.
    """
    shape = q.shape
    q = q.float().unflatten(2, (keys.shape[1], -1)).permute(0, 2, 3, 1, 4)  # [R, Hkv, G, T, D]
    grouped = q.shape
    scores = (q * scale).flatten(2, 3) @ keys.transpose(2, 3)  # [R, Hkv, G * T, S]
    scores.unflatten(2, grouped[2:4]).masked_fill_(hidden[:, None, None], -torch.inf)
    peak = scores.amax(dim=-1, keepdim=True)
    total = scores.sub_(peak).exp_().sum(dim=-1, keepdim=True)
    if sinks is not None:
        # A sink so far above the peak that this overflows leaves nothing to the keys: 0 is what is left.
        sink = sinks.float().view(1, *grouped[1:3], 1).expand(grouped[:4]).reshape(peak.shape)
        total.add_((sink - peak).exp_())
    out = (scores @ values).div_(total)
    return out.view(grouped).permute(0, 3, 1, 2, 4).reshape(shape)
