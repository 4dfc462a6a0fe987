"""Decode and prefill of whole models: this package beside stock vLLM, as it comes and with its other MXFP4 backend.

Every variant is an engine of its own with the same random weights. They stay alive together where the GPU holds them
all and take turns, A B C A B C; else one is measured after the other. TPOT is the time of one decode step while the
whole batch decodes, behind distinct random prompts that the prefix cache holds; a first run of each batch size is
thrown away. TTFT is the time to the first token of a prompt never seen before. The ratio is that of the fastest stock
variant to ours, with the smallest and largest over the rounds. First of all the engines' log-probabilities are
compared: an engine that computes something else gets no speed.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks import floor, parity, plan, random_model, report
from benchmarks.engines import OURS, VARIANTS, Engine, EngineError, started
from benchmarks.parity import ParityError
from benchmarks.plan import Job, Shape
from benchmarks.timing import Timing

BATCHES = (1, 2, 3, 4, 5, 8, 9, 16, 17, 32, 64, 128, 256, 512)
"""3, 5, 9 and 17 lie between the sizes of the CUDA graphs."""
PREFILLS = (1024, 8192, 32768)
GRAPHS = (1, 2, 4, 8, 16, 24, 32, 64, 128, 256, 512, 1024)
"""Of vLLM's default sizes (1, 2, 4, then multiples of 8, later of 16) those that a batch or a prompt is padded to."""
WARM_STEPS = 8


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", nargs="+", choices=random_model.SHAPES, default=["20b", "120b"], metavar="SHAPE")
    parser.add_argument("--layers", type=int, help="take fewer layers")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--batches", nargs="*", type=int, default=list(BATCHES), metavar="N")
    parser.add_argument("--context", type=int, default=1024, help="tokens of each prompt while decoding")
    parser.add_argument("--prefills", nargs="*", type=int, default=list(PREFILLS), metavar="TOKENS")
    parser.add_argument("--graphs", nargs="+", type=int, default=list(GRAPHS), metavar="N", help="CUDA graph sizes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=64, help="decode steps a measurement")
    parser.add_argument("--alone", action="store_true", help="one engine at a time, even where all fit")
    parser.add_argument("--kl-limit", type=float, default=parity.LIMIT, help="without a second stock variant")
    report.add_options(parser)


def run(options: argparse.Namespace) -> None:
    try:
        for model in options.model:
            _model(model, options)
    except (ParityError, EngineError) as error:
        raise SystemExit(str(error)) from None


def _model(model: str, options: argparse.Namespace) -> None:
    from tqdm import tqdm

    job = Job(random_model.sizes_of(model, options.layers), options)
    names = [name for name in VARIANTS if name in options.variants]  # ours comes last
    together = not options.alone and job.fits(len(names), report.gpu_memory_bytes())
    groups = [names] if together else [[name] for name in names]
    print(f"{model}: {', '.join(names)} {'take turns' if together else 'one after the other'}", file=sys.stderr)
    total = len(names) * len(job.shapes) * options.rounds
    name = f"serve_{model}" + (f"_{options.context}" if options.context != 1024 else "")
    kept = report.Report(name, options.out, options.commit)
    with tempfile.TemporaryDirectory() as folder, tqdm(total=total, unit="run", file=sys.stderr) as bar:
        random_model.write_folder(Path(folder), job.sizes)
        bench = _Bench(model, job, options, kept, bar)
        for group in groups:
            bar.set_description(f"{model} starts")
            logs = options.out / "logs" / model
            with started(group, job.engine_options(folder, kept.gpu == "cpu"), logs) as engines:
                bench.measure(engines)
    print(plan.serve_table(kept.rows))
    print(f"kept in {kept.path}")
    _draw(kept.path)


class _Bench:
    """What is known of one model so far."""

    def __init__(self, model: str, job: Job, options: argparse.Namespace, kept: report.Report, bar) -> None:
        self.model, self.job, self.options, self.kept, self.bar = model, job, options, kept, bar
        self._answers: dict = {}
        self._timings: dict[tuple[Shape, str], Timing] = {}
        self._gpu = floor.gpu_of(kept.gpu)

    def measure(self, engines: Mapping[str, Engine]) -> None:
        """Raises: ParityError before anything is timed."""
        self.bar.set_description(f"{self.model} parity")
        self._answers |= {name: engine.ask("parity", **parity.QUESTION) for name, engine in engines.items()}
        verdict = parity.check(self._answers, next(iter(self._answers)), OURS, self.options.kl_limit)
        self.bar.write(verdict, file=sys.stdout)
        for shape in self.job.shapes:
            self.bar.set_description(f"{self.model} {shape}")
            for name, timing in self._rounds(shape, engines).items():
                self._timings[shape, name] = timing
                self.kept.add(self._row(shape, name, engines[name]))

    def _rounds(self, shape: Shape, engines: Mapping[str, Engine]) -> dict[str, Timing]:
        for engine in engines.values():
            _throw_away(shape, engine)
        samples: dict[str, list[float]] = {name: [] for name in engines}
        for _ in range(self.options.rounds):
            for name, engine in engines.items():
                samples[name].append(_sample_ms(shape, engine, self.options.steps))
                self.bar.update()
        return {name: Timing.of(values) for name, values in samples.items()}

    def _row(self, shape: Shape, name: str, engine: Engine) -> dict:
        timing = self._timings[shape, name]
        least = shape.floor_ms(self._gpu, self.job.args) if self._gpu else None
        stock = [self._timings[shape, other] for other in VARIANTS if other != OURS and (shape, other) in self._timings]
        best = min(stock, key=lambda one: one.median, default=None) if name == OURS else None
        ratios = [a / b for a, b in zip(best.samples, timing.samples, strict=True)] if best else None
        return {
            "model": self.model,
            **shape.columns,
            "variant": name,
            "ms": timing.median,
            "ms_p20": timing.p20,
            "ms_p80": timing.p80,
            "tokens/s": shape.new_tokens / timing.median * 1e3,
            "floor_ms": least,
            "floor_%": 100 * least / timing.median if least else None,
            "ratio": Timing.of(ratios).median if ratios else None,
            "ratio_min": min(ratios) if ratios else None,
            "ratio_max": max(ratios) if ratios else None,
            "rounds": len(timing.samples),
            "max_num_batched_tokens": engine.facts["max_num_batched_tokens"],
        }


def _throw_away(shape: Shape, engine: Engine) -> None:
    """What vLLM compiles for a new size, and the prompts of a new batch, must not be timed."""
    if shape.kind == "decode":
        engine.ask("warm", batch=shape.batch, context=shape.tokens)
        engine.ask("decode", batch=shape.batch, context=shape.tokens, steps=WARM_STEPS)
    else:
        engine.ask("prefill", tokens=shape.tokens)


def _sample_ms(shape: Shape, engine: Engine, steps: int) -> float:
    if shape.kind == "decode":
        return engine.ask("decode", batch=shape.batch, context=shape.tokens, steps=steps)["ms"]
    return engine.ask("prefill", tokens=shape.tokens)["ms"]


def _draw(path: Path) -> None:
    from benchmarks import figure

    try:
        print(f"drawn in {figure.draw(path)}")
    except figure.NothingToDrawError as error:
        print(error, file=sys.stderr)
