"""The router: product, choice of experts and grouping by expert in one launch, beside what stock vLLM launches.

Stock is a matrix product to bf16 logits and the routing of its `triton_kernels`, as its Triton experts call it. Every
call of a sample has weights and tokens of its own, together more than the L2 cache holds: in a step of the model,
experts' weights have taken the cache by the time that the next router runs.
"""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks import random_model, report, timing

if TYPE_CHECKING:
    import torch

SHAPES = ("20b", "120b")
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
TILE = 8
ROTATED_BYTES = 128 << 20
"""Twice an L2 cache of 50 to 60 MB, the largest on Hopper."""

Inputs = tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]
"""x [M, H], weight [E, H] and bias [E]."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=SHAPES, metavar="SHAPE")
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES, metavar="M")
    parser.add_argument("--rounds", type=int, default=30)
    report.add_options(parser)


def run(options: argparse.Namespace) -> None:
    kept = report.Report("router", options.out, options.commit)
    for model in options.models:
        args = random_model.args_of(random_model.sizes_of(model))
        for batch in options.batches:
            inputs = _inputs(batch, args.num_experts, args.hidden_size)
            ours, stock = _ours(args.experts_per_token), _stock(args.experts_per_token)
            _check(inputs[0], args.experts_per_token)
            calls = {"ours": ours, "stock": stock}
            times = timing.time_graphs(
                {
                    name: [lambda call=call, values=values: call(*values) for values in inputs]
                    for name, call in calls.items()
                },
                options.rounds,
            )
            moved = sum(values.nbytes for values in inputs[0])
            flops = 2 * batch * args.num_experts * args.hidden_size
            kept.add_op(f"{model} M={batch}", times["ours"], moved, flops, times["stock"])


def _inputs(batch: int, num_experts: int, hidden: int) -> list[Inputs]:
    """As many as `ROTATED_BYTES` takes; logits have a standard deviation near 1.5."""
    import torch

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device="cuda", dtype=torch.bfloat16)

    count = -(-ROTATED_BYTES // (2 * num_experts * hidden))
    scale = 1.5 / hidden**0.5
    return [(normal(batch, hidden), normal(num_experts, hidden) * scale, normal(num_experts)) for _ in range(count)]


def _ours(top_k: int) -> Callable[..., object]:
    from vllm_gptoss.kernels.router import route

    return lambda x, weight, bias: route(x, weight, bias, top_k, None, TILE)


def _stock(top_k: int) -> Callable[..., object]:
    import torch.nn.functional as F

    # Makes `triton_kernels` importable, and puts its routing as vLLM serves it.
    import vllm.model_executor.layers.fused_moe.experts.gpt_oss_triton_kernels_moe  # noqa: F401
    from triton_kernels.routing import routing

    return lambda x, weight, bias: routing(F.linear(x, weight, bias), top_k, sm_first=False)


def _check(inputs: Inputs, top_k: int) -> None:
    """A speed counts only if the result is right.

    Raises: AssertionError.
    """
    import torch

    from vllm_gptoss.kernels.grouping import group_ref
    from vllm_gptoss.kernels.router import route

    x, weight, bias = inputs
    found = route(x, weight, bias, top_k, None, TILE)
    logits = x.double() @ weight.double().T + bias.double()
    chosen = logits.gather(1, found.ids.long())
    # Logits below 8 are rounded by at most 2^-6; a weight is off by the difference of two.
    torch.testing.assert_close(chosen, logits.topk(top_k).values, rtol=2**-7, atol=2**-7)
    torch.testing.assert_close(found.weights.double(), chosen.softmax(dim=-1), rtol=2**-4, atol=0)
    tiles, pairs = group_ref(found.ids, len(weight), TILE)
    assert torch.equal(found.tiles, tiles)
    assert torch.equal(found.pairs[pairs >= 0], pairs[pairs >= 0])
