"""Decode attention over a paged cache, one query a request, beside vLLM's FlashAttention 3 as its backend calls it.

Both run as in a CUDA graph of a decode step: the longest that a model serves is what the host knows, and the lengths
lie on the device. Bytes are those of the visible keys and values, each once. Calls of a sample read caches of their
own, together more than the L2 cache holds.
"""

import argparse
from types import SimpleNamespace
from typing import TYPE_CHECKING

from benchmarks import report, timing

if TYPE_CHECKING:
    import torch

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
    """Closures of both, over the same inputs, that return their outputs [R, Hq, D]."""
    import torch
    from vllm.v1.attention.backends.flash_attn import FlashAttentionImpl

    from vllm_gptoss.model.attention_backend import DecodeAttentionImpl

    torch.set_default_dtype(torch.bfloat16)  # the model's, as a layer finds it
    sinks = torch.randn(HEADS, device="cuda")
    arguments = (HEADS, HEAD_DIM, HEAD_DIM**-0.5, KV_HEADS, None, window, "auto")
    implementations = {
        "ours": DecodeAttentionImpl(*arguments, sinks=sinks),
        "stock": FlashAttentionImpl(*arguments, sinks=sinks),
    }
    one = torch.ones((), dtype=torch.float32, device="cuda")
    layer = SimpleNamespace(_q_scale=one, _k_scale=one, _v_scale=one)
    calls: dict[str, list] = {name: [] for name in implementations}
    for _ in range(copies):
        q, kv_cache, metadata = _inputs(lengths, window)
        for name, implementation in implementations.items():
            inputs = (layer, q, None, None, kv_cache, metadata, torch.empty_like(q))
            calls[name].append(lambda forward=implementation.forward, inputs=inputs: forward(*inputs))
    return calls


def _inputs(lengths: list[int], window: int | None) -> tuple["torch.Tensor", "torch.Tensor", object]:
    """Queries, a cache of the visible blocks in random order, and the metadata of a captured step."""
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
    kv_cache = torch.randn(pages, BLOCK, KV_HEADS, 2 * HEAD_DIM, dtype=torch.bfloat16, device="cuda")
    metadata = FlashAttentionMetadata(
        num_actual_tokens=requests,
        max_query_len=1,
        query_start_loc=torch.arange(requests + 1, dtype=torch.int32, device="cuda"),
        max_seq_len=MAX_SEQ_LEN,
        seq_lens=torch.tensor(lengths, dtype=torch.int32, device="cuda"),
        block_table=table,
        slot_mapping=torch.zeros(requests, dtype=torch.int64, device="cuda"),
        max_num_splits=STOCK_SPLITS,
    )
    q = torch.randn(requests, HEADS, HEAD_DIM, dtype=torch.bfloat16, device="cuda")
    return q, kv_cache.transpose(1, 2), metadata


def _check(calls: dict[str, list]) -> None:
    """A speed counts only if the result is right.

    Raises: AssertionError.
    """
    import torch

    ours, stock = (series[0]().float() for series in calls.values())
    # Both round the weights and the output to bf16.
    torch.testing.assert_close(ours, stock, rtol=2**-6, atol=2**-6)
