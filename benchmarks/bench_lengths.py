"""First tokens of prompts of lengths not served before: this package beside stock vLLM.

A kernel that is compiled while it serves makes the first prompts of new lengths wait, once a machine: what Triton has
compiled it keeps on disk, so each engine gets a cache of its own, empty. Both take turns, one random prompt of each
length, and none is thrown away. Then `--again` prompts of the lengths that cuBLAS and the CUDA graphs know by then.
"""

import argparse
import random
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks import random_model, report
from benchmarks.bench_serve import GRAPHS
from benchmarks.engines import OURS, VARIANTS, Engine, EngineError, started
from benchmarks.plan import Job


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", choices=random_model.SHAPES, default="20b", metavar="SHAPE")
    parser.add_argument("--layers", type=int, help="take fewer layers")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["stock", OURS], metavar="NAME")
    parser.add_argument("--count", type=int, default=24, help="lengths")
    parser.add_argument("--shortest", type=int, default=600, metavar="TOKENS")
    parser.add_argument("--longest", type=int, default=6000, metavar="TOKENS")
    parser.add_argument("--again", nargs="*", type=int, default=[1024, 8192], metavar="TOKENS")
    parser.add_argument("--rounds", type=int, default=8, help="prompts of each length of --again")
    report.add_options(parser)


def run(options: argparse.Namespace) -> None:
    lengths = random.Random(0).sample(range(options.shortest, options.longest), options.count)
    shapes = argparse.Namespace(
        batches=[1], context=options.longest, prefills=[options.longest, *options.again], graphs=GRAPHS, steps=1
    )
    job = Job(random_model.sizes_of(options.model, options.layers), shapes)
    kept = report.Report(f"lengths_{options.model}", options.out, options.commit)
    names = [name for name in VARIANTS if name in options.variants]
    with tempfile.TemporaryDirectory() as folder:
        random_model.write_folder(Path(folder), job.sizes)
        logs = options.out / "logs" / f"lengths_{options.model}"
        try:
            with started(names, job.engine_options(folder, kept.gpu == "cpu"), logs, own_caches=True) as engines:
                _measure(engines, options.model, "new lengths", lengths, kept)
                for length in options.again:
                    _ask(engines, [length])
                    _measure(engines, options.model, str(length), [length] * options.rounds, kept)
        except EngineError as error:
            raise SystemExit(str(error)) from None
    print(report.table(list(kept.rows[0]), [list(row.values()) for row in kept.rows]))
    print(f"kept in {kept.path}", file=sys.stderr)


def _measure(engines: dict[str, Engine], model: str, what: str, lengths: list[int], kept: report.Report) -> None:
    for name, ms in _ask(engines, lengths).items():
        kept.add(
            {
                "model": model,
                "prompts": what,
                "variant": name,
                "count": len(ms),
                "median_ms": statistics.median(ms),
                "mean_ms": statistics.fmean(ms),
                "worst_ms": max(ms),
            }
        )


def _ask(engines: dict[str, Engine], lengths: list[int]) -> dict[str, list[float]]:
    """Milliseconds to the first token, by engine."""
    found: dict[str, list[float]] = {name: [] for name in engines}
    for length in lengths:
        for name, engine in engines.items():
            found[name].append(engine.ask("prefill", tokens=length)["ms"])
    return found
