"""One decode step by kernel: launches, microseconds and share, from a profiler trace of steady decode steps.

vLLM's own profiler hook records the engine's process; the first steps of a batch are not in the trace. Kernels may
overlap, so that their sum is more than the time in which the GPU is at work; that, and the span of the trace over its
steps, are the last two lines. Their difference is the host's, which the profiler makes slower: without it a step takes
less than the span, and no less than the GPU's work.
"""

import argparse
import gzip
import json
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import random_model, report
from benchmarks.bench_serve import GRAPHS
from benchmarks.engines import VARIANTS, Engine, EngineError, started
from benchmarks.plan import Job

ON_GPU = ("kernel", "gpu_memcpy", "gpu_memset")
"""Categories of what the GPU runs, in the traces of torch's profiler."""
STEP = "execute_context_"
"""How vLLM's worker names a step in the trace."""
NAME_SHOWN = 100


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", choices=random_model.SHAPES, default="20b", metavar="SHAPE")
    parser.add_argument("--layers", type=int, help="take fewer layers")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["plugin"], metavar="NAME")
    parser.add_argument("--batch", nargs="+", type=int, default=[1], metavar="N")
    parser.add_argument("--context", type=int, default=1024, help="tokens of each prompt")
    parser.add_argument("--graphs", nargs="+", type=int, default=list(GRAPHS), metavar="N", help="CUDA graph sizes")
    parser.add_argument("--steps", type=int, default=32, help="decode steps in the trace")
    report.add_options(parser)


def run(options: argparse.Namespace) -> None:
    options.batches, options.prefills = options.batch, []
    job = Job(random_model.sizes_of(options.model, options.layers), options)
    kept = report.Report(f"trace_{options.model}", options.out, options.commit)
    for variant in options.variants:
        with tempfile.TemporaryDirectory() as folder:
            random_model.write_folder(Path(folder), job.sizes)
            traces = Path(folder, "traces")
            settings = job.engine_options(folder, kept.gpu == "cpu") | {"profiler_config": _profiler(traces)}
            try:
                with started([variant], settings, options.out / "logs" / f"trace_{options.model}") as engines:
                    for batch in options.batch:
                        _batch(variant, batch, engines[variant], traces, options, kept)
            except EngineError as error:
                raise SystemExit(str(error)) from None
    print(f"\nkept in {kept.path}")


def _profiler(traces: Path) -> dict[str, Any]:
    return {
        "profiler": "torch",
        "torch_profiler_dir": str(traces),
        "torch_profiler_with_stack": False,
        "torch_profiler_dump_cuda_time_total": False,
        "ignore_frontend": True,
    }


def _batch(
    variant: str, batch: int, engine: Engine, traces: Path, options: argparse.Namespace, kept: report.Report
) -> None:
    print(f"{variant}, batch {batch} ...", file=sys.stderr)
    before = set(traces.rglob("*.json*"))
    engine.ask("trace", batch=batch, context=options.context, steps=options.steps, prefix=f"batch-{batch}")
    (path,) = set(traces.rglob("*.json*")) - before
    summary = summarize(events_of(path))
    total = sum(kernel.us for kernel in summary.kernels)
    lines = []
    for kernel in [*summary.kernels, Kernel("all kernels", sum(k.launches for k in summary.kernels), total)]:
        share = 100 * kernel.us / total
        row = {"model": options.model, "variant": variant, "batch": batch, "context": options.context}
        row |= {"kernel": kernel.name, "launches": kernel.launches, "us": kernel.us, "%": share}
        kept.add(row | {"steps": summary.steps, "busy_us_a_step": summary.busy_us, "us_a_step": summary.step_us})
        lines.append([kernel.name[:NAME_SHOWN], kernel.launches, kernel.us, share])
    lines.append(["the GPU at work", None, summary.busy_us, None])
    lines.append([f"span of {summary.steps} steps", None, summary.step_us, None])
    print(f"\n{variant}, {options.model}, batch {batch}, {options.context} tokens each: one decode step")
    print(report.table(["kernel", "launches", "us", "%"], lines), flush=True)


@dataclass(frozen=True)
class Kernel:
    """What one kernel takes of a step, on average."""

    name: str
    launches: float
    us: float


@dataclass(frozen=True)
class Summary:
    kernels: list[Kernel]
    """The longest first."""
    steps: int
    busy_us: float
    """In which one kernel or more runs, over the steps."""
    step_us: float
    """From the start of the first kernel to the end of the last, over the steps."""


def summarize(events: Iterable[Mapping[str, Any]]) -> Summary:
    """Kernels of a trace by name.

    Raises: ValueError when the trace holds no step, or no kernel.
    """
    steps, spans = 0, []
    sums: dict[str, tuple[int, float]] = {}
    for event in events:
        kind = event.get("cat")
        steps += kind == "user_annotation" and event["name"].startswith(STEP)
        if kind in ON_GPU:
            launches, us = sums.get(event["name"], (0, 0.0))
            sums[event["name"]] = launches + 1, us + event["dur"]
            spans.append((event["ts"], event["ts"] + event["dur"]))
    if not steps or not spans:
        raise ValueError(f"the trace has {steps} steps and {len(spans)} kernels: the profiler saw no GPU")
    kernels = [Kernel(name, launches / steps, us / steps) for name, (launches, us) in sums.items()]
    span = max(end for _, end in spans) - min(start for start, _ in spans)
    return Summary(sorted(kernels, key=lambda kernel: -kernel.us), steps, _covered(spans) / steps, span / steps)


def _covered(spans: Iterable[tuple[float, float]]) -> float:
    """The length of what the spans, from start to end, cover together."""
    covered, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return covered


def events_of(path: Path) -> list[dict[str, Any]]:
    """The events of a trace file of torch's profiler."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return json.loads(data)["traceEvents"]
