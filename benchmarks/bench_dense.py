"""Attention's projections in decode steps, beside cuBLAS, which is what stock vLLM runs.

Every call of a sample has weights and tokens of its own, together more than the L2 cache holds: in a step of the model
experts' weights have taken the cache by the time that the next layer's projections run. Bytes are those of the weights,
and of the tokens in and out.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from itertools import product as combinations
from typing import TYPE_CHECKING

from benchmarks import report, timing
from vllm_gptoss.kernels.tuning import DenseConfig, pick_dense

if TYPE_CHECKING:
    import torch

SHAPES = {"qkv": (5120, 2880), "o_proj": (2880, 4096)}
"""Rows and columns of the weights, in both models. Ranks split the rows of the first, and the columns of the second."""
BATCHES = (1, 2, 4, 8, 16, 32)
ROTATED_BYTES = 128 << 20
"""Twice an L2 cache of 50 to 60 MB, the largest on Hopper."""

ERROR_LIMIT = 3e-3
"""Relative, in norm. One rounding to bf16 is 1.7e-3."""

SWEPT = {"rows": (16, 32, 64), "stages": (2, 3, 4, 6, 8, 12), "warps": (2, 4, 8)}
LEAST_ON_THE_WAY = 32 << 10
"""Bytes for each processor: what the bus brings while one of them is awaited. With less it can't be busy."""

Inputs = tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]
"""x [M, K], weight [N, K] and bias [N]."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=SHAPES, metavar="SHAPE")
    parser.add_argument("--ranks", nargs="+", type=int, default=(1,), help="of tensor parallelism; one is measured")
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES, metavar="M")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--sweep", action="store_true", help="try all launch parameters, print the best, keep nothing")
    report.add_options(parser)


def run(options: argparse.Namespace) -> None:
    kept = report.Report("dense", options.out, options.commit)
    for shape, ranks, batch in combinations(options.shapes, options.ranks, options.batches):
        rows, columns = SHAPES[shape]
        rows, columns = (rows // ranks, columns) if shape == "qkv" else (rows, columns // ranks)
        name = f"{shape}{f' of {ranks} ranks' if ranks > 1 else ''} M={batch}"
        inputs = _inputs(batch, rows, columns)
        picked = pick_dense(batch, rows, columns)
        moved = sum(tensor.nbytes for tensor in inputs[0]) + 2 * batch * rows
        if options.sweep:
            _sweep(name, inputs, picked, moved, options.rounds)
            continue
        calls = {"ours": _ours(inputs, picked), "stock": _stock(inputs)}
        _check(inputs[0], calls)
        times = timing.time_graphs(calls, options.rounds)
        kept.add_op(name, times["ours"], moved, 2 * batch * rows * columns, times["stock"])


def _inputs(batch: int, rows: int, columns: int) -> list[Inputs]:
    """As many as `ROTATED_BYTES` takes."""
    import torch

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device="cuda", dtype=torch.bfloat16)

    count = -(-ROTATED_BYTES // (2 * rows * columns))
    return [(normal(batch, columns), normal(rows, columns) / columns**0.5, normal(rows)) for _ in range(count)]


def _ours(inputs: Sequence[Inputs], config: DenseConfig) -> list[Callable[[], "torch.Tensor"]]:
    from vllm_gptoss.kernels.dense import dense

    return [lambda values=values: dense(*values, config) for values in inputs]


def _stock(inputs: Sequence[Inputs]) -> list[Callable[[], "torch.Tensor"]]:
    import torch.nn.functional as F

    return [lambda values=values: F.linear(*values) for values in inputs]


def _check(values: Inputs, variants: dict[object, Sequence[Callable[[], "torch.Tensor"]]]) -> None:
    """A speed counts only if the result is right; the first call of a variant takes `values`.

    Raises: AssertionError.
    """
    x, weight, bias = (tensor.double() for tensor in values)
    expected = x @ weight.T + bias
    for name, calls in variants.items():
        error = ((calls[0]().double() - expected).norm() / expected.norm()).item()
        assert error < ERROR_LIMIT, f"{name} is off by {error:.1e}"


def configs(tokens: int, rows: int, columns: int) -> Iterable[DenseConfig]:
    """Those of the swept that run at once, and keep the bus busy or at least half of the weights on the way."""
    import torch

    from vllm_gptoss.kernels.dense import PART

    device = torch.cuda.get_device_properties(0)
    for tile_rows, stages, warps in combinations(*SWEPT.values()):
        config = DenseConfig(tile_rows, tokens, stages, warps)
        step = 2 * PART.value * warps
        # Triton adds a few bytes, and CUDA a KiB.
        shared = step * (tile_rows + tokens) * stages + (2 << 10)
        programs = -(-rows // tile_rows)
        slots = device.shared_memory_per_multiprocessor // shared
        on_the_way = (stages - 1) * step * tile_rows * programs / device.multi_processor_count
        enough = min(LEAST_ON_THE_WAY, rows * columns / device.multi_processor_count)
        if programs <= slots * device.multi_processor_count and on_the_way >= enough:
            yield config


def _sweep(name: str, inputs: Sequence[Inputs], picked: DenseConfig, moved: int, rounds: int) -> None:
    """Print the best launch parameters, and where those that tuning.py picks stand among all."""
    swept = dict.fromkeys([picked, *configs(picked.tokens, *inputs[0][1].shape)])
    calls = {config: _ours(inputs, config) for config in swept}
    _check(inputs[0], calls)
    times = timing.time_graphs(calls, rounds)
    print(report.ranked(name, times, picked, moved), end="\n\n", flush=True)
