"""Attention with sinks for requests of one query each, over the blocks of a paged cache: split over the keys.

    s = scale * log2(e) * q @ k.T             over the visible keys, in tiles
    m = max(s), l = sum(2^(s - m)), a = sum(2^(s - m) * v)      one pass of a split over its tiles
    y = sum(2^(m - M) * a) / (sum(2^(m - M) * l) + 2^(sink * log2(e) - M))      over the splits of a request

with M the largest m. The query of request r is at position seq_lens[r] - 1 and sees the last `window` positions up to
its own, or all of them.

One program takes the query heads of one key-value head, and one split: a contiguous run of keys, a whole number of
tiles. Lengths are known on the device alone, so a CUDA graph serves all of them: the grid has a fixed number of splits,
and a request too short for all leaves the last ones idle. The program of a request's head that arrives last combines
the splits in their order, so that the sum does not depend on who was last.

2^(s - m) is rounded to the dtype of `v` for the tensor core, and l is the sum of what was rounded: the weights still
sum to one. The rest is fp32 up to the one rounding of the output.

Layout: as `sink_attention.py`, with row r of q for request r.

Source: Dao et al. 2023 (splits over the keys, Flash-Decoding); Milakov and Gimelshein 2018 (online softmax),
arXiv 1805.02867; the sinks as in `sink_attention.py`.
"""

import functools
import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl

_PROGRAMS_PER_PROCESSOR = 4
"""Fewer programs than this are split: on sm_90, D = 64, as many run at once."""

_MAX_SPLITS = 32
"""More would leave the last program to arrive more to combine than they save in reading."""


class DecodeLaunch(NamedTuple):
    constants: dict[str, int]
    splits: int  # programs that may share a request's head: the last size of the grid
    num_warps: int
    num_stages: int


def launch_config(
    requests: int, num_kv_heads: int, group: int, head_dim: int, window: int | None, max_seq_len: int, processors: int
) -> DecodeLaunch:
    """How to launch for requests of at most `max_seq_len` keys on a GPU of `processors`."""
    # A usual window is one tile, all of whose loads are under way before the first is used.
    tile = 64 if window is None or window > 128 else max(16, triton.next_power_of_2(window))
    reach = max_seq_len if window is None else min(window, max_seq_len)
    spare = triton.cdiv(_PROGRAMS_PER_PROCESSOR * processors, max(1, requests * num_kv_heads))
    # Down to a power of two: programs * splits stays below twice what was wanted.
    splits = 1 << (max(1, min(spare, triton.cdiv(reach, tile), _MAX_SPLITS)).bit_length() - 1)
    group_tile = triton.next_power_of_2(group)
    # Three tiles in flight; two of D = 128, for the shared memory of sm_89 and sm_120. One tile needs one.
    stages = 2 if window and window <= tile else 4 if head_dim <= 64 else 3
    constants = {
        "head_dim": head_dim,
        "group": group,
        "window": window or 0,
        "tile": tile,
        # Splits to combine at once: 32 registers a thread.
        "splits_tile": min(_MAX_SPLITS, 4096 // (group_tile * head_dim)) if splits > 1 else 0,
    }
    return DecodeLaunch(constants, splits, num_warps=4, num_stages=stages)


@triton.jit
def _attend(
    q,
    key_ptr,
    value_ptr,
    table_ptr,
    begin,
    end,
    scale_log2,
    block_stride,
    slot_stride,
    head_dim: tl.constexpr,
    block: tl.constexpr,
    tile: tl.constexpr,
):
    """m [16], l [16] and a [16, D] fp32 of `q` [16, D] over the positions from `begin` to `end` of one request."""
    dims = tl.arange(0, head_dim)
    top = tl.full([16], float("-inf"), tl.float32)
    # Summed up once, behind the loop: a sum over the warps waits for all of them.
    totals = tl.zeros([16, tile], tl.float32)
    acc = tl.zeros([16, head_dim], tl.float32)
    position = begin + tl.arange(0, tile)
    # One tile ahead: loads of keys that waited for one of the table would be half as many in flight.
    found = tl.load(table_ptr + position // block, mask=position < end, other=0)
    for _ in tl.range(begin, end, tile):
        live = position < end
        at = found.to(tl.int64) * block_stride + position % block * slot_stride
        at = at[:, None] + dims[None, :]
        position += tile
        found = tl.load(table_ptr + position // block, mask=position < end, other=0)
        keys = tl.load(key_ptr + at, mask=live[:, None], other=0.0)  # [tile, D]
        values = tl.load(value_ptr + at, mask=live[:, None], other=0.0)
        scores = tl.where(live[None, :], tl.dot(q, tl.trans(keys)) * scale_log2, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, axis=1))
        shares = tl.exp2(scores - new_top[:, None]).to(values.dtype)  # [16, tile]
        fade = tl.exp2(top - new_top)
        totals = totals * fade[:, None] + shares.to(tl.float32)
        acc = tl.dot(shares, values, acc * fade[:, None])
        top = new_top
    return top, tl.sum(totals, axis=1), acc


@triton.jit
def _finish(top, total, acc, sinks_ptr, out_ptr, out_head_stride, length, group: tl.constexpr):
    """Store y of m and l [rows], a [rows, D] and the sinks; rows past `group` are of no head."""
    rows, dims = tl.arange(0, acc.shape[0]), tl.arange(0, acc.shape[1])
    mask = rows < group
    sink = tl.load(sinks_ptr + rows, mask=mask, other=0.0).to(tl.float32) * 1.4426950408889634  # log2(e)
    # A sink so far above that this overflows leaves the keys nothing.
    y = acc / (total + tl.exp2(sink - top))[:, None]
    # Without keys m is -inf.
    y = tl.where(length > 0, y, 0.0).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + rows[:, None] * out_head_stride + dims[None, :], y, mask=mask[:, None])


@triton.jit
def _combine(
    partial_ptr,
    sums_ptr,
    splits,
    sinks_ptr,
    out_ptr,
    out_head_stride,
    head_dim: tl.constexpr,
    group: tl.constexpr,
    splits_tile: tl.constexpr,
):
    """Store y of what the `splits` of one request's head have left."""
    group_tile: tl.constexpr = triton.next_power_of_2(group)
    rows, dims = tl.arange(0, group_tile), tl.arange(0, head_dim)
    top = tl.full([group_tile], float("-inf"), tl.float32)
    total = tl.zeros([group_tile], tl.float32)
    acc = tl.zeros([group_tile, head_dim], tl.float32)
    for start in tl.range(0, splits, splits_tile):
        parts = start + tl.arange(0, splits_tile)
        # Rows of no head repeat the first one, and so read nothing past the last.
        row = tl.where(rows < group, rows, 0)[:, None]
        live = (parts < splits)[None, :]
        # [group_tile, splits_tile]: in this order Triton 3.6 has the splits of a sum in one thread.
        at = parts[None, :] * (2 * group) + row
        # Other programs wrote all this: .cg reads past the first-level cache.
        tops = tl.load(sums_ptr + at, mask=live, other=float("-inf"), cache_modifier=".cg")
        totals = tl.load(sums_ptr + at + group, mask=live, other=0.0, cache_modifier=".cg")
        at = (parts[None, :] * group + row)[:, :, None] * head_dim + dims[None, None, :]
        accs = tl.load(partial_ptr + at, mask=live[:, :, None], other=0.0, cache_modifier=".cg")
        new_top = tl.maximum(top, tl.max(tops, axis=1))
        shares = tl.exp2(tops - new_top[:, None])
        fade = tl.exp2(top - new_top)
        total = total * fade + tl.sum(totals * shares, axis=1)
        acc = acc * fade[:, None] + tl.sum(accs * shares[:, :, None], axis=1)
        top = new_top
    _finish(top, total, acc, sinks_ptr, out_ptr, out_head_stride, splits, group)


@triton.jit
def _decode_attention_kernel(
    q_ptr,
    key_ptr,
    value_ptr,
    table_ptr,
    seq_lens_ptr,
    sinks_ptr,
    out_ptr,
    partial_ptr,
    sums_ptr,
    arrived_ptr,
    scale_log2,
    q_row_stride,
    q_head_stride,
    block_stride,
    head_stride,
    slot_stride,
    table_stride,
    out_row_stride,
    out_head_stride,
    head_dim: tl.constexpr,
    group: tl.constexpr,
    window: tl.constexpr,
    block: tl.constexpr,
    tile: tl.constexpr,
    splits_tile: tl.constexpr,
):
    head, request, split = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64), tl.program_id(2)
    length = tl.load(seq_lens_ptr + request)
    first = tl.maximum(length - window, 0) if window else 0
    run = tl.maximum(tl.cdiv(length - first, tl.num_programs(2) * tile), 1) * tile
    begin = first + split * run
    # The first split of a request of no keys stays, for its zeros.
    if begin >= tl.maximum(length, 1):
        return
    rows, dims = tl.arange(0, 16), tl.arange(0, head_dim)  # the fewest rows that the tensor core takes
    mask = rows < group
    q_at = request * q_row_stride + (head * group + rows)[:, None] * q_head_stride + dims[None, :]
    q = tl.load(q_ptr + q_at, mask=mask[:, None], other=0.0)
    key_ptr += head * head_stride
    value_ptr += head * head_stride
    table_ptr += request * table_stride
    end = tl.minimum(begin + run, length)
    top, total, acc = _attend(
        q, key_ptr, value_ptr, table_ptr, begin, end, scale_log2, block_stride, slot_stride, head_dim, block, tile
    )
    sinks_ptr += head * group
    out_ptr += request * out_row_stride + head * group * out_head_stride
    active = tl.cdiv(length - first, run)
    if splits_tile > 0 and active > 1:
        item = request * tl.num_programs(0) + head
        part = item * tl.num_programs(2)
        partial_ptr += part * group * head_dim
        sums_ptr += part * 2 * group
        tl.store(partial_ptr + (split * group + rows)[:, None] * head_dim + dims[None, :], acc, mask=mask[:, None])
        tl.store(sums_ptr + split * 2 * group + rows, top, mask=mask)
        tl.store(sums_ptr + split * 2 * group + group + rows, total, mask=mask)
        # Every thread has stored before one of them counts this program in.
        tl.debug_barrier()
        if tl.atomic_add(arrived_ptr + item, 1, sem="acq_rel") == active - 1:
            tl.store(arrived_ptr + item, 0)  # for the next launch
            _combine(partial_ptr, sums_ptr, active, sinks_ptr, out_ptr, out_head_stride, head_dim, group, splits_tile)
    else:
        _finish(top, total, acc, sinks_ptr, out_ptr, out_head_stride, length, group)


def decode_attention(
    q: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    sinks: torch.Tensor,
    scale: float,
    window: int | None,
    out: torch.Tensor,
    max_seq_len: int,
) -> None:
    """Attention of `q` [R, Hq, D], one query a request, into `out` [R, Hq, D].

    The caches [blocks, Hkv, block, D] have the same strides and D contiguous, as `q` and `out` have; `block_table`
    int32 [R, max_blocks] and `seq_lens` int32 [R] lie on the device; `sinks` [Hq]. A request of no keys gets zeros.
    Any length is served; `max_seq_len`, known on the host, decides how much of the machine a request may take. Nothing
    is read of the caches or the table but the positions that a query sees.

    Launches of one process run one after the other: they share what their splits leave for each other.

    Raises: ValueError for other strides, or for a number of query heads a key-value head that is not in 1..16.
    """
    (requests, num_heads, head_dim), num_kv_heads = q.shape, key_cache.shape[1]
    group = num_heads // num_kv_heads
    if group * num_kv_heads != num_heads or not 1 <= group <= 16:
        raise ValueError(f"{num_heads} query heads over {num_kv_heads} key-value heads; served are 1 to 16 each")
    if key_cache.stride() != value_cache.stride() or {t.stride(-1) for t in (q, key_cache, block_table, out)} != {1}:
        raise ValueError("keys and values differ in their strides, or a last dimension is not contiguous")
    if not requests:
        return
    # Few in the interpreter, where one request is split as well.
    processors = torch.cuda.get_device_properties(q.device).multi_processor_count if q.is_cuda else 4
    launch = launch_config(requests, num_kv_heads, group, head_dim, window, max_seq_len, processors)
    _decode_attention_kernel[num_kv_heads, requests, launch.splits](
        q,
        key_cache,
        value_cache,
        block_table,
        seq_lens,
        sinks,
        out,
        *_scratch(q.device, processors, group, head_dim),
        scale * math.log2(math.e),
        *q.stride()[:2],
        *key_cache.stride()[:3],
        block_table.stride(0),
        *out.stride()[:2],
        block=key_cache.shape[2],
        **launch.constants,
        num_warps=launch.num_warps,
        num_stages=launch.num_stages,
    )


@functools.cache
def _scratch(device: torch.device, processors: int, group: int, head_dim: int) -> tuple[torch.Tensor, ...]:
    """a fp32, m and l fp32 of all splits of a launch, and how many have arrived of each request's head: none.

    Made by the first launch of a process and kept, as CUDA graphs hold its address.

    Raises: RuntimeError when a CUDA graph is being captured, which would own it.
    """
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise RuntimeError("decode_attention must run once before a CUDA graph captures it")
    # Requests and heads are split only where they leave programs to spare: see `launch_config`.
    items = _PROGRAMS_PER_PROCESSOR * processors
    partial = torch.empty(2 * items * group * head_dim, dtype=torch.float32, device=device)
    sums = torch.empty(2 * items * 2 * group, dtype=torch.float32, device=device)
    return partial, sums, torch.zeros(items, dtype=torch.int32, device=device)
