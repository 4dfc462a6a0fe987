"""Operations that the compiler does not look into: traced once for all sizes, and the same numbers as the layers'."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from vllm.config import VllmConfig, set_current_vllm_config

from vllm_gptoss import ops
from vllm_gptoss.kernels.capability import HOPPER
from vllm_gptoss.model.config import ModelArgs
from vllm_gptoss.model.decode_layers import DecodeLinearMethod, DecodeRMSNorm, WholeEmbeddingMethod
from vllm_gptoss.model.rotary import HeldAngles
from vllm_gptoss.tiny.hf_config import PUBLISHED, model_config

HIDDEN, ROWS = 128, 192
BF16 = 2**-5
"""Two roundings to bf16; the interpreter cuts off instead."""


@pytest.fixture(autouse=True)
def vllm_config():
    with set_current_vllm_config(VllmConfig()), torch.inference_mode():
        yield


def rows(tokens: int, columns: int, device: str, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tokens, columns, generator=generator).bfloat16().to(device)


def compiled(function, *inputs):
    """`function` of `inputs`, compiled as vLLM does: whole, and for any size of their first dimensions."""
    for tensor in inputs:
        # Not `dynamic=True`: that compiles again for a size that the trace had fixed.
        torch._dynamo.mark_dynamic(tensor, 0)
    return torch.compile(function, backend="aot_eager", fullgraph=True)(*inputs)


MAX, WIDE = ops.MAX_DENSE_TOKENS, ops.MAX_WIDE_DENSE_TOKENS


@pytest.mark.parametrize("tokens", [2, MAX, MAX + 1, WIDE, WIDE + 1])
def test_linear(tokens, device, monkeypatch):
    seen = []
    for name in ("dense_kernel", "dense_wide"):
        kernel = getattr(ops, name)
        monkeypatch.setattr(ops, name, lambda *args, name=name, kernel=kernel: seen.append(name) or kernel(*args))
    if device == "cpu":
        monkeypatch.setattr(ops, "capability", lambda device: HOPPER)
    layer = SimpleNamespace(weight=rows(ROWS, HIDDEN, device, 1))
    method, x = DecodeLinearMethod(), rows(tokens, HIDDEN, device)
    for bias in (None, rows(1, ROWS, device, 2)[0]):
        found = compiled(lambda x, bias=bias: method.apply(layer, x, bias), x)
        torch.testing.assert_close(found, F.linear(x, layer.weight, bias), rtol=BF16, atol=0.1)
    is_wide = tokens <= WIDE and ops.capability(x.device) == HOPPER
    assert seen == 2 * (["dense_kernel"] if tokens <= MAX else ["dense_wide"] if is_wide else [])


def test_embedding(device):
    layer = SimpleNamespace(weight=rows(ROWS, HIDDEN, device))
    method, ids, graphs = WholeEmbeddingMethod(), torch.tensor([3, 0, 191, 3], device=device), []
    torch._dynamo.mark_dynamic(ids, 0)
    keep = lambda graph, _: graphs.append(graph) or graph.forward  # noqa: E731
    look_up = torch.compile(lambda ids: method.embedding(layer, ids), backend=keep)
    assert torch.equal(look_up(ids), layer.weight[ids])
    called = [node.target for node in graphs[0].graph.nodes if node.op == "call_function"]
    assert called == [torch.ops.vllm_gptoss.embedding]


def test_rmsnorm(device):
    norm = DecodeRMSNorm(HIDDEN, eps=1e-5).to(device, torch.bfloat16)
    norm.weight.data.copy_(rows(1, HIDDEN, device, 1)[0])
    x, residual = rows(3, HIDDEN, device), rows(3, HIDDEN, device, 2)
    torch.testing.assert_close(compiled(norm, x), ops.rmsnorm(x, norm.weight, 1e-5), rtol=BF16, atol=0)
    for found, expected in zip(compiled(norm, x, residual), ops.rmsnorm(x, norm.weight, 1e-5, residual), strict=True):
        torch.testing.assert_close(found, expected, rtol=BF16, atol=0)


def test_angles_are_held(device):
    args = ModelArgs.from_hf(model_config(PUBLISHED["20b"], "mxfp4"))
    angles = HeldAngles(args, max_tokens=8).to(device)
    place = angles.held.data_ptr()
    positions = torch.tensor([3, 70_000, 5], device=device)
    cos, sin = compiled(angles, positions)
    assert angles.held.data_ptr() == place
    assert torch.equal(angles.held[0, :3], cos)
    assert torch.equal(angles.held[1, :3], sin)
    assert not angles.held[:, 3:].any()
