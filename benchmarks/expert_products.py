"""A product of the experts beside vLLM's over the same bytes: random layers and routings, parity, times, and a sweep.

Stock is `matmul_ogs` with weights in the order of its Hopper layouts, as vLLM's Triton experts call it. Every call of a
sample has a layer and a routing of its own, and each token's experts are distinct. Bytes are those of the experts in
use, each once, and of the tokens in and out.
"""

import argparse
from collections.abc import Callable, Sequence
from itertools import product as combinations
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple

from benchmarks import floor, random_model, report, timing
from vllm_gptoss.kernels.tuning import ExpertConfig
from vllm_gptoss.model.config import MXFP4_BLOCK, ModelArgs

if TYPE_CHECKING:
    import torch

    from vllm_gptoss.kernels.grouping import Routing
    from vllm_gptoss.ops import SwizzledExperts

SHAPES = ("20b", "120b")
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
LAYERS = 8
"""One token reads 18 MB in the smaller product: eight calls read twice an L2 cache of 50 to 60 MB, Hopper's largest."""

ERROR_LIMIT = 5e-3
"""Relative, in norm. One rounding to bf16 is 1.7e-3; stock rounds what each expert adds to a token, and their sum."""
CHECKED_TOKENS = 2

SWEPT_TILES = ((64, 4), (128, 4), (128, 8), (256, 8))
"""Rows and warps."""
SWEPT_TOKENS = (8, 16, 32, 64, 128)
SWEPT_RINGS = ((2, 1), (3, 1), (4, 1), (6, 1), (2, 2), (3, 2), (4, 2), (5, 2), (2, 3))
"""Bursts, and steps of one."""
SWEPT_REGISTERS = (None, 80)
"""The most of a thread: as the compiler likes, or such that six programs of four warps run at once."""
SHARED_BYTES = 113 << 10
"""Of the larger configurations two programs are to fit an SM of Hopper."""


class Weights(NamedTuple):
    """Experts of a layer in one product; `stock` and `precision` are the same bytes as vLLM's kernels take them."""

    blocks: "torch.Tensor"
    scales: "torch.Tensor"
    bias: "torch.Tensor"
    stock: object
    precision: object


class Inputs(NamedTuple):
    """What one call reads. Pair p of a token and an expert is slot p % K of token p // K."""

    args: ModelArgs
    weights: Weights
    x: "torch.Tensor"  # bf16: tokens [M, H], or for the second product pairs [M * K, I]
    shares: "torch.Tensor"  # [M, K] fp32, which bf16 holds: stock has them in bf16
    ids: "torch.Tensor"  # [M, K] int32
    stock_x: "torch.Tensor"  # as `x`, but pairs are sorted by expert
    stock_routing: object
    gather: object
    scatter: object


class Product(NamedTuple):
    name: str
    half: int  # 0: from tokens to pairs, the first of an expert's two products; 1: back
    shares: tuple[int, ...]  # to sweep over
    pick: Callable[[int, int, bool], ExpertConfig]  # of pairs and experts, and whether for Hopper
    ours: Callable[[Inputs, "Routing", ExpertConfig], "torch.Tensor"]
    stock: Callable[[Inputs], "torch.Tensor"]
    expected: Callable[[Inputs, "torch.Tensor"], "torch.Tensor"]  # fp32, by fp32 weights [E, R, C]

    def shape(self, args: ModelArgs) -> tuple[int, int]:
        """Rows and columns of one expert's weights."""
        return (
            (args.hidden_size, args.intermediate_size) if self.half else (2 * args.intermediate_size, args.hidden_size)
        )


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=SHAPES, metavar="SHAPE")
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES, metavar="M")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--sweep", action="store_true", help="try all launch parameters, print the best, keep nothing")
    report.add_options(parser)


def run(options: argparse.Namespace, product: Product) -> None:
    kept = report.Report(product.name, options.out, options.commit)
    for model in options.models:
        args = random_model.args_of(random_model.sizes_of(model))
        layers = [_weights(args, product.half) for _ in range(LAYERS)]
        for batch in options.batches:
            inputs = [_inputs(args, weights, batch, product.half) for weights in layers]
            picked = product.pick(batch * args.experts_per_token, args.num_experts, is_hopper())
            if options.sweep:
                _sweep(f"{model} M={batch}", product, inputs, picked, options.rounds)
                continue
            calls = {
                "ours": _ours(product, inputs, picked),
                "stock": [lambda values=values: product.stock(values) for values in inputs],
            }
            ours, stock = (series[0]() for series in calls.values())
            _check(product, inputs[0], {"ours": _lowered(product, ours, picked), "stock": stock})
            times = timing.time_graphs(calls, options.rounds)
            flops = 2 * batch * args.experts_per_token * args.hidden_size * product.shape(args)[0]
            kept.add_op(f"{model} M={batch}", times["ours"], _moved(product, inputs), flops, times["stock"])


def is_hopper() -> bool:
    import torch

    from vllm_gptoss.kernels.capability import HOPPER, capability

    return capability(torch.device("cuda")) == HOPPER


def random_experts(args: ModelArgs) -> "SwizzledExperts":
    """Of a layer: every word is eight valid weights, every row has scales of 2 ** -9 to 2 ** -5."""
    import torch

    from vllm_gptoss.ops import SwizzledExperts

    def random(rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        words = (args.num_experts, rows // 4, columns // 2)
        lines = (args.num_experts, -(-rows // 256) * 8, -(-columns // 128) * 128)
        return (
            torch.randint(-(1 << 31), 1 << 31, words, dtype=torch.int32, device="cuda"),
            torch.randint(118, 123, lines, dtype=torch.uint8, device="cuda"),
            torch.randn(args.num_experts, rows, device="cuda"),
        )

    hidden, inter = args.hidden_size, args.intermediate_size
    return SwizzledExperts(*random(2 * inter, hidden), *random(hidden, inter))


def _weights(args: ModelArgs, half: int) -> Weights:
    # Makes `triton_kernels` importable, and puts its routing as vLLM serves it.
    import vllm.model_executor.layers.fused_moe.experts.gpt_oss_triton_kernels_moe  # noqa: F401

    from vllm_gptoss.model import vllm_experts

    experts = random_experts(args)
    layer = SimpleNamespace(hidden_size=args.hidden_size, intermediate_size_per_partition=args.intermediate_size)
    precisions = vllm_experts.wrap(layer, experts)
    stock = layer.w2_weight if half else layer.w13_weight
    return Weights(*experts[3 * half : 3 * half + 3], stock, precisions[half])


def _inputs(args: ModelArgs, weights: Weights, batch: int, half: int) -> Inputs:
    import torch
    from vllm.model_executor.layers.fused_moe.experts.gpt_oss_triton_kernels_moe import make_routing_data

    chosen = torch.rand(batch, args.num_experts, device="cuda").topk(args.experts_per_token)
    shares, ids = chosen.values.softmax(dim=-1).bfloat16().float(), chosen.indices.int()
    stock_routing, gather, scatter = make_routing_data(ids, shares, args.num_experts)
    shape = (ids.numel(), args.intermediate_size) if half else (batch, args.hidden_size)
    x = torch.randn(shape, dtype=torch.bfloat16, device="cuda")
    stock_x = x[gather.src_indx] if half else x
    return Inputs(args, weights, x, shares, ids, stock_x, stock_routing, gather, scatter)


def _ours(product: Product, inputs: Sequence[Inputs], config: ExpertConfig) -> list[Callable[[], "torch.Tensor"]]:
    """Closures with the launch parameters `config`; outside of them pairs are cut into its tiles, and tokens lifted."""
    from vllm_gptoss.kernels.expert_product import lifted
    from vllm_gptoss.kernels.grouping import Routing, group_ref

    calls = []
    for values in inputs:
        # On the CPU: it asks for the pairs of each expert.
        groups = group_ref(values.ids.cpu(), values.args.num_experts, config.tokens)
        routing = Routing(values.shares, values.ids, *(group.cuda() for group in groups))
        taken = values._replace(x=lifted(values.x, config))
        calls.append(lambda values=taken, routing=routing: product.ours(values, routing, config))
    return calls


def _lowered(product: Product, out: "torch.Tensor", config: ExpertConfig) -> "torch.Tensor":
    """What `out` of ours means: the first product leaves tokens lifted for the second."""
    from vllm_gptoss.kernels.expert_product import LIFT, is_lifted

    return out.float() / LIFT.value if product.half == 0 and is_lifted(config) else out


def _moved(product: Product, inputs: Sequence[Inputs]) -> float:
    """Bytes of a call, the mean of `inputs`."""
    args = inputs[0].args
    rows, columns = product.shape(args)
    in_use = sum(len(values.ids.unique()) for values in inputs) / len(inputs)
    batch, pairs = len(inputs[0].ids), inputs[0].ids.numel()
    tokens = (batch * args.hidden_size + pairs * args.intermediate_size) * floor.BF16
    return in_use * (rows * columns * floor.MXFP4_BYTES + rows * floor.FP32) + tokens


def _check(product: Product, values: Inputs, found: dict[str, "torch.Tensor"]) -> None:
    """A speed counts only if the result is right; `found` are outputs of `values`, stock's under its name.

    Raises: AssertionError for the first tokens' relative error.
    """
    tokens = min(CHECKED_TOKENS, len(values.ids))
    used, ids = values.ids[:tokens].unique(return_inverse=True)
    weights = values.weights._replace(bias=values.weights.bias[used])
    first = values._replace(ids=ids, shares=values.shares[:tokens], weights=weights)
    expected = product.expected(first, _decoded(values.weights, used, *product.shape(values.args)))
    for name, out in found.items():
        in_order = out[values.gather.dst_indx] if name == "stock" and product.half == 0 else out
        error = ((in_order[: len(expected)].float() - expected).norm() / expected.norm()).item()
        assert error < ERROR_LIMIT, f"{product.name}: {name} is off by {error:.1e}"


def _decoded(weights: Weights, experts: "torch.Tensor", rows: int, columns: int) -> "torch.Tensor":
    """fp32 [n, R, C] of some experts: what vLLM's layouts, not ours, say that the bytes mean."""
    import torch

    from vllm_gptoss.kernels.mxfp4 import mxfp4_decode_ref

    values = weights.stock.storage.layout
    factors = weights.precision.weight_scale.storage.layout
    blocks = values.unswizzle_data(weights.blocks[experts].view(torch.uint8).mT).mT
    scales = factors.unswizzle_data(weights.scales[experts].mT).mT
    return mxfp4_decode_ref(blocks, scales[:, :rows, : columns // MXFP4_BLOCK], torch.float32)


def configs(pairs: int, experts: int, shares: Sequence[int]) -> list[ExpertConfig]:
    """What a shape is swept over: tiles of about the pairs that an expert in use has, shares while experts are few."""
    mean = pairs / min(pairs, experts)
    tokens = [size for size in SWEPT_TOKENS if mean / 2 <= size <= max(8, 4 * mean)]
    shares = shares if pairs <= 8 * experts else shares[:1]
    swept = [
        ExpertConfig(rows, n, stages, k, warps, wide, burst, registers=registers)
        for (rows, warps), n, (stages, burst), k in combinations(SWEPT_TILES, tokens, SWEPT_RINGS, shares)
        for wide in ((False,) if n < 16 else (False, True))
        for registers in (SWEPT_REGISTERS if warps == 4 else (None,))
    ]
    # A step brings half a byte a weight and two bytes a token's value.
    return [c for c in swept if c.stages * c.burst * 128 * (c.rows / 2 + 2 * c.tokens) <= SHARED_BYTES]


def _sweep(shape: str, product: Product, inputs: Sequence[Inputs], picked: ExpertConfig, rounds: int) -> None:
    """Print the best launch parameters, and where those that tuning.py picks stand among all."""
    swept = configs(inputs[0].ids.numel(), inputs[0].args.num_experts, product.shares)
    calls = {config: _ours(product, inputs, config) for config in dict.fromkeys([picked, *swept])}
    _check(product, inputs[0], {str(c): _lowered(product, series[0](), c) for c, series in calls.items()})
    times = timing.time_graphs(calls, rounds)
    print(report.ranked(shape, times, picked, _moved(product, inputs)), end="\n\n", flush=True)
