"""Experts for a GPU, in Triton's interpreter where there is none: what loading checks, and what a step computes."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from vllm.model_executor.warmup.jit_warmup import JitWarmupRegistry

from vllm_gptoss import ops
from vllm_gptoss.model import gpu_experts
from vllm_gptoss.model.gpu_experts import GpuExperts
from vllm_gptoss.model.kernel_choice import ExpertsState
from vllm_gptoss.model.prompt_warmup import LARGEST, PromptWarmup

EXPERTS, HIDDEN, INTER, TOP_K = 4, 64, 32, 2


class Layer(nn.Module):
    """What the method reads of vLLM's expert layer."""

    swiglu_alpha, swiglu_limit, top_k, hidden_size, intermediate_size_per_partition = 1.702, 7.0, TOP_K, HIDDEN, INTER

    def __init__(self, device: str) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        for name, rows, columns in (("w13", 2 * INTER, HIDDEN), ("w2", HIDDEN, INTER)):
            shape = (EXPERTS, rows, columns)
            blocks = torch.randint(0, 256, (*shape[:2], columns // 2), dtype=torch.uint8, generator=generator)
            scales = torch.randint(118, 123, (*shape[:2], columns // 32), dtype=torch.uint8, generator=generator)
            bias = torch.randn(shape[:2], generator=generator).bfloat16()
            for field, value in (("weight", blocks), ("weight_scale", scales), ("bias", bias)):
                setattr(self, f"{name}_{field}", nn.Parameter(value.to(device), requires_grad=False))


@pytest.fixture
def layer(device) -> Layer:
    return Layer(device)


@pytest.fixture
def method(device) -> GpuExperts:
    """Without vLLM's choice of a backend, which wants a GPU."""
    method = GpuExperts.__new__(GpuExperts)
    method.state, method.mxfp4_backend, method.vllm_computes = ExpertsState(), None, False
    generator = torch.Generator().manual_seed(1)
    weight, bias = torch.randn(EXPERTS, HIDDEN, generator=generator), torch.randn(EXPERTS, generator=generator)
    method.router = SimpleNamespace(weight=weight.bfloat16().to(device), bias=bias.bfloat16().to(device))
    return method


def expected(method: GpuExperts, layer: Layer, x: torch.Tensor) -> torch.Tensor:
    logits = nn.functional.linear(x, method.router.weight, method.router.bias)
    weights, ids = ops.router(logits, TOP_K)
    tensors = (layer.w13_weight, layer.w13_weight_scale, layer.w13_bias)
    tensors += (layer.w2_weight, layer.w2_weight_scale, layer.w2_bias)
    return ops.mxfp4_experts(x.float(), weights.float(), ids, *(tensor.data for tensor in tensors), 1.702, 7.0)


def tokens(count: int, device: str) -> torch.Tensor:
    # Whole numbers: logits that differ by rounding alone would choose other experts.
    return torch.randint(-3, 4, (count, HIDDEN), generator=torch.Generator().manual_seed(2)).bfloat16().to(device)


@pytest.mark.parametrize("count", [1, 5, 70])
def test_a_step(method, layer, device, count):
    """70 tokens are two rounds of the kernels where vLLM's do not take the sizes."""
    x = tokens(count, device)
    want = expected(method, layer, x)
    method.process_weights_after_loading(layer)
    assert method.state.own
    assert method.state.checked
    y = method.apply_monolithic(layer, x, x).float()
    assert ((y - want).norm() / want.norm()).item() < 8e-3


def test_rows_that_pad_a_batch_are_zero(method, layer, device, monkeypatch):
    x = tokens(4, device)
    want = expected(method, layer, x)
    method.process_weights_after_loading(layer)
    method.attention_name = "model.layers.0.self_attn.attn"
    slots = {method.attention_name: torch.tensor([7, 8, -1, -1], device=device)}
    monkeypatch.setattr(gpu_experts, "is_forward_context_available", lambda: True)
    monkeypatch.setattr(gpu_experts, "get_forward_context", lambda: SimpleNamespace(slot_mapping=slots))
    y = method.apply_monolithic(layer, x, x).float()
    assert torch.equal(y[2:], torch.zeros_like(y[2:]))
    assert ((y[:2] - want[:2]).norm() / want[:2].norm()).item() < 8e-3


def test_weights_are_not_kept_twice(method, layer):
    blocks = layer.w13_weight.data_ptr()
    method.process_weights_after_loading(layer)
    assert method.experts.gate_up_blocks.data_ptr() == blocks
    assert not list(layer.parameters())
    assert method.get_fused_moe_quant_config(layer) is None


@pytest.fixture
def warnings(monkeypatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(gpu_experts.logger, "warning", lambda text, *args: lines.append(text % args))
    return lines


@pytest.mark.parametrize(("most", "last"), [(600, 640), (2048, 2048), (16384, LARGEST), (256, None)])
def test_prompts_are_warmed_up_by_all_their_rows(most, last, layer):
    limits = SimpleNamespace(scheduler_config=SimpleNamespace(max_num_batched_tokens=most))
    keys = PromptWarmup(layer).get_warmup_keys(limits)
    assert keys == ([] if last is None else list(range(576, last + 1, 64)))


def test_the_warm_up_runs_a_layer(method, layer, device):
    method.process_weights_after_loading(layer)
    seen = []
    layer.quant_method = SimpleNamespace(
        router=method.router, apply_monolithic=lambda layer, x, logits: seen.append((x.shape, x.dtype, x.device.type))
    )
    registry = JitWarmupRegistry(SimpleNamespace(scheduler_config=SimpleNamespace(max_num_batched_tokens=640)))
    with registry.activate():
        PromptWarmup(layer).register_warmup()
    registry.warmup()
    assert seen == [((rows, HIDDEN), torch.bfloat16, device) for rows in (576, 640)]


def test_wrong_scales_show(method, layer, monkeypatch):
    correct = ops.swizzle_scales

    def wrong(scales):
        out = correct(scales)
        out.view(-1)[::100] += 1
        return out

    monkeypatch.setattr(ops, "swizzle_scales", wrong)
    with pytest.raises(RuntimeError, match=r"are off by .* on one layer and 64 tokens, and vLLM's do not take"):
        method.process_weights_after_loading(layer)


def test_what_only_few_tokens_get_wrong_shows(method, layer, monkeypatch):
    monkeypatch.setattr(ops, "lifted", lambda x, config: x)
    with pytest.raises(RuntimeError, match="are off by"):
        method.process_weights_after_loading(layer)


def test_kernels_that_are_off_make_room_for_vllms(method, warnings):
    method.vllm_computes = True
    for error in (0.02, float("nan")):
        method.state.own = True
        method._judge(error)
        assert not method.state.own
    assert "are off by 2.0e-02 (limit 5.0e-03)" in warnings[0]
    assert "are off by nan" in warnings[1]


def test_scales_that_the_kernels_do_not_take(method, layer):
    layer.w2_weight_scale.data[0, 0, 0] = ops.LARGEST_SCALE + 1
    with pytest.raises(RuntimeError, match="take scale bytes up to 128, and the checkpoint has 129"):
        method.process_weights_after_loading(layer)
