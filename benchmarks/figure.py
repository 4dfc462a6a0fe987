"""TPOT over the batch size, drawn from the CSV of `benchmarks serve`.

    python -m benchmarks.figure benchmarks/results/GPU_serve_20b.csv

draws it again, on any machine: the one that measures need not have matplotlib.
"""

import csv
import sys
from pathlib import Path

STYLES = {"stock": ("#7f7f7f", "o"), "marlin": ("#1f77b4", "s"), "plugin": ("#d62728", "D")}


class NothingToDrawError(RuntimeError):
    """matplotlib is missing, or the file has no decode steps."""


def draw(path: Path) -> Path:
    """Write `path` with the suffix .png beside it; returns where.

    Raises: NothingToDrawError.
    """
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "decode"]
    if not rows:
        raise NothingToDrawError(f"{path} has no decode steps to draw")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise NothingToDrawError(
            f"no picture: matplotlib is missing. pip install 'vllm-gptoss[bench]', then: "
            f"python -m benchmarks.figure {path}"
        ) from None
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    _plot(figure.add_subplot(), rows)
    png = path.with_suffix(".png")
    figure.savefig(png, dpi=150)
    return png


def _plot(axes, rows: list[dict[str, str]]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    for name, (colour, marker) in STYLES.items():
        points = sorted(
            (int(r["batch"]), *(float(r[c]) for c in ("ms", "ms_p20", "ms_p80"))) for r in rows if r["variant"] == name
        )
        if points:
            batch, ms, low, high = zip(*points, strict=True)
            axes.plot(batch, ms, color=colour, marker=marker, markersize=4, label=name)
            axes.fill_between(batch, low, high, color=colour, alpha=0.2, linewidth=0)
    if least := sorted({(int(row["batch"]), float(row["floor_ms"])) for row in rows if row["floor_ms"]}):
        axes.plot(*zip(*least, strict=True), color="black", linestyle="--", linewidth=1, label="floor")
    ticks = sorted({int(row["batch"]) for row in rows if int(row["batch"]).bit_count() == 1})
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlabel("requests in the batch")
    axes.set_ylabel("ms a decode step (TPOT)")
    first = rows[0]
    axes.set_title(
        f"gpt-oss {first['model']}, prompts of {first['tokens']} tokens, {first['GPU']}, vLLM {first['vllm']}",
        fontsize=10,
    )
    axes.grid(which="both", alpha=0.3, linewidth=0.5)
    axes.legend()


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(draw(Path(argument)))
