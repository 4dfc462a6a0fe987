"""vLLM's experts for prompts: what is chosen for them, and that no length of theirs brings a kernel to compile."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vllm_gptoss.kernels.router import router_ref
from vllm_gptoss.model import vllm_experts

TOP_K = 4


@pytest.fixture(scope="module")
def variants() -> dict[str, dict[str, list[int]]]:
    """Token counts with something to compile, after the warm-up (see variants.py)."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, Path(__file__).parent / "variants.py"]
    out = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout
    return json.loads(out.splitlines()[-1])


def test_no_number_of_tokens_brings_a_variant(variants):
    assert variants["ours"] == {"32": [], "128": []}


def test_vllms_way_still_compiles_for_numbers_of_tokens(variants):
    """When it no longer does, `vllm_experts.many_tokens` and `kernels/choice.py` can go."""
    assert all(len(counts) > 100 for counts in variants["stock"].values())


@pytest.mark.parametrize(("tokens", "num_experts"), [(70, 32), (33, 128)])
def test_routing(tokens, num_experts, device, monkeypatch):
    """vLLM's products read tokens sorted by expert, and write where the pairs stand."""
    from vllm.utils.import_utils import has_triton_kernels

    assert has_triton_kernels()
    from triton_kernels import routing

    # vLLM replaces it by one that the interpreter does not take, the same for four experts a token.
    monkeypatch.setattr(routing, "sort_tokens", lambda *args: routing.SortTokens.apply(*args))
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(tokens, num_experts, generator=generator).bfloat16().to(device)
    rows = vllm_experts.padded_rows(tokens)
    assert rows % vllm_experts.ROWS == 0
    data, gather, scatter = vllm_experts.routing(logits, TOP_K, rows)
    weights, ids = router_ref(logits.float(), TOP_K)
    flat = ids.flatten()
    assert torch.equal(data.expt_hist, torch.bincount(flat, minlength=num_experts).int())
    pairs = flat.numel()
    chosen = gather.src_indx[:pairs].long()
    assert torch.equal(chosen.sort().values, torch.arange(pairs, device=device))
    assert torch.equal(flat[chosen], flat.sort().values)
    torch.testing.assert_close(data.gate_scal[:pairs].float(), weights.flatten()[chosen], rtol=2**-7, atol=0)
    assert torch.equal(scatter.src_indx[chosen].long(), torch.arange(pairs, device=device))
    # Rows that pad are nowhere.
    assert (gather.src_indx[pairs:] == -1).all()
    assert (scatter.src_indx[pairs:] == -1).all()
