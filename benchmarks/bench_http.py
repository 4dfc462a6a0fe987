"""Servers under load: `vllm bench serve` against this package and against stock vLLM, both up on one GPU.

Random weights at a published shape, with the tokenizer of the tiny checkpoint; random prompts. Every concurrency is
measured on one server after the other, `--rounds` times in turn; shown are medians, and stock over ours (for the
throughput ours over stock: above 1 is faster in all).
"""

import argparse
import contextlib
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from benchmarks import random_model, report
from benchmarks.bench_serve import GRAPHS
from benchmarks.engines import OURS, START_SECONDS, VARIANTS
from benchmarks.plan import Job
from vllm_gptoss.demo.server import Server, ServerError, reserved_port

NAME = "random"
"""What the servers call the model."""
METRICS = {
    # Field in the result of `vllm bench serve`: heading, and whether more is better.
    "request_throughput": ("requests/s", True),
    "median_ttft_ms": ("TTFT ms", False),
    "median_tpot_ms": ("TPOT ms", False),
}
BENCH_SECONDS = 900
ROOT = Path(__file__).parents[1]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", choices=random_model.PUBLISHED, default="20b", metavar="SHAPE")
    parser.add_argument("--layers", type=int, help="take fewer layers")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["stock", OURS], metavar="NAME")
    parser.add_argument("--concurrency", nargs="+", type=int, default=[1, 8, 32, 128], metavar="N")
    parser.add_argument("--input", type=int, default=1024, help="tokens of a prompt")
    parser.add_argument("--output", type=int, default=128, help="tokens of an answer")
    parser.add_argument("--waves", type=int, default=4, help="requests of a run over its concurrency")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--graphs", nargs="+", type=int, default=list(GRAPHS), metavar="N", help="CUDA graph sizes")
    report.add_options(parser)


def run(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    names = [name for name in VARIANTS if name in options.variants]
    kept = report.Report(f"http_{options.model}", options.out, options.commit)
    total = len(names) * (len(options.concurrency) * options.rounds + 1)
    lines = []
    seeds = itertools.count()  # prompts seen before would be in the prefix cache
    with tempfile.TemporaryDirectory() as folder, tqdm(total=total, unit="run", file=sys.stderr) as bar:
        bar.set_description("servers start")
        try:
            with contextlib.ExitStack() as stack:
                servers = _servers(names, Path(folder), options, stack, on_cpu=kept.gpu == "cpu")
                bar.set_description("warms up")  # vLLM compiles for batch sizes as they come
                _rounds(servers, max(options.concurrency), [next(seeds)], Path(folder), options, bar)
                for concurrency in options.concurrency:
                    bar.set_description(f"concurrency {concurrency}")
                    rounds = [next(seeds) for _ in range(options.rounds)]
                    results = _rounds(servers, concurrency, rounds, Path(folder), options, bar)
                    lines.append(_keep(concurrency, results, options, kept))
        except ServerError as error:
            raise SystemExit(str(error)) from None
    heads = [f"{name} {head}" for head, _ in METRICS.values() for name in (*results, "ratio")]
    print(report.table(["concurrency", *heads], lines))
    print(f"kept in {kept.path}")


def _servers(
    names: list[str], folder: Path, options: argparse.Namespace, stack: contextlib.ExitStack, on_cpu: bool
) -> dict[str, Server]:
    """Servers by name, started side by side and ready."""
    job = _job(options)
    random_model.write_folder(folder, job.sizes, tokenizer=True)
    servers = {}
    for name in names:
        port = stack.enter_context(reserved_port())
        command = [sys.executable, "-m", "benchmarks.serve_random", "serve", *_flags(job, folder, name, port, on_cpu)]
        log = options.out / "logs" / f"http_{options.model}" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = VARIANTS[name].environment
        # The launcher is found from wherever this was started.
        environment["PYTHONPATH"] = ":".join(filter(None, (str(ROOT), environment.get("PYTHONPATH"))))
        servers[name] = stack.enter_context(Server(command, port, log, environment))
    for server in servers.values():
        server.wait_healthy(START_SECONDS)
    return servers


def _job(options: argparse.Namespace) -> Job:
    """Memory and limits of a server for the largest concurrency."""
    shapes = argparse.Namespace(
        batches=options.concurrency,
        context=options.input + options.output,
        prefills=[options.input],
        graphs=options.graphs,
        steps=options.output,
    )
    return Job(random_model.sizes_of(options.model, options.layers), shapes)


def _flags(job: Job, folder: Path, name: str, port: int, on_cpu: bool) -> list[str]:
    settings = job.engine_options(str(folder), on_cpu) | dict(VARIANTS[name].options)
    flags = [settings.pop("model"), "--host=127.0.0.1", f"--port={port}", f"--served-model-name={NAME}"]
    for option, value in settings.items():
        text = json.dumps(value) if isinstance(value, dict) else str(value)
        flags.append(f"--{option.replace('_', '-')}={text}")
    return [*flags, f"--load-format={random_model.LOAD_FORMAT}"]


Results = dict[str, list[Mapping[str, float]]]


def _rounds(
    servers: Mapping[str, Server],
    concurrency: int,
    seeds: Iterable[int],
    folder: Path,
    options: argparse.Namespace,
    bar,
) -> Results:
    """Results by server, one for each seed."""
    results: Results = {name: [] for name in servers}
    for seed in seeds:
        for name, server in servers.items():
            results[name].append(_bench(server, concurrency, seed, folder, options))
            bar.update()
    return results


def _bench(
    server: Server, concurrency: int, seed: int, folder: Path, options: argparse.Namespace
) -> Mapping[str, float]:
    """One run of `vllm bench serve`, as it reports itself.

    Raises: ServerError when it failed, or a request did.
    """
    server.check_alive()
    prompts = max(8, concurrency * options.waves)
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "bench", "serve", "--backend=openai"]
    command += [f"--base-url={server.url}", f"--model={NAME}", f"--tokenizer={folder}", "--dataset-name=random"]
    command += [f"--random-input-len={options.input}", f"--random-output-len={options.output}", "--ignore-eos"]
    command += [f"--num-prompts={prompts}", f"--max-concurrency={concurrency}", f"--seed={seed}", "--temperature=0"]
    command += ["--disable-tqdm", "--save-result", f"--result-dir={folder}", "--result-filename=result.json"]
    environment = VARIANTS["stock"].environment
    done = subprocess.run(command, capture_output=True, text=True, timeout=BENCH_SECONDS, env=environment)
    if done.returncode:
        raise ServerError(f"vllm bench serve ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")
    result = json.loads((folder / "result.json").read_text())
    if result["completed"] != prompts:
        raise ServerError(f"{result['completed']} of {prompts} requests came through (log: {server.log})")
    return result


def _keep(concurrency: int, results: Results, options: argparse.Namespace, kept: report.Report) -> list:
    """Writes the rows of one concurrency; returns its line of the table."""
    medians = {
        name: {field: statistics.median(run[field] for run in runs) for field in METRICS}
        for name, runs in results.items()
    }
    for name, values in medians.items():
        row = {"model": options.model, "concurrency": concurrency, "variant": name, "input": options.input}
        kept.add(row | {"output": options.output, "rounds": options.rounds} | values)
    line: list = [concurrency]
    for field, (_, more_is_better) in METRICS.items():
        values = {name: row[field] for name, row in medians.items()}
        stock = [value for name, value in values.items() if name != OURS]
        ratio = None
        if OURS in values and stock:
            ratio = values[OURS] / max(stock) if more_is_better else min(stock) / values[OURS]
        line += [*values.values(), ratio]
    return line
