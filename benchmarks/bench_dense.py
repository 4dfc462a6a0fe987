"""Attention's projections in decode steps, beside cuBLAS, which is what stock vLLM runs.

Every call of a sample has weights and tokens of its own, together more than the L2 cache holds: in a step of the model
experts' weights have taken the cache by the time that the next layer's projections run. Bytes are those of the weights,
and of the tokens in and out.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from itertools import product as combinations
from typing import TYPE_CHECKING

from benchmarks import expert_products, report, timing
from vllm_gptoss.kernels.tuning import DenseConfig, WideDenseConfig, dense_registers, pick_dense, pick_wide_dense

if TYPE_CHECKING:
    import torch

SHAPES = {"qkv": (5120, 2880), "o_proj": (2880, 4096)}
"""Rows and columns of the weights, in both models. Ranks split the rows of the first, and the columns of the second."""
BATCHES = (1, 2, 4, 8, 16, 24, 32, 64)
ROTATED_BYTES = 128 << 20
"""Twice an L2 cache of 50 to 60 MB, the largest on Hopper."""

ERROR_LIMIT = 3e-3
"""Relative, in norm. One rounding to bf16 is 1.7e-3."""

SWEPT = {"rows": (16, 32, 64), "stages": (1, 2, 3, 4, 6, 8), "burst": (1, 2, 4), "warps": (2, 4, 8), "ahead": (4, 64)}
SWEPT_WIDE = {"rows": (32, 64), "stages": (3, 4, 5, 6), "warps": (4, 8)}
SHARED_BYTES = 227 << 10
"""Of Hopper's, for one program at most."""
LEAST_ON_THE_WAY = 32 << 10
"""Bytes for each processor: what the bus brings while one of them is awaited. With less it can't be busy."""

Config = DenseConfig | WideDenseConfig
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
        picked = pick(batch, rows, columns)
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


def pick(tokens: int, rows: int, columns: int) -> Config:
    """What the model runs on this GPU with that many tokens.

    Raises: SystemExit for so many that it runs cuBLAS.
    """
    from vllm_gptoss.ops import MAX_DENSE_TOKENS, MAX_WIDE_DENSE_TOKENS

    if tokens <= MAX_DENSE_TOKENS:
        return pick_dense(tokens, rows, columns)
    most = MAX_WIDE_DENSE_TOKENS if expert_products.is_hopper() else MAX_DENSE_TOKENS
    if tokens > most:
        raise SystemExit(f"projections of {tokens} tokens are cuBLAS's on this GPU: name --batches of up to {most}")
    return pick_wide_dense(rows, columns)


def _ours(inputs: Sequence[Inputs], config: Config) -> list[Callable[[], "torch.Tensor"]]:
    from vllm_gptoss.kernels.dense import dense
    from vllm_gptoss.kernels.dense_wide import dense_wide

    kernel = dense if isinstance(config, DenseConfig) else dense_wide
    return [lambda values=values: kernel(*values, config) for values in inputs]


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


def configs(picked: Config, rows: int, columns: int) -> Iterable[Config]:
    """Those of the swept, of the kind that is `picked`, that fit a processor."""
    if isinstance(picked, WideDenseConfig):
        swept = (WideDenseConfig(*values) for values in combinations(*SWEPT_WIDE.values()))
        return (c for c in swept if 256 * c.stages * (c.rows + 64) <= SHARED_BYTES)
    swept = (DenseConfig(r, picked.tokens, *values) for r, *values in combinations(*SWEPT.values()))
    return filter(None, (_that_runs_at_once(config, rows, columns) for config in swept))


def _that_runs_at_once(config: DenseConfig, rows: int, columns: int) -> DenseConfig | None:
    """With the registers that this takes; None if its programs do not, or keep the bus idle with weights left."""
    import torch

    device = torch.cuda.get_device_properties(0)
    programs = -(-rows // config.rows)
    at_once = -(-programs // device.multi_processor_count)
    ring = 128 * config.warps * config.rows * config.stages * config.burst
    # CUDA adds a KiB.
    if ring > SHARED_BYTES or at_once * (ring + (1 << 10)) > device.shared_memory_per_multiprocessor:
        return None
    on_the_way = min(ring, 2 * config.rows * columns) * programs
    if on_the_way < min(LEAST_ON_THE_WAY * device.multi_processor_count, 2 * rows * columns):
        return None
    return config._replace(registers=dense_registers(at_once, config.warps))


def _sweep(name: str, inputs: Sequence[Inputs], picked: Config, moved: int, rounds: int) -> None:
    """Print the best launch parameters, and where those that tuning.py picks stand among all."""
    swept = dict.fromkeys([picked, *configs(picked, *inputs[0][1].shape)])
    calls = {config: _ours(inputs, config) for config in swept}
    _check(inputs[0], calls)
    times = timing.time_graphs(calls, rounds)
    print(report.ranked(name, times, picked, moved), end="\n\n", flush=True)
