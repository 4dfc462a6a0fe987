"""Time of an operation on the GPU: variants of it as CUDA graphs that take turns.

A variant is a list of closures that do the same work on other inputs, one a layer say: together they must move more
than the L2 cache holds, or the cache is what is measured. All closures of a variant are captured in one graph.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

SAMPLE_US = 2_000.0
"""A sample lasts at least this long, so that the resolution of CUDA events, 0.5 us, does not show."""
WARM_CALLS = 3
"""Triton compiles at the first call of a kernel, cuBLAS takes its workspace there."""


@dataclass(frozen=True)
class Timing:
    """Time of one call: median, 20th and 80th percentile, and the samples they come from, in one unit."""

    median: float
    p20: float
    p80: float
    samples: tuple[float, ...]

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Timing":
        """Raises: statistics.StatisticsError for no samples."""
        median = statistics.median(samples)
        if len(samples) == 1:
            return cls(median, median, median, tuple(samples))
        fifths = statistics.quantiles(samples, n=5, method="inclusive")
        return cls(median, fifths[0], fifths[3], tuple(samples))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.p20:.2f}-{self.p80:.2f})"


def time_graphs(variants: Mapping[str, Sequence[Callable[[], object]]], rounds: int = 30) -> dict[str, Timing]:
    """Microseconds of one closure, for each variant; in every round each variant is sampled once.

    Closures must neither wait for the GPU nor read its results: they are captured.

    Raises: RuntimeError without a GPU; ValueError for a variant without closures.
    """
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError("timing needs a GPU: CUDA graphs are what is timed")
    if empty := [name for name, calls in variants.items() if not calls]:
        raise ValueError(f"nothing to time for {', '.join(empty)}")
    graphs = {name: _captured(calls) for name, calls in variants.items()}
    replays = {name: max(1, round(SAMPLE_US / max(_sample_us(graph, 1), 1.0))) for name, graph in graphs.items()}
    samples: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, graph in graphs.items():
            samples[name].append(_sample_us(graph, replays[name]) / len(variants[name]))
    return {name: Timing.of(values) for name, values in samples.items()}


def _captured(calls: Sequence[Callable[[], object]]):
    """A CUDA graph of all calls, one after the other, that has run once."""
    import torch

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_CALLS):
            for call in calls:
                call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    graph.replay()
    torch.cuda.synchronize()
    return graph


def _sample_us(graph, replays: int) -> float:
    """Microseconds of one replay, the mean of `replays` in a row; one more goes before them, untimed."""
    import torch

    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    graph.replay()
    start.record()
    for _ in range(replays):
        graph.replay()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) * 1e3 / replays
