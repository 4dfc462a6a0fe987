"""Whose kernels a configuration gets, and the one line that says so."""

from types import SimpleNamespace

import pytest
import torch
from vllm.config import CompilationMode

from vllm_gptoss.model import kernel_choice
from vllm_gptoss.model.kernel_choice import choose_kernels


def config(**fields) -> SimpleNamespace:
    """What `choose_kernels` reads of a VllmConfig; names with a dot replace a field of a part."""
    parts = {
        "additional_config": {},
        "parallel_config": SimpleNamespace(
            enable_expert_parallel=False,
            data_parallel_size=1,
            decode_context_parallel_size=1,
            tensor_parallel_size=1,
            use_ubatching=False,
        ),
        "compilation_config": SimpleNamespace(
            mode=CompilationMode.VLLM_COMPILE,
            use_inductor_graph_partition=False,
            splitting_ops=["vllm::unified_attention_with_output"],
        ),
        "lora_config": None,
        "quant_config": object(),
        "kernel_config": SimpleNamespace(moe_backend="auto", linear_backend="auto"),
        "model_config": SimpleNamespace(dtype=torch.bfloat16),
        "cache_config": SimpleNamespace(cache_dtype="auto"),
        "attention_config": SimpleNamespace(backend=None),
    }
    for name, value in fields.items():
        part, _, field = name.partition("__")
        if field:
            setattr(parts[part], field, value)
        else:
            parts[part] = value
    return SimpleNamespace(**parts)


@pytest.fixture
def on(monkeypatch):
    """`on(name, capability)`: the machine's GPU."""

    def pretend(name: str, capability: int = 90) -> None:
        platform = SimpleNamespace(
            is_cuda=lambda: True,
            get_device_name=lambda: name,
            is_device_capability=lambda asked: asked == capability,
        )
        monkeypatch.setattr(kernel_choice, "current_platform", platform)

    return pretend


@pytest.mark.parametrize(
    ("gpu", "asked", "expected"),
    [
        ("NVIDIA H200", "auto", (True, True, True, "measured on NVIDIA H200")),
        ("NVIDIA H200", "vllm", (False, False, False, "asked for")),
        ("NVIDIA H100", "auto", (False, False, False, "NVIDIA H100 was not measured")),
        ("NVIDIA H100", "own", (True, True, True, "asked for")),
    ],
)
def test_measured_gpus_get_ours(on, gpu, asked, expected):
    on(gpu)
    assert choose_kernels(config(additional_config={"gptoss_kernels": asked})) == expected


@pytest.mark.parametrize(
    ("field", "value", "replaced", "reason"),
    [
        ("parallel_config__enable_expert_parallel", True, "experts", "expert parallelism"),
        ("parallel_config__data_parallel_size", 2, "experts", "data parallelism"),
        ("lora_config", object(), "experts", "LoRA"),
        ("quant_config", None, "experts", "a bf16 checkpoint"),
        ("kernel_config__moe_backend", "marlin", "experts", "moe_backend marlin"),
        ("cache_config__cache_dtype", "fp8", "attention", "KV cache in fp8"),
        ("attention_config__backend", "FLASH_ATTN", "attention", "an attention backend of choice"),
        ("parallel_config__decode_context_parallel_size", 2, "attention", "context parallelism"),
        ("parallel_config__use_ubatching", True, "attention", "micro-batches"),
        ("compilation_config__splitting_ops", [], "attention", "attention inside of a compiled graph"),
        ("compilation_config__use_inductor_graph_partition", True, "attention", "attention inside of a compiled graph"),
        (
            "compilation_config__mode",
            CompilationMode.STOCK_TORCH_COMPILE,
            "attention",
            "attention inside of a compiled graph",
        ),
        ("parallel_config__tensor_parallel_size", 2, "dense", "tensor parallelism"),
        ("kernel_config__linear_backend", "cutlass", "dense", "linear_backend cutlass"),
        ("model_config__dtype", torch.float16, "dense", "activations in torch.float16"),
    ],
)
def test_what_ours_do_not_do_is_vllms(on, field, value, replaced, reason):
    on("NVIDIA H200")
    choice = choose_kernels(config(**{field: value}))
    assert [name for name in ("experts", "attention", "dense") if not getattr(choice, name)] == [replaced]
    assert choice.why == f"measured on NVIDIA H200, not with {reason}"


def test_sums_in_an_order_of_their_own_are_vllms(on, monkeypatch):
    on("NVIDIA H200")
    monkeypatch.setattr(kernel_choice.envs, "VLLM_BATCH_INVARIANT", True)
    choice = choose_kernels(config())
    assert (choice.experts, choice.dense) == (False, False)


def test_without_the_compiler_attention_is_ours(on):
    on("NVIDIA H200")
    assert choose_kernels(config(compilation_config__mode=CompilationMode.NONE)).attention


def test_attention_is_for_hopper(on):
    on("NVIDIA A100", capability=80)
    choice = choose_kernels(config(additional_config={"gptoss_kernels": "own"}))
    assert (choice.experts, choice.attention, choice.dense) == (True, False, True)


def test_an_unknown_option_is_named(on):
    on("NVIDIA H200")
    with pytest.raises(ValueError, match="'gptoss_kernels' is 'fast': choose 'auto', 'own' or 'vllm'"):
        choose_kernels(config(additional_config={"gptoss_kernels": "fast"}))


def test_a_machine_with_no_gpu_uses_none():
    assert choose_kernels(config()) == (False, False, False, "not an NVIDIA GPU")


def test_one_line_says_which(monkeypatch):
    lines = []
    monkeypatch.setattr(kernel_choice.logger, "info_once", lambda text, *args: lines.append(text % args))
    kernel_choice.log_choice(kernel_choice.KernelChoice(True, False, True, "asked for"))
    kernel_choice.log_choice(kernel_choice.KernelChoice(False, False, False, "NVIDIA H100 was not measured"))
    assert lines == [
        "gpt-oss kernels: router, gate_up, down, dense, rmsnorm for decoding, vLLM's for the rest (asked for)",
        "gpt-oss kernels: vLLM's (NVIDIA H100 was not measured)",
    ]
