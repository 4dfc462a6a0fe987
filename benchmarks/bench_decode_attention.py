"""Attention of a decode step over a paged cache, one query a request, beside what stock runs for the same work.

Ours is one launch: rotation of queries and keys, the write of keys and values, attention. Stock's are three: `ops.rope`
as the compiler makes it, vLLM's write to the cache, and FlashAttention 3 as its backend calls it. Both run as in a CUDA
graph of a decode step: the longest that a model serves is what the host knows, and the lengths lie on the device. Bytes
are those of the visible keys and values, each once. Calls of a sample read caches of their own, together more than the
L2 cache holds.
"""

import argparse
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING

from benchmarks import report, timing

if TYPE_CHECKING:
    import torch
    from vllm.v1.attention.backends.flash_attn import FlashAttentionImpl

HEADS, KV_HEADS, HEAD_DIM, BLOCK = 64, 8, 64, 16
"""gpt-oss-20b and 120b; vLLM's blocks."""
WINDOW = 128
MAX_SEQ_LEN = 131_072
STOCK_SPLITS = 32
"""vLLM's bound on FlashAttention's splits in a CUDA graph."""
ROTATED_BYTES = 128 << 20
"""Twice an L2 cache of 50 to 60 MB, the largest on Hopper."""
CACHE_LIMIT = 32 << 30
BATCHES = (1, 4, 16, 64, 128, 256, 512)
CONTEXTS = (1024, 8192, 40_000)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES, metavar="R")
    parser.add_argument("--contexts", nargs="+", type=int, default=CONTEXTS, metavar="TOKENS")
    parser.add_argument("--mixed", action="store_true", help="lengths from 1 to the context instead of equal ones")
    parser.add_argument("--rounds", type=int, default=30)
    report.add_options(parser)


def run(options: argparse.Namespace) -> None:
    kept = report.Report("decode_attention", options.out, options.commit)
    cases = [(batch, options.contexts[0], WINDOW) for batch in options.batches]
    cases += [(batch, context, None) for context in options.contexts for batch in options.batches]
    for batch, context, window in cases:
        lengths = [1 + (context - 1) * r // max(1, batch - 1) if options.mixed else context for r in range(batch)]
        keys = sum(min(length, window or length) for length in lengths)
        moved = keys * KV_HEADS * 2 * HEAD_DIM * 2
        if moved > CACHE_LIMIT:
            continue
        calls = _calls(lengths, window, copies=-(-ROTATED_BYTES // moved))
        _check(calls)
        times = timing.time_graphs(calls, options.rounds)
        shape = f"R={batch} {'mixed to ' if options.mixed else ''}{context}{f', window {window}' if window else ''}"
        kept.add_op(shape, times["ours"], moved, 4 * keys * HEADS * HEAD_DIM, times["stock"])


def _calls(lengths: list[int], window: int | None, copies: int) -> dict[str, list]:
    """Closures of both from the same projections [R, Hq + 2 Hkv, D] to outputs [R, Hq, D]."""
    import torch

    from vllm_gptoss import ops

    layer, stock = _stock(window)
    rope = torch.compile(ops.rope, dynamic=True)
    sizes = [HEADS, KV_HEADS, KV_HEADS]

    def ours(heads, angles, kv_cache, metadata, out):
        q, k, v = heads.split(sizes, dim=1)
        new = ops.NewTokens(k, v, *angles, metadata.slot_mapping)
        caches = kv_cache.split(HEAD_DIM, dim=-1)
        requests = metadata.block_table, metadata.seq_lens
        ops.decode_attention(q, *caches, *requests, stock.sinks, stock.scale, window, out, metadata.max_seq_len, new)
        return out

    def three_launches(heads, angles, kv_cache, metadata, out):
        qk, v = heads.split([HEADS + KV_HEADS, KV_HEADS], dim=1)
        q, k = rope(qk, *angles).split([HEADS, KV_HEADS], dim=1)
        stock.do_kv_cache_update(layer, k, v, kv_cache, metadata.slot_mapping)
        return stock.forward(layer, q, k, v, kv_cache, metadata, out)

    ways = {"ours": ours, "stock": three_launches}
    calls: dict[str, list] = {name: [] for name in ways}
    for _ in range(copies):
        heads, kv_cache, metadata = _inputs(lengths, window)
        turns = torch.rand(len(lengths), HEAD_DIM // 2, dtype=torch.float32, device="cuda") * 6
        for name, way in ways.items():
            out = heads.new_empty(len(lengths), HEADS, HEAD_DIM)
            calls[name].append(partial(way, heads, (turns.cos(), turns.sin()), kv_cache, metadata, out))
    return calls


def _stock(window: int | None) -> tuple[SimpleNamespace, "FlashAttentionImpl"]:
    """A layer's scales, and what attends in it."""
    import torch
    from vllm.v1.attention.backends.flash_attn import FlashAttentionImpl

    torch.set_default_dtype(torch.bfloat16)  # the model's, as a layer finds it
    sinks = torch.randn(HEADS, device="cuda")
    arguments = (HEADS, HEAD_DIM, HEAD_DIM**-0.5, KV_HEADS, None, window, "auto")
    one = torch.ones((), dtype=torch.float32, device="cuda")
    layer = SimpleNamespace(_q_scale=one, _k_scale=one, _v_scale=one)
    return layer, FlashAttentionImpl(*arguments, sinks=sinks)


def _inputs(lengths: list[int], window: int | None) -> tuple["torch.Tensor", "torch.Tensor", object]:
    """Projections [R, Hq + 2 Hkv, D], a cache of the visible blocks in random order, and a captured step's metadata."""
    import torch
    from vllm.v1.attention.backends.flash_attn import FlashAttentionMetadata

    requests = len(lengths)
    firsts = [max(0, length - window) // BLOCK if window else 0 for length in lengths]
    lasts = [-(-length // BLOCK) for length in lengths]
    pages = sum(lasts) - sum(firsts)
    free = torch.randperm(pages, device="cuda", dtype=torch.int32)
    table = torch.zeros(requests, MAX_SEQ_LEN // BLOCK, dtype=torch.int32, device="cuda")
    begin = 0
    for request, (first, last) in enumerate(zip(firsts, lasts, strict=True)):
        table[request, first:last] = free[begin : begin + last - first]
        begin += last - first
    seq_lens = torch.tensor(lengths, dtype=torch.int32, device="cuda")
    last = seq_lens.long() - 1
    slots = table.gather(1, last[:, None] // BLOCK)[:, 0].long() * BLOCK + last % BLOCK
    kv_cache = torch.randn(pages, BLOCK, KV_HEADS, 2 * HEAD_DIM, dtype=torch.bfloat16, device="cuda")
    metadata = FlashAttentionMetadata(
        num_actual_tokens=requests,
        max_query_len=1,
        query_start_loc=torch.arange(requests + 1, dtype=torch.int32, device="cuda"),
        max_seq_len=MAX_SEQ_LEN,
        seq_lens=seq_lens,
        block_table=table,
        slot_mapping=slots,
        max_num_splits=STOCK_SPLITS,
    )
    heads = torch.randn(requests, HEADS + 2 * KV_HEADS, HEAD_DIM, dtype=torch.bfloat16, device="cuda")
    return heads, kv_cache.transpose(1, 2), metadata


def _check(calls: dict[str, list]) -> None:
    """A speed counts only if the result is right.

    Raises: AssertionError.
    """
    import torch

    ours, stock = (series[0]().float() for series in calls.values())
    # Both round the weights and the output to bf16.
    torch.testing.assert_close(ours, stock, rtol=2**-6, atol=2**-6)
