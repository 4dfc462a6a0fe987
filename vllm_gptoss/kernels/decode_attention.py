"""Decode step of attention with sinks: one new token a request over a paged cache, split over the keys, in one launch.

    q = rope(q), k = rope(new key)            which is written to its slot of the caches, with the new value
    s = scale * log2(e) * q @ keys.T          over the visible keys, in tiles, and k
    m = max(s), l = sum(2^(s - m)), a = sum(2^(s - m) * v)      one pass of a split over its tiles
    y = sum(2^(m - M) * a) / (sum(2^(m - M) * l) + 2^(sink * log2(e) - M))      over the splits of a request

with M the largest m. The new token of request r is at position seq_lens[r] - 1 and sees the last `window` positions up
to its own, or all of them.

One program takes the query heads of one key-value head, and one split: a contiguous run of the keys before the new one,
a whole number of tiles. The last split adds the new key to its m, l and a. Lengths are known on the device alone, so a
CUDA graph serves all of them: the grid has a fixed number of splits, and a request too short for all leaves the last
ones idle. The program of a request's head that arrives last combines the splits in their order, so that the sum does
not depend on who was last.

Rotation is fp32 and one rounding, as in `rope.py`. 2^(s - m) is rounded to the dtype of `v` for the tensor core, and l
is the sum of what was rounded: the weights still sum to one. That of the new key meets no tensor core and is not
rounded. The rest is fp32 up to the one rounding of the output.

Layout: as `sink_attention.py`, with row r of q for request r.

Source: Dao et al. 2023 (splits over the keys, Flash-Decoding); Milakov and Gimelshein 2018 (online softmax),
arXiv 1805.02867; the sinks as in `sink_attention.py`.
"""

import functools
import math
from typing import NamedTuple

import torch
import triton

from vllm_gptoss.kernels.decode_attention_kernel import decode_attention_kernel
from vllm_gptoss.kernels.dependent_launch import launches_dependently
from vllm_gptoss.kernels.rope import rope_ref
from vllm_gptoss.kernels.scratch import check_not_capturing
from vllm_gptoss.kernels.sink_attention import sink_attention_ref

_PROGRAMS_PER_PROCESSOR = 3
"""Fewer programs than this are split: on sm_90, D = 64, as many run at once."""

_MAX_SPLITS = 32
"""More would leave the last program to arrive more to combine than they save in reading."""


class NewTokens(NamedTuple):
    """The last position of each request, as the projections leave it: not rotated, and not in the cache."""

    keys: torch.Tensor  # [R, Hkv, D]
    values: torch.Tensor  # [R, Hkv, D], with the strides of `keys`
    cos: torch.Tensor  # [R, D/2] fp32, contiguous
    sin: torch.Tensor  # [R, D/2] fp32, contiguous
    slots: torch.Tensor  # [R] int64, where it goes: block * positions of a block + place in it; negative for nowhere


class DecodeLaunch(NamedTuple):
    constants: dict[str, int]
    splits: int  # programs that may share a request's head: the last size of the grid
    num_warps: int
    num_stages: int


def launch_config(
    requests: int, num_kv_heads: int, group: int, head_dim: int, window: int | None, max_seq_len: int, processors: int
) -> DecodeLaunch:
    """How to launch for requests of at most `max_seq_len` keys on a GPU of `processors`."""
    # Few programs have a usual window in one tile, all of whose loads are under way before the first is used; with its
    # registers fewer programs run at once.
    few = requests * num_kv_heads <= _PROGRAMS_PER_PROCESSOR * processors
    widest = 128 if few else 64
    tile = 64 if window is None or window > widest else max(16, triton.next_power_of_2(window))
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
    new: NewTokens,
) -> None:
    """Attention of `q` [R, Hq, D], one query a request and not rotated, into `out` [R, Hq, D]; `new` into the caches.

    The caches [blocks, Hkv, block, D] have the same strides and D contiguous, as `q` and `out` have; `block_table`
    int32 [R, max_blocks] and `seq_lens` int32 [R], which counts the new token, lie on the device; `sinks` [Hq]. Rows of
    `q` and `new` may be views of one tensor. A request of length 0 gets zeros and writes nothing.

    Any length is served; `max_seq_len`, known on the host, decides how much of the machine a request may take. Nothing
    is read of the caches or the table but the positions before the new one that its query sees.

    Launches of one process run one after the other: they share what their splits leave for each other.

    Raises: ValueError for other strides, or for a number of query heads a key-value head that is not in 1..16.
    """
    (requests, num_heads, head_dim), num_kv_heads = q.shape, key_cache.shape[1]
    group = num_heads // num_kv_heads
    if group * num_kv_heads != num_heads or not 1 <= group <= 16:
        raise ValueError(f"{num_heads} query heads over {num_kv_heads} key-value heads; served are 1 to 16 each")
    if key_cache.stride() != value_cache.stride() or new.keys.stride() != new.values.stride():
        raise ValueError("keys and values differ in their strides")
    if {t.stride(-1) for t in (q, new.keys, key_cache, block_table, out)} != {1}:
        raise ValueError("a last dimension is not contiguous")
    if not (new.cos.is_contiguous() and new.sin.is_contiguous()):
        raise ValueError("cos or sin is not contiguous")
    if not requests:
        return
    # Few in the interpreter, where one request is split as well.
    processors = torch.cuda.get_device_properties(q.device).multi_processor_count if q.is_cuda else 4
    launch = launch_config(requests, num_kv_heads, group, head_dim, window, max_seq_len, processors)
    dependent = launches_dependently(q.device)
    decode_attention_kernel[num_kv_heads, requests, launch.splits](
        q,
        key_cache,
        value_cache,
        block_table,
        seq_lens,
        sinks,
        out,
        *new,
        *_scratch(q.device, processors, group, head_dim),
        scale * math.log2(math.e),
        *q.stride()[:2],
        *new.keys.stride()[:2],
        *key_cache.stride()[:3],
        block_table.stride(0),
        *out.stride()[:2],
        block=key_cache.shape[2],
        **launch.constants,
        dependent=dependent,
        num_warps=launch.num_warps,
        num_stages=launch.num_stages,
        launch_pdl=dependent,
    )


@functools.cache
def _scratch(device: torch.device, processors: int, group: int, head_dim: int) -> tuple[torch.Tensor, ...]:
    """a fp32, m and l fp32 of all splits of a launch, and how many have arrived of each request's head: none.

    Made by the first launch of a process and kept, as CUDA graphs hold its address.

    Raises: RuntimeError when a CUDA graph is being captured, which would own it.
    """
    check_not_capturing(device, "decode_attention")
    # Requests and heads are split only where they leave programs to spare: see `launch_config`.
    items = _PROGRAMS_PER_PROCESSOR * processors
    partial = torch.empty(2 * items * group * head_dim, dtype=torch.float32, device=device)
    sums = torch.empty(2 * items * 2 * group, dtype=torch.float32, device=device)
    return partial, sums, torch.zeros(items, dtype=torch.int32, device=device)


def decode_attention_ref(
    q: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    sinks: torch.Tensor,
    scale: float,
    window: int | None,
    new: NewTokens,
) -> torch.Tensor:
    """fp32 [R, Hq, D], before the rounding of the output; `new` goes into the caches. Any strides.

    The new keys are read back from the caches: unlike the kernel, this needs their slots to be those of the table.
    """
    q, keys = rope_ref(q, new.cos, new.sin), rope_ref(new.keys, new.cos, new.sin)
    written = (new.slots >= 0) & (seq_lens > 0)
    blocks, places = new.slots[written] // key_cache.shape[2], new.slots[written] % key_cache.shape[2]
    key_cache[blocks, :, places] = keys[written]
    value_cache[blocks, :, places] = new.values[written]
    starts = torch.arange(len(q) + 1)
    return sink_attention_ref(q.float(), key_cache, value_cache, block_table, starts, seq_lens, sinks, scale, window)
