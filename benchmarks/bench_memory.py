"""Memory: the smallest GPU that this package serves a model on, held against what the GPU says is in use.

An engine starts with `gpu_memory_utilization` set such that `--gigabytes` are used in all (weights, KV cache, CUDA
graphs and the CUDA context), decodes a batch of prompts as long as `--context`, and says how many tokens its KV cache
holds. `nvidia-smi` has the last word: nothing else may run on the GPU.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks import random_model, report
from benchmarks.engines import OURS, EngineError, started

DEFAULTS = {"20b": (16.0, 8192), "120b": (80.0, 32768)}
"""Gigabytes of 10^9 bytes in all, and tokens of context."""
STEP_TOKENS = 512
"""Most tokens of a step: the activations of vLLM's default on a large GPU take a gigabyte more."""
BATCH = 4
GRAPHS = (1, 2, 4)
"""Decode steps; graphs up to vLLM's default of 1024 tokens take half a gigabyte."""
CONTEXT_BYTES = 900_000_000
"""Held beside what vLLM counts, on an H200 with CUDA 13: the context, 0.55 GB, and FlashAttention's partial sums,
0.27 GB for a step of 512 tokens."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", nargs="+", choices=DEFAULTS, default=list(DEFAULTS), metavar="SHAPE")
    parser.add_argument("--gigabytes", type=float, help="10^9 bytes; 16 for 20b, 80 for 120b")
    parser.add_argument("--context", type=int, help="tokens; 8192 for 20b, 32768 for 120b")
    report.add_options(parser)


def run(options: argparse.Namespace) -> None:
    kept = report.Report("memory", options.out, options.commit)
    failures = []
    for model in options.model:
        gigabytes, context = DEFAULTS[model]
        try:
            row = _measure(model, options.gigabytes or gigabytes, options.context or context, options.out)
        except EngineError as error:
            failures.append(str(error))
            continue
        kept.add(row)
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
        if row["used_gb"] > row["asked_gb"]:
            failures.append(f"{model} uses {row['used_gb']} GB, not {row['asked_gb']}")
    if failures:
        raise SystemExit("\n".join(failures))


def _measure(model: str, gigabytes: float, context: int, out: Path) -> dict[str, object]:
    total = report.gpu_memory_bytes()
    if total is None:
        raise SystemExit("memory is measured on a GPU")
    before = report.gpu_memory_used_bytes()
    with tempfile.TemporaryDirectory() as folder:
        random_model.write_folder(Path(folder), random_model.sizes_of(model))
        engine_options = {
            "model": folder,
            "max_model_len": context,
            "max_num_seqs": BATCH,
            "max_num_batched_tokens": STEP_TOKENS,
            "compilation_config": {"cudagraph_capture_sizes": list(GRAPHS)},
            "gpu_memory_utilization": (gigabytes * 1e9 - CONTEXT_BYTES) / total,
        }
        with started([OURS], engine_options, out / "logs" / f"memory_{model}") as engines:
            engine = engines[OURS]
            engine.ask("prefill", tokens=context - 16)
            engine.ask("decode", batch=BATCH, context=1024, steps=16)
            used = report.gpu_memory_used_bytes() - before
            return {
                "model": model,
                "asked_gb": gigabytes,
                "used_gb": round(used / 1e9, 2),
                "context": context,
                "kv_cache_tokens": engine.facts["kv_cache_tokens"],
            }
