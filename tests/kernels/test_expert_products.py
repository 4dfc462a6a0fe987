"""gate_up and down against their fp32 specifications, compiled on a GPU and interpreted on a CPU."""

from typing import NamedTuple

import pytest
import torch
from sizes import cases

from vllm_gptoss.kernels.down import down, down_ref
from vllm_gptoss.kernels.expert_product import LIFT, is_lifted, lifted
from vllm_gptoss.kernels.gate_up import gate_up, gate_up_ref
from vllm_gptoss.kernels.grouping import Routing, group_ref
from vllm_gptoss.kernels.mxfp4 import mxfp4_decode_ref
from vllm_gptoss.kernels.mxfp4_operand import LARGEST_SCALE
from vllm_gptoss.kernels.mxfp4_swizzle import swizzle_blocks, swizzle_scales
from vllm_gptoss.kernels.tuning import ExpertConfig

ALPHA, LIMIT = 1.702, 7.0

TOLERANCE = 4e-3
"""Relative error in norm: one rounding to bf16 is 1.7e-3; the interpreter cuts off instead, twice that."""


class Case(NamedTuple):
    tokens: int
    experts: int
    top_k: int
    hidden: int
    inter: int
    config: ExpertConfig
    padding: int = 0  # rows at the end that pad the batch


CASES = {
    "one token": Case(1, 4, 2, 256, 128, ExpertConfig(64, 8, 4)),
    "columns end within a step": Case(3, 4, 2, 192, 64, ExpertConfig(64, 8, 3)),
    "columns end within an operand": Case(2, 3, 2, 160, 96, ExpertConfig(64, 8, 4)),
    "rows end within a tile": Case(3, 2, 1, 96, 96, ExpertConfig(128, 8, 3)),
    "an expert with several tiles": Case(19, 2, 2, 128, 64, ExpertConfig(64, 8, 3)),
    "columns shared by three": Case(5, 4, 4, 128, 416, ExpertConfig(64, 8, 4, shares=3)),
    "more shares than steps": Case(2, 4, 2, 128, 128, ExpertConfig(64, 8, 4, shares=3)),
    "wide tiles": Case(20, 2, 2, 128, 64, ExpertConfig(128, 32, 3)),
    "eight warps": Case(20, 2, 2, 320, 160, ExpertConfig(256, 64, 3, warps=8)),
    "a batch that a second launch sums": Case(
        70, 3, 2, 128, 64, ExpertConfig(128, 128, 3, shares=2, warps=8), padding=3
    ),
    "warpgroup": Case(5, 4, 2, 192, 96, ExpertConfig(64, 8, 3, warpgroup=True)),
    "bursts": Case(3, 2, 1, 448, 288, ExpertConfig(64, 8, 2, burst=2)),
    "bursts of shares": Case(3, 2, 1, 192, 544, ExpertConfig(64, 16, 2, shares=2, burst=2)),
    "a warpgroup's bursts": Case(3, 2, 1, 448, 288, ExpertConfig(64, 8, 3, warpgroup=True, burst=2)),
    "warps along the columns": Case(3, 2, 1, 448, 288, ExpertConfig(64, 8, 3, warps=8, column_warps=2)),
    "their bursts": Case(2, 2, 1, 800, 288, ExpertConfig(64, 8, 2, warps=8, column_warps=2, burst=2)),
    "wide tiles of warps along the columns": Case(20, 2, 2, 320, 96, ExpertConfig(64, 32, 2, warps=8, column_warps=2)),
    "padded": Case(5, 4, 2, 128, 64, ExpertConfig(64, 16, 3), padding=2),
    "all padding": Case(2, 4, 2, 128, 64, ExpertConfig(64, 8, 3), padding=2),
}

LARGE = {
    "20b decode": Case(1, 32, 4, 2880, 2880, ExpertConfig(64, 8, 4, shares=2)),
    "20b batch of 9": Case(9, 32, 4, 2880, 2880, ExpertConfig(128, 8, 4), padding=3),
    "20b batch of 64": Case(64, 32, 4, 2880, 2880, ExpertConfig(128, 16, 4)),
    "20b batch of 64, warpgroup": Case(64, 32, 4, 2880, 2880, ExpertConfig(128, 16, 4, warpgroup=True)),
    "20b batch of 300": Case(300, 32, 4, 2880, 2880, ExpertConfig(128, 64, 3, warps=8, warpgroup=True)),
    "20b batch of 1000": Case(1000, 32, 4, 2880, 2880, ExpertConfig(256, 32, 3, warps=8, warpgroup=True)),
    "120b batch of 17": Case(17, 128, 4, 2880, 2880, ExpertConfig(128, 8, 4)),
    "two ranks of 20b": Case(16, 32, 4, 2880, 1440, ExpertConfig(128, 8, 4)),
}


class Layer(NamedTuple):
    x: torch.Tensor
    routing: Routing
    gate_up: tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # blocks, scales, bias
    down: tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def make(case: Case, device: str) -> Layer:
    generator = torch.Generator().manual_seed(sum(case[:5]))

    def experts(rows: int, columns: int):
        blocks = torch.randint(0, 256, (case.experts, rows, columns // 2), dtype=torch.uint8, generator=generator)
        scales = torch.randint(118, 123, (case.experts, rows, columns // 32), dtype=torch.uint8, generator=generator)
        bias = torch.randn(case.experts, rows, generator=generator).bfloat16()
        return blocks.to(device), scales.to(device), bias.to(device)

    scores = torch.rand(case.tokens, case.experts, generator=generator)
    weights, ids = scores.topk(case.top_k)
    if case.padding:
        ids[-case.padding :], weights[-case.padding :] = -1, 0
    tiles, pairs = group_ref(ids, case.experts, case.config.tokens)
    # Behind the last pair of a tile lies anything.
    pairs = pairs.masked_fill(pairs < 0, 2**31 - 1)
    routing = Routing(*(tensor.to(device) for tensor in (weights, ids.int(), tiles, pairs)))
    x = torch.randn(case.tokens, case.hidden, generator=generator).bfloat16().to(device)
    return Layer(x, routing, experts(2 * case.inter, case.hidden), experts(case.hidden, case.inter))


def swizzled(weights):
    blocks, scales, bias = weights
    return swizzle_blocks(blocks), swizzle_scales(scales), bias


def error(out: torch.Tensor, expected: torch.Tensor) -> float:
    return ((out.float() - expected).norm() / expected.norm()).item()


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """Nothing may be read that no kernel has written."""
    empty = torch.empty

    def poison(*args, **kwargs):
        out = empty(*args, **kwargs)
        return out.fill_(torch.nan) if out.is_floating_point() else out.fill_(1 << 20)

    monkeypatch.setattr(torch, "empty", poison)


@pytest.mark.parametrize("case", cases(CASES, LARGE))
def test_gate_up(case, device):
    layer = make(case, device)
    blocks, scales, bias = layer.gate_up
    expected = gate_up_ref(
        layer.x, layer.routing.ids, mxfp4_decode_ref(blocks, scales, torch.float32), bias, ALPHA, LIMIT
    )
    x = lifted(layer.x, case.config)
    runs = [gate_up(x, layer.routing, *swizzled(layer.gate_up), ALPHA, LIMIT, case.config) for _ in range(2)]
    kept = layer.routing.ids.flatten() >= 0
    assert torch.equal(runs[0][kept], runs[1][kept])
    found = runs[0][kept].float() / (LIFT.value if is_lifted(case.config) else 1)
    assert not kept.any() or error(found, expected[kept]) < TOLERANCE


@pytest.mark.parametrize("case", cases(CASES, LARGE))
def test_down(case, device):
    layer = make(case, device)
    blocks, scales, bias = layer.down
    hidden = torch.randn(case.tokens * case.top_k, case.inter, device=device).bfloat16()
    hidden[layer.routing.ids.flatten() < 0] = torch.nan
    expected = down_ref(
        hidden, layer.routing.weights, layer.routing.ids, mxfp4_decode_ref(blocks, scales, torch.float32), bias
    )
    # The second run finds the counters as the first one left them.
    taken = lifted(hidden, case.config)
    runs = [down(taken, layer.routing, *swizzled(layer.down), case.config) for _ in range(2)]
    assert torch.equal(runs[0], runs[1])
    assert torch.equal(runs[0][case.tokens - case.padding :], torch.zeros_like(runs[0][case.tokens - case.padding :]))
    assert case.padding == case.tokens or error(runs[0], expected) < TOLERANCE


LEAST_SCALE = {"scaled weights": (ExpertConfig(64, 32, 3), 3), "scaled products": (ExpertConfig(64, 8, 3), 32)}
"""With the least scale of which nothing is lost: of weights that are normal, of products that are."""


@pytest.mark.parametrize(("config", "least"), LEAST_SCALE.values(), ids=LEAST_SCALE)
def test_every_code_and_scale_is_exact(config, least, device):
    """The product with one-hot tokens is the weight itself."""
    columns = 128
    codes = torch.arange(16).repeat(64, columns // 16)
    blocks = (codes[:, 0::2] | codes[:, 1::2] << 4).to(torch.uint8)[None]
    scales = torch.tensor([least, 33, 60, 110, 119, 127, LARGEST_SCALE - 1, LARGEST_SCALE], dtype=torch.uint8)
    scales = scales.repeat(1, 8, 1).view(1, 64, 1).repeat(1, 1, columns // 32)
    x = torch.eye(columns).bfloat16()
    weight = mxfp4_decode_ref(blocks, scales, torch.float32)
    for begin in range(0, columns, 8):
        ids = torch.zeros(8, 1, dtype=torch.int32)
        routing = Routing(torch.ones(8, 1), ids, *group_ref(ids, 1, config.tokens))
        routing = Routing(*(tensor.to(device) for tensor in routing))
        y = down(
            lifted(x[begin : begin + 8], config).to(device),
            routing,
            swizzle_blocks(blocks).to(device),
            swizzle_scales(scales).to(device),
            torch.zeros(1, 64, device=device),
            config,
        )
        assert torch.equal(y.cpu().float(), weight[0, :, begin : begin + 8].T)
