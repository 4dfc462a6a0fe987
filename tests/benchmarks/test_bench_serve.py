"""The whole of `benchmarks serve`, `lengths` and their workers on a model that a CPU can run, this package alone."""

import csv
import subprocess
import sys
from pathlib import Path

from benchmarks import engines, random_model
from benchmarks.__main__ import NAMES
from benchmarks.bench_serve import BATCHES, GRAPHS
from benchmarks.plan import Job

ROOT = Path(__file__).parents[2]


def test_the_command_imports_neither_torch_nor_vllm():
    code = "import sys, benchmarks.__main__ as m, importlib\n"
    code += "[importlib.import_module(f'benchmarks.bench_{n}') for n in m.NAMES]\n"
    code += "sys.exit(bool({'torch', 'vllm', 'matplotlib'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert {"serve", "http", "trace"} <= set(NAMES)


def test_memory_of_the_engines():
    class Options:
        batches, prefills, context, steps, graphs = BATCHES, (1024, 8192, 32768), 1024, 64, [1]

    h200 = 143_771 << 20
    jobs = {shape: Job(random_model.sizes_of(shape), Options) for shape in ("20b", "120b")}
    assert jobs["20b"].fits(3, h200)
    assert jobs["120b"].fits(1, h200)
    assert not jobs["120b"].fits(2, h200)


def test_prompts_are_replayed_from_graphs_where_vllm_does():
    class Options:
        batches, prefills, context, steps, graphs = (1, 4), (1024, 8192), 1024, 64, GRAPHS

    options = Job(random_model.sizes_of("20b"), Options).engine_options("", on_cpu=False)
    assert options["compilation_config"] == {"cudagraph_capture_sizes": list(GRAPHS)}
    Options.prefills = (8192,)
    options = Job(random_model.sizes_of("20b"), Options).engine_options("", on_cpu=False)
    assert options["compilation_config"] == {"cudagraph_capture_sizes": [1, 2, 4, 8, 16]}


def run_on_the_tiny_shape(shell, out: Path, name: str, *options: str) -> str:
    """What it prints."""
    command = [sys.executable, "-m", "benchmarks", name, "--model", "tiny", "--variants", "plugin", "--out", out]
    # A fork spares the engine's process vLLM's imports; it is safe as long as torch has no threads of its own.
    environment = {**shell, "VLLM_WORKER_MULTIPROC_METHOD": "fork", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_serve_end_to_end(tmp_path, shell):
    options = ["--batches", "1", "3", "--context", "64", "--prefills", "96", "--rounds", "2", "--steps", "6"]
    assert "decode 3 x 64" in run_on_the_tiny_shape(shell, tmp_path, "serve", *options)
    with (tmp_path / "cpu_serve_tiny_64.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["kind"], row["batch"], row["rounds"]) for row in rows] == [
        ("decode", "1", "2"),
        ("decode", "3", "2"),
        ("prefill", "1", "2"),
    ]
    assert all(float(row["ms"]) > 0 for row in rows)


def test_lengths_end_to_end(tmp_path, shell):
    options = ["--count", "3", "--shortest", "20", "--longest", "90", "--again", "64", "--rounds", "2"]
    printed = run_on_the_tiny_shape(shell, tmp_path, "lengths", *options)
    assert "new lengths" in printed
    with (tmp_path / "cpu_lengths_tiny.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["prompts"], row["variant"], row["count"]) for row in rows] == [
        ("new lengths", "plugin", "3"),
        ("64", "plugin", "2"),
    ]
    assert all(0 < float(row["median_ms"]) <= float(row["worst_ms"]) for row in rows)


def test_engines_with_caches_of_their_own(tmp_path, monkeypatch):
    """Each has another folder, and nobody's is left."""
    seen = []

    class Started(engines.Engine):
        def __init__(self, name, options, log, cache=None) -> None:
            seen.append(cache)

        def __enter__(self):
            return self

        def __exit__(self, *_) -> None:
            pass

        def wait_ready(self) -> None:
            assert all(cache.parent.is_dir() for cache in seen if cache)

    monkeypatch.setattr(engines, "Engine", Started)
    with engines.started(["stock", "plugin"], {}, tmp_path, own_caches=True):
        pass
    assert len(set(seen)) == 2
    assert not any(cache.parent.exists() for cache in seen)
    seen.clear()
    with engines.started(["plugin"], {}, tmp_path):
        assert seen == [None]


def test_the_kv_cache_holds_prompts_and_what_is_generated():
    """512 prompts of 20b in both kinds of layers, and 64 steps: blocks of 16 tokens of 12 layers' keys and values."""

    class Options:
        batches, prefills, context, steps, graphs = (512,), (), 1024, 64, [1]

    page = 16 * 12 * 2 * 8 * 64 * 2
    pages = Job(random_model.sizes_of("20b"), Options).kv_bytes() / page
    assert pages > 2 * 512 * (1024 + 64 + 16) / 16
