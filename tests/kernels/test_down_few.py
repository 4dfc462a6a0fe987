"""down of few pairs against its specification, compiled on a GPU and interpreted on a CPU."""

from typing import NamedTuple

import pytest
import torch
from sizes import cases

from vllm_gptoss.kernels.down import down_ref
from vllm_gptoss.kernels.down_few import down_few
from vllm_gptoss.kernels.expert_product import LIFT
from vllm_gptoss.kernels.grouping import Routing, group_ref
from vllm_gptoss.kernels.mxfp4 import mxfp4_decode_ref
from vllm_gptoss.kernels.mxfp4_swizzle import swizzle_blocks, swizzle_scales
from vllm_gptoss.kernels.tuning import ExpertConfig, pick_down

TOLERANCE = 5e-3
"""Relative error in norm: one rounding to bf16 is 1.7e-3; the interpreter cuts off instead, more than twice that."""


class Case(NamedTuple):
    tokens: int
    experts: int
    top_k: int
    rows: int
    columns: int
    config: ExpertConfig
    absent: tuple[int, ...] = ()  # pairs of no expert here


def config(warps: int, stages: int) -> ExpertConfig:
    return ExpertConfig(16, 8, stages, warps=warps, column_warps=warps)


CASES = {
    "one token": Case(1, 6, 4, 64, 256, config(2, 4)),
    "two tokens": Case(2, 6, 4, 64, 256, config(2, 8)),
    "a shared expert": Case(2, 4, 4, 64, 256, config(2, 8)),
    "one expert a token": Case(5, 3, 1, 48, 128, config(1, 3)),
    "three experts a token": Case(2, 6, 3, 64, 256, config(2, 8)),
    "eight experts a token": Case(1, 8, 8, 48, 128, config(1, 3)),
    "columns end within a step": Case(1, 4, 2, 32, 416, config(2, 4)),
    "columns end within a warp": Case(2, 4, 2, 32, 352, config(4, 3)),
    "rows end within a tile": Case(1, 4, 2, 40, 128, config(1, 2)),
    "rows beyond a line of scales": Case(1, 2, 2, 544, 96, config(1, 2)),
    "a ring in turns": Case(2, 4, 2, 32, 640, config(1, 3)),
    "fewer pairs than stages": Case(1, 4, 2, 32, 128, config(1, 5)),
    "pairs of no expert": Case(2, 6, 4, 32, 256, config(2, 3), absent=(1, 6)),
    "a row that pads the batch": Case(2, 6, 4, 32, 256, config(2, 3), absent=(4, 5, 6, 7)),
}

LARGE = {
    f"{name} of {m}": Case(m, experts, 4, 2880, columns, pick_down(4 * m, experts, hopper=True))
    for name, experts, columns in (("20b", 32, 2880), ("120b", 128, 2880), ("two ranks", 32, 1440))
    for m in (1, 2)
}


@pytest.mark.parametrize("case", cases(CASES, LARGE))
def test_down_few(case, device, monkeypatch):
    generator = torch.Generator().manual_seed(sum(case[:5]))
    shape = (case.experts, case.rows, case.columns)
    blocks = torch.randint(0, 256, (*shape[:2], shape[2] // 2), dtype=torch.uint8, generator=generator).to(device)
    scales = torch.randint(118, 123, (*shape[:2], shape[2] // 32), dtype=torch.uint8, generator=generator).to(device)
    bias = torch.randn(shape[:2], generator=generator).to(device)
    weights, ids = torch.rand(case.tokens, case.experts, generator=generator).topk(case.top_k)
    hidden = torch.randn(case.tokens * case.top_k, case.columns, generator=generator).bfloat16().to(device)
    for pair in case.absent:
        ids.view(-1)[pair] = -1
        # Nothing writes it.
        hidden[pair] = torch.nan
    ids = ids.int()
    routing = Routing(*(tensor.to(device) for tensor in (weights, ids, *group_ref(ids, case.experts, 8))))
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *args, **kwargs: empty(*args, **kwargs).fill_(torch.nan))
    order = swizzle_blocks(blocks), swizzle_scales(scales), bias
    runs = [down_few(hidden * LIFT.value, routing, *order, case.config) for _ in range(2)]
    assert torch.equal(runs[0], runs[1])
    expected = down_ref(hidden, routing.weights, routing.ids, mxfp4_decode_ref(blocks, scales, torch.float32), bias)
    assert ((runs[0].float() - expected).norm() / expected.norm()).item() < TOLERANCE
    nobody = (routing.ids < 0).all(dim=1)
    assert torch.equal(runs[0][nobody], torch.zeros_like(runs[0][nobody]))


def test_refuses_more_pairs(device):
    ids = torch.zeros(3, 4, dtype=torch.int32, device=device)
    routing = Routing(ids.float(), ids, ids, ids)
    with pytest.raises(ValueError, match="12 pairs"):
        down_few(ids, routing, ids, ids, ids, config(1, 2))
