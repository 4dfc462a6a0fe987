"""Whose kernels a configuration gets, and the one line that says so."""

from types import SimpleNamespace

import pytest

from vllm_gptoss.model import kernel_choice
from vllm_gptoss.model.kernel_choice import choose_kernels


def config(**fields) -> SimpleNamespace:
    """What `choose_kernels` reads of a VllmConfig; names with a dot replace a field of a part."""
    parts = {
        "additional_config": {},
        "parallel_config": SimpleNamespace(
            enable_expert_parallel=False, data_parallel_size=1, decode_context_parallel_size=1
        ),
        "lora_config": None,
        "quant_config": object(),
        "kernel_config": SimpleNamespace(moe_backend="auto"),
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
        ("NVIDIA H200", "auto", (True, True, "measured on NVIDIA H200")),
        ("NVIDIA H200", "vllm", (False, False, "asked for")),
        ("NVIDIA H100", "auto", (False, False, "NVIDIA H100 was not measured")),
        ("NVIDIA H100", "own", (True, True, "asked for")),
    ],
)
def test_measured_gpus_get_ours(on, gpu, asked, expected):
    on(gpu)
    assert choose_kernels(config(additional_config={"gptoss_kernels": asked})) == expected


@pytest.mark.parametrize(
    ("field", "value", "experts", "attention", "reason"),
    [
        ("parallel_config__enable_expert_parallel", True, False, True, "expert parallelism"),
        ("parallel_config__data_parallel_size", 2, False, True, "data parallelism"),
        ("lora_config", object(), False, True, "LoRA"),
        ("quant_config", None, False, True, "a bf16 checkpoint"),
        ("kernel_config__moe_backend", "marlin", False, True, "moe_backend marlin"),
        ("cache_config__cache_dtype", "fp8", True, False, "KV cache in fp8"),
        ("attention_config__backend", "FLASH_ATTN", True, False, "an attention backend of choice"),
        ("parallel_config__decode_context_parallel_size", 2, True, False, "context parallelism"),
    ],
)
def test_what_ours_do_not_do_is_vllms(on, field, value, experts, attention, reason):
    on("NVIDIA H200")
    choice = choose_kernels(config(**{field: value}))
    assert (choice.experts, choice.attention) == (experts, attention)
    assert choice.why == f"measured on NVIDIA H200, not with {reason}"


def test_attention_is_for_hopper(on):
    on("NVIDIA A100", capability=80)
    choice = choose_kernels(config(additional_config={"gptoss_kernels": "own"}))
    assert (choice.experts, choice.attention) == (True, False)


def test_an_unknown_option_is_named(on):
    on("NVIDIA H200")
    with pytest.raises(ValueError, match="'gptoss_kernels' is 'fast': choose 'auto', 'own' or 'vllm'"):
        choose_kernels(config(additional_config={"gptoss_kernels": "fast"}))


def test_a_machine_with_no_gpu_uses_none():
    assert choose_kernels(config()) == (False, False, "not an NVIDIA GPU")


def test_one_line_says_which(monkeypatch):
    lines = []
    monkeypatch.setattr(kernel_choice.logger, "info_once", lambda text, *args: lines.append(text % args))
    kernel_choice.log_choice(kernel_choice.KernelChoice(True, False, "asked for, not with LoRA"))
    kernel_choice.log_choice(kernel_choice.KernelChoice(False, False, "NVIDIA H100 was not measured"))
    assert lines == [
        "gpt-oss kernels: router, gate_up, down for decoding, vLLM's for the rest (asked for, not with LoRA)",
        "gpt-oss kernels: vLLM's (NVIDIA H100 was not measured)",
    ]
