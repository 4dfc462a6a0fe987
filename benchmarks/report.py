"""Results: a table on the screen, and a CSV file to which each row goes as soon as it is known.

Each line of the file says on which GPU, at which commit, with which versions and by which command it was measured.
"""

import argparse
import csv
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import floor
from benchmarks.timing import Timing

BEST = 6
"""Launch parameters of a sweep that are shown."""
RESULTS = Path(__file__).parent / "results"
PACKAGES = ("vllm", "torch", "triton")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of every benchmark that keeps its results."""
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="folder of the results")
    parser.add_argument("--commit", help="commit to state in the results, where there is no git to ask")


class Report:
    """The rows of one run, kept in `<out>/<gpu>_<name>.csv`, which is written anew."""

    def __init__(self, name: str, out: Path = RESULTS, commit: str | None = None) -> None:
        self.gpu = gpu_name()
        self.rows: list[dict[str, Any]] = []
        self.path = out / f"{slug(self.gpu)}_{name}.csv"
        self._provenance = provenance(self.gpu, commit)

    def add(self, row: Mapping[str, Any]) -> None:
        """Write a row; all rows of a file have the columns of the first.

        Raises: ValueError for a row with other columns.
        """
        line = {**row, **self._provenance}
        if self.rows and self.rows[0].keys() != row.keys():
            raise ValueError(f"columns {list(row)} do not fit those before, {list(self.rows[0])}")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a" if self.rows else "w", newline="") as file:
            writer = csv.DictWriter(file, line, lineterminator="\n")
            if not self.rows:
                writer.writeheader()
            writer.writerow({key: _short(value) for key, value in line.items()})
        self.rows.append(dict(row))

    def add_op(
        self, shape: str, timing: Timing, moved_bytes: float, flops: float, baseline: Timing | None = None
    ) -> None:
        """Write and print the row of one shape of an operation; timings are in microseconds."""
        us = timing.median
        gpu = floor.gpu_of(self.gpu)
        row = {
            "shape": shape,
            "us": us,
            "us_p20": timing.p20,
            "us_p80": timing.p80,
            "GB/s": moved_bytes / us / 1e3,
            "TFLOP/s": flops / us / 1e6,
            "floor_%": floor.op_ms(gpu, moved_bytes, flops) * 1e5 / us if gpu else None,
            "baseline_us": baseline.median if baseline else None,
            "ratio": baseline.median / us if baseline else None,
        }
        self.add(row)
        cells = [shape, str(timing), *(_cell(row[name]) for name in ("GB/s", "TFLOP/s", "floor_%"))]
        cells += [str(baseline) if baseline else "", _cell(row["ratio"])]
        if len(self.rows) == 1:
            print(_line(_OP_HEAD))
        print(_line(cells), flush=True)


_OP_HEAD = ("shape", "us (p20-p80)", "GB/s", "TFLOP/s", "% of floor", "baseline us", "ratio")
_OP_WIDTHS = (36, 24, 9, 9, 11, 24, 8)


def _line(cells: Iterable[str]) -> str:
    first, *others = zip(cells, _OP_WIDTHS, strict=True)
    return f"{first[0]:{first[1]}}" + "".join(f"{cell:>{width}}" for cell, width in others)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Aligned text: the first column to the left, all others to the right; None is an empty cell."""
    lines = [list(head), *([_cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = []
    for first, *others in lines:
        cells = "".join(f"  {cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True))
        texts.append(f"{first:{widths[0]}}{cells}".rstrip())
    return "\n".join(texts)


def ranked(title: str, times: Mapping[NamedTuple, Timing], picked: NamedTuple, moved_bytes: float | None = None) -> str:
    """A table of the best launch parameters of a sweep, and of those `picked`, with their place among all."""
    order = sorted(times, key=lambda config: times[config].median)
    rows = []
    for rank, config in enumerate(order, 1):
        if rank <= BEST or config == picked:
            us = times[config].median
            place = f"{rank}{' picked' if config == picked else ''}"
            rows.append((place, *config, str(times[config]), moved_bytes and moved_bytes / us / 1e3))
    return table((f"{title} of {len(order)}", *type(picked)._fields, "us (p20-p80)", "GB/s"), rows)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}"
    return str(value)


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def provenance(gpu: str, commit: str | None = None) -> dict[str, str]:
    """Where numbers come from, as columns."""
    return {
        "GPU": gpu,
        "commit": commit or _git_commit(),
        **{package: _version(package) for package in PACKAGES},
        "command": _command(sys.argv[1:]),
    }


def _command(arguments: list[str]) -> str:
    """What repeats a measurement; where its results were put and what the commit was called are not part of it."""
    kept = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add_options(kept)
    _, others = kept.parse_known_args(arguments)
    return shlex.join(["python", "-m", "benchmarks", *others])


def gpu_name() -> str:
    """The GPU as its driver calls it, or "cpu"."""
    return _nvidia_smi("name") or "cpu"


def gpu_memory_bytes() -> int | None:
    """All memory of the GPU; None without one."""
    mebibytes = _nvidia_smi("memory.total")
    return int(mebibytes) << 20 if mebibytes else None


def gpu_memory_used_bytes() -> int:
    """What all processes hold of the GPU; 0 without one."""
    return int(_nvidia_smi("memory.used") or 0) << 20


def slug(name: str) -> str:
    """A name as part of a file's name: `NVIDIA H200` becomes `nvidia-h200`."""
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


def _nvidia_smi(field: str) -> str:
    """One field of the GPU in use; empty without a driver. Asking the driver takes no memory of the GPU."""
    index = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
    command = ["nvidia-smi", f"--id={index}", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    return _output(command)


def _git_commit() -> str:
    return _output(["git", "-C", str(RESULTS.parent), "describe", "--always", "--dirty"]) or "unknown"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
