"""Layers of a decode step as the model launches them, one after the other: what a launch costs among its neighbours.

Launches overlap: one that is faster alone may be slower behind another. So launch parameters are chosen here: `--sweep`
tries those of one operation while all others stay. Layers have weights, caches and experts of their own, sliding and
full in turn; microseconds are those of one layer, bytes those of its weights in use and of its visible keys.
"""

import argparse
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from benchmarks import bench_dense, expert_products, floor, random_model, report, timing
from benchmarks.expert_products import SHAPES
from vllm_gptoss.kernels.tuning import tile_tokens
from vllm_gptoss.model.config import ModelArgs

if TYPE_CHECKING:
    import torch

    from vllm_gptoss.ops import NewTokens, SwizzledExperts

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
BLOCK = 16
LAYERS = 8
MAX_SEQ_LEN = 131_072
SWEEPS = {"gate_up": (1,), "down": (1, 2, 4), "qkv": (), "output": ()}
"""What can be swept; of an expert product, over which shares."""


class Layer(NamedTuple):
    norms: Sequence["torch.Tensor"]
    qkv: Sequence["torch.Tensor"]
    output: Sequence["torch.Tensor"]
    router: Sequence["torch.Tensor"]
    experts: "SwizzledExperts"
    sinks: "torch.Tensor"
    cache: "torch.Tensor"
    window: int | None


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=SHAPES, metavar="SHAPE")
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES, metavar="M")
    parser.add_argument("--context", type=int, default=1024, help="tokens of each request")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--sweep", nargs="+", choices=SWEEPS, metavar="OPERATION", help="print the best, keep nothing")
    report.add_options(parser)


def run(options: argparse.Namespace) -> None:
    kept = report.Report("layer", options.out, options.commit)
    for model in options.models:
        args = random_model.args_of(random_model.sizes_of(model))
        layers = [_layer(args, index) for index in range(LAYERS)]
        for batch in options.batches:
            step = _Step(args, layers, batch, options.context)
            for operation in options.sweep or ():
                _sweep(f"{model} M={batch} {operation}", operation, step, options.rounds)
            if not options.sweep:
                flops = 2 * _moved(args, batch, options.context) * batch
                times = timing.time_graphs({"ours": step.calls()}, options.rounds)
                kept.add_op(f"{model} M={batch}", times["ours"], _moved(args, batch, options.context), flops)


def _layer(args: ModelArgs, index: int) -> Layer:
    import torch

    def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return torch.randn(shape, device="cuda", dtype=torch.bfloat16) * scale

    def linear(rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
        # What all tokens have in common stays small: else they would choose the same experts.
        return normal(rows, columns, scale=columns**-0.5), normal(rows, scale=0.1)

    hidden, heads = args.hidden_size, args.num_heads * args.head_dim
    return Layer(
        norms=[torch.ones(hidden, device="cuda", dtype=torch.bfloat16) for _ in range(2)],
        qkv=linear(heads + 2 * args.num_kv_heads * args.head_dim, hidden),
        output=linear(hidden, heads),
        router=linear(args.num_experts, hidden),
        experts=expert_products.random_experts(args),
        sinks=normal(args.num_heads),
        cache=torch.empty(0),
        window=args.windows[index],
    )


class _Step:
    """Layers of one decode step of `batch` requests of `context` tokens each."""

    def __init__(self, args: ModelArgs, layers: Sequence[Layer], batch: int, context: int) -> None:
        import torch

        self.args, self.batch = args, batch
        pages = -(-context // BLOCK) * batch
        shape = (pages, BLOCK, args.num_kv_heads, 2 * args.head_dim)
        caches = (torch.randn(shape, dtype=torch.bfloat16, device="cuda").transpose(1, 2) for _ in layers)
        self.layers = [layer._replace(cache=cache) for layer, cache in zip(layers, caches, strict=True)]
        self.table = torch.randperm(pages, device="cuda", dtype=torch.int32).view(batch, -1)
        self.lengths = torch.full((batch,), context, dtype=torch.int32, device="cuda")
        last = self.table[:, -1].long()
        self.slots = last * BLOCK + (context - 1) % BLOCK
        turns = torch.rand(batch, args.head_dim // 2, dtype=torch.float32, device="cuda") * 6
        self.angles = turns.cos(), turns.sin()
        self.x = torch.randn(batch, args.hidden_size, dtype=torch.bfloat16, device="cuda")
        self.residual = torch.randn_like(self.x)

    def calls(self) -> list[Callable[[], None]]:
        return [lambda layer=layer: self._run(layer) for layer in self.layers]

    def _run(self, layer: Layer) -> None:
        """As `model/gptoss.py` does, but every layer has the same tokens: random ones, who choose at random."""
        from vllm_gptoss import ops

        args, eps = self.args, self.args.rms_eps
        normed, residual = ops.decode_rmsnorm(self.x, layer.norms[0], eps, self.residual)
        heads = ops.dense(normed, *layer.qkv).view(self.batch, -1, args.head_dim)
        q, keys, values = heads.split([args.num_heads, args.num_kv_heads, args.num_kv_heads], dim=1)
        out = q.new_empty(self.batch, args.num_heads, args.head_dim)
        new: NewTokens = ops.NewTokens(keys, values, *self.angles, self.slots)
        caches = layer.cache.split(args.head_dim, dim=-1)
        scale = args.head_dim**-0.5
        ops.decode_attention(
            q, *caches, self.table, self.lengths, layer.sinks, scale, layer.window, out, MAX_SEQ_LEN, new
        )
        x = ops.dense(out.view(self.batch, -1), *layer.output)
        x, _ = ops.decode_rmsnorm(x, layer.norms[1], eps, residual)
        ops.routed_experts(
            x, *layer.router, layer.experts, args.experts_per_token, args.swiglu_alpha, args.swiglu_limit, self.slots
        )


def _moved(args: ModelArgs, batch: int, context: int) -> float:
    """Bytes of a layer, the mean of sliding and full ones and of random choices of experts."""
    hidden, heads = args.hidden_size, args.num_heads * args.head_dim
    dense = hidden * (2 * heads + 2 * args.num_kv_heads * args.head_dim + args.num_experts) * floor.BF16
    expert = 3 * hidden * args.intermediate_size * floor.MXFP4_BYTES
    keys = sum(min(context, window or context) for window in args.windows[:LAYERS]) / LAYERS * batch
    return dense + floor.distinct_experts(args, batch) * expert + keys * floor.kv_bytes_a_token(args)


@contextlib.contextmanager
def _picked(name: str, config: object, shape: tuple[int, int] | None) -> Iterator[None]:
    """`config` in the place of what `name` of tuning.py picks; of dense layers for that of `shape`."""
    from vllm_gptoss import ops

    pick = getattr(ops, name)
    setattr(ops, name, lambda *asked: config if shape in (None, asked[-2:]) else pick(*asked))
    try:
        yield
    finally:
        setattr(ops, name, pick)


def _sweep(title: str, operation: str, step: _Step, rounds: int) -> None:
    """Print the best launch parameters of `operation`, and where those that tuning.py picks stand among all."""
    from vllm_gptoss.kernels import tuning

    args, pairs = step.args, step.batch * step.args.experts_per_token
    name, shape = f"pick_{operation}", None
    if operation in ("qkv", "output"):
        shape = tuple(getattr(step.layers[0], operation)[0].shape)
        picked = bench_dense.pick(step.batch, *shape)
        name = "pick_dense" if isinstance(picked, tuning.DenseConfig) else "pick_wide_dense"
        configs = bench_dense.configs(picked, *shape)
    else:
        picked = getattr(tuning, name)(pairs, args.num_experts, expert_products.is_hopper())
        configs = expert_products.configs(pairs, args.num_experts, SWEEPS[operation])
        # Both products have the router's tiles.
        configs = [config for config in configs if config.tokens == tile_tokens(pairs, args.num_experts)]
    times = {}
    for config in dict.fromkeys([picked, *configs]):
        with _picked(name, config, shape):
            times[config] = timing.time_graphs({"ours": step.calls()}, rounds)["ours"]
    print(report.ranked(title, times, picked), end="\n\n", flush=True)
