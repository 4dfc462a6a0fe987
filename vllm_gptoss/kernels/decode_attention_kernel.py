"""The device code of `decode_attention.py`: what one program does, and how the last of a request combines the splits.

The first tile of keys, and the angles, are loaded while the launch before still runs: they are older. A request's new
key comes behind the tiles of its last split, and from where the projection left it: nobody reads the position that is
written, and the tiles need not wait for it.
"""

import triton
import triton.language as tl

from vllm_gptoss.kernels.dependent_launch import let_successor_start, wait_for_predecessor

_LOWEST = tl.constexpr(-1e38)
"""Below every score, and finite: what no key has changed differs from itself by 0."""


@triton.jit
def load_rotated(head_ptr, cos, sin, mask, head_dim: tl.constexpr):
    """Heads [.., D] at `head_ptr` [.., 1], rotated as in `rope.py`; `sin` [1, D] is negative in its first half."""
    dims = tl.arange(0, head_dim)[None, :]
    x = tl.load(head_ptr + dims, mask=mask, other=0.0)
    # Loaded a second time: within a tensor Triton moves nothing but by way of shared memory.
    partner = tl.load(head_ptr + (dims + head_dim // 2) % head_dim, mask=mask, other=0.0)
    return (x.to(tl.float32) * cos + partner.to(tl.float32) * sin).to(x.dtype)


@triton.jit
def _load_tile(
    key_ptr, value_ptr, table_ptr, position, end, block_stride, slot_stride, head_dim: tl.constexpr, block: tl.constexpr
):  # fmt: skip
    """Keys and values [tile, D] at `position` [tile], zero from `end` on."""
    dims = tl.arange(0, head_dim)[None, :]
    live = position < end
    found = tl.load(table_ptr + position // block, mask=live, other=0).to(tl.int64)
    at = (found * block_stride + position % block * slot_stride)[:, None] + dims
    keys = tl.load(key_ptr + at, mask=live[:, None], other=0.0)
    return keys, tl.load(value_ptr + at, mask=live[:, None], other=0.0)


@triton.jit
def _attend_tile(q, keys, values, live, top, totals, acc, scale_log2):
    """m [16], l in parts [16, tile] and a [16, D] with one more tile, of which `live` [tile] counts."""
    scores = tl.where(live[None, :], tl.dot(q, tl.trans(keys)) * scale_log2, float("-inf"))
    new_top = tl.maximum(top, tl.max(scores, axis=1))
    shares = tl.exp2(scores - new_top[:, None]).to(values.dtype)  # [16, tile]
    fade = tl.exp2(top - new_top)
    totals = totals * fade[:, None] + shares.to(tl.float32)
    return new_top, totals, tl.dot(shares, values, acc * fade[:, None])


@triton.jit
def _attend(
    q,
    keys,
    values,
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
    one_tile: tl.constexpr,
):
    """m [16], l [16] and a [16, D] fp32 of `q` [16, D] over the positions from `begin` to `end` of one request.

    `keys` and `values` are those of the first tile; there is no other if it is `one_tile`.
    """
    position = begin + tl.arange(0, tile)
    top = tl.full([16], _LOWEST, tl.float32)
    # Summed up once, behind the loop: a sum over the warps waits for all of them.
    totals = tl.zeros([16, tile], tl.float32)
    acc = tl.zeros([16, head_dim], tl.float32)
    top, totals, acc = _attend_tile(q, keys, values, position < end, top, totals, acc, scale_log2)
    if not one_tile:
        dims = tl.arange(0, head_dim)
        position += tile
        # One tile ahead: loads of keys that waited for one of the table would be half as many in flight.
        found = tl.load(table_ptr + position // block, mask=position < end, other=0)
        for _ in tl.range(begin + tile, end, tile):
            live = position < end
            at = found.to(tl.int64) * block_stride + position % block * slot_stride
            at = at[:, None] + dims[None, :]
            position += tile
            found = tl.load(table_ptr + position // block, mask=position < end, other=0)
            keys = tl.load(key_ptr + at, mask=live[:, None], other=0.0)
            values = tl.load(value_ptr + at, mask=live[:, None], other=0.0)
            top, totals, acc = _attend_tile(q, keys, values, live, top, totals, acc, scale_log2)
    return top, tl.sum(totals, axis=1), acc


@triton.jit
def _attend_new(q, key, value, top, total, acc, scale_log2):
    """m, l and a of `_attend` with one more `key` and `value` [1, D]."""
    score = tl.sum(q.to(tl.float32) * key.to(tl.float32), axis=1) * scale_log2
    new_top = tl.maximum(top, score)
    share, fade = tl.exp2(score - new_top), tl.exp2(top - new_top)
    return new_top, total * fade + share, acc * fade[:, None] + share[:, None] * value.to(tl.float32)


@triton.jit
def _load_sinks(sinks_ptr, rows, group: tl.constexpr):
    """fp32 of the heads `rows`, times log2(e)."""
    return tl.load(sinks_ptr + rows, mask=rows < group, other=0.0).to(tl.float32) * 1.4426950408889634


@triton.jit
def _finish(top, total, acc, sinks, out_ptr, out_head_stride, length, group: tl.constexpr):
    """Store y of m, l and the sinks [rows] and a [rows, D]; rows past `group` are of no head."""
    rows, dims = tl.arange(0, acc.shape[0]), tl.arange(0, acc.shape[1])
    # A sink so far above that this overflows leaves the keys nothing.
    y = acc / (total + tl.exp2(sinks - top))[:, None]
    # Without keys m is far below any sink, and y might be no number.
    y = tl.where(length > 0, y, 0.0).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + rows[:, None] * out_head_stride + dims[None, :], y, mask=(rows < group)[:, None])


@triton.jit
def _combine(
    partial_ptr,
    sums_ptr,
    splits,
    sinks,
    out_ptr,
    out_head_stride,
    head_dim: tl.constexpr,
    group: tl.constexpr,
    splits_tile: tl.constexpr,
):
    """Store y of what the `splits` of one request's head have left, and of its sinks [group_tile]."""
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
    _finish(top, total, acc, sinks, out_ptr, out_head_stride, splits, group)


@triton.jit
def decode_attention_kernel(
    q_ptr, key_ptr, value_ptr, table_ptr, seq_lens_ptr, sinks_ptr, out_ptr,
    new_key_ptr, new_value_ptr, cos_ptr, sin_ptr, slots_ptr,
    partial_ptr, sums_ptr, arrived_ptr, scale_log2,
    q_row_stride, q_head_stride, new_row_stride, new_head_stride, block_stride, head_stride, slot_stride,
    table_stride, out_row_stride, out_head_stride,
    head_dim: tl.constexpr, group: tl.constexpr, window: tl.constexpr, block: tl.constexpr, tile: tl.constexpr,
    splits_tile: tl.constexpr, dependent: tl.constexpr,
):  # fmt: skip
    """Grid: key-value heads, requests, splits. `scale_log2` is scale * log2(e); a window of 0 is none."""
    head, request, split = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64), tl.program_id(2)
    length = tl.load(seq_lens_ptr + request)
    first = tl.maximum(length - window, 0) if window else 0
    cached = tl.maximum(length - 1, 0)
    tiles = tl.cdiv(cached - first, tile)
    # Two tiles a split rather than more splits than are combined at once.
    run = tl.maximum(tl.cdiv(tiles, tl.num_programs(2)), tl.where(tiles > splits_tile, 2, 1)) * tile
    # The first split of a request of no keys in the cache stays, for its new key or its zeros.
    begin = first + split * run
    end = tl.minimum(begin + run, cached)
    key_ptr += head * head_stride
    value_ptr += head * head_stride
    table_ptr += request * table_stride
    # All this is older than the launch before, which wrote q and the new keys alone.
    keys, values = _load_tile(
        key_ptr, value_ptr, table_ptr, begin + tl.arange(0, tile), end, block_stride, slot_stride, head_dim, block
    )
    dims = tl.arange(0, head_dim)
    angle = request * (head_dim // 2) + dims % (head_dim // 2)
    cos, sin = tl.load(cos_ptr + angle)[None, :], tl.load(sin_ptr + angle)
    sin = tl.where(dims < head_dim // 2, -sin, sin)[None, :]
    rows = tl.arange(0, 16)  # the fewest that the tensor core takes
    mask = rows < group
    sinks_ptr += head * group
    sinks = _load_sinks(sinks_ptr, rows, group)
    if dependent:
        wait_for_predecessor()
        let_successor_start()
    if begin >= tl.maximum(cached, first + 1):
        return
    q_ptr += request * q_row_stride + (head * group + rows)[:, None] * q_head_stride
    q = load_rotated(q_ptr, cos, sin, mask[:, None], head_dim)
    is_last = (end == cached) & (length > 0)
    new_at = request * new_row_stride + head * new_head_stride
    key = load_rotated(new_key_ptr + new_at, cos, sin, is_last, head_dim)  # [1, D]
    value = tl.load(new_value_ptr + new_at + dims[None, :], mask=is_last, other=0.0)
    slot = tl.load(slots_ptr + request, mask=is_last, other=-1)
    one_tile: tl.constexpr = window > 0 and window <= tile
    top, total, acc = _attend(
        q, keys, values, key_ptr, value_ptr, table_ptr, begin, end, scale_log2, block_stride, slot_stride,
        head_dim, block, tile, one_tile,
    )  # fmt: skip
    if is_last:
        top, total, acc = _attend_new(q, key, value, top, total, acc, scale_log2)
        at = slot // block * block_stride + slot % block * slot_stride + dims[None, :]
        tl.store(key_ptr + at, key, mask=slot >= 0)
        tl.store(value_ptr + at, value, mask=slot >= 0)
    out_ptr += request * out_row_stride + head * group * out_head_stride
    active = tl.cdiv(cached - first, run)
    if splits_tile > 0 and active > 1:
        item = request * tl.num_programs(0) + head
        part = item * tl.num_programs(2)
        partial_ptr += part * group * head_dim
        sums_ptr += part * 2 * group
        tl.store(partial_ptr + (split * group + rows)[:, None] * head_dim + dims[None, :], acc, mask=mask[:, None])
        tl.store(sums_ptr + split * 2 * group + rows, top, mask=mask)
        tl.store(sums_ptr + split * 2 * group + group + rows, total, mask=mask)
        of_head = _load_sinks(sinks_ptr, tl.arange(0, triton.next_power_of_2(group)), group)
        # Every thread has stored before one of them counts this program in.
        tl.debug_barrier()
        if tl.atomic_add(arrived_ptr + item, 1, sem="acq_rel") == active - 1:
            tl.store(arrived_ptr + item, 0)  # for the next launch
            _combine(partial_ptr, sums_ptr, active, of_head, out_ptr, out_head_stride, head_dim, group, splits_tile)
    else:
        _finish(top, total, acc, sinks, out_ptr, out_head_stride, length, group)
