"""Whose kernels compute a model: this package's where they were measured to be faster, else vLLM's; said in one line.

`--additional-config '{"gptoss_kernels": "own"}'` asks for this package's on other GPUs, `"vllm"` for vLLM's anywhere.
"""

from typing import NamedTuple

import torch
from vllm import envs
from vllm.config import CompilationConfig, CompilationMode, VllmConfig
from vllm.logger import init_logger
from vllm.platforms import current_platform

MEASURED = ("NVIDIA H200",)
"""GPUs on which the benchmarks were run: `benchmarks/results`."""

OPTION = "gptoss_kernels"

ATTENTION = "vllm::unified_attention_with_output"
"""The operation at which vLLM splits a compiled graph."""

logger = init_logger(f"vllm.{__name__}")


class KernelChoice(NamedTuple):
    """Which of this package's kernels a model uses."""

    experts: bool
    attention: bool
    dense: bool
    """Projections and norms."""
    why: str


class ExpertsState:
    """What the expert layers of a model share: whether they still use this package's kernels."""

    def __init__(self) -> None:
        self.own = True
        self.checked = False
        """Their output, by one layer for all."""
        self.warmed_up = False
        """vLLM's kernels, by one layer for all."""


def choose_kernels(config: VllmConfig) -> KernelChoice:
    """The choice for `config` on this machine.

    Raises: ValueError for an unknown value of the option.
    """
    options = config.additional_config if isinstance(config.additional_config, dict) else {}
    asked = options.get(OPTION, "auto")
    if asked not in ("auto", "own", "vllm"):
        raise ValueError(f"additional_config {OPTION!r} is {asked!r}: choose 'auto', 'own' or 'vllm'")
    if not current_platform.is_cuda():
        return KernelChoice(False, False, False, "not an NVIDIA GPU")
    if asked == "vllm":
        return KernelChoice(False, False, False, "asked for")
    gpu = current_platform.get_device_name()
    if asked == "auto" and gpu not in MEASURED:
        return KernelChoice(False, False, False, f"{gpu} was not measured")
    why = "asked for" if asked == "own" else f"measured on {gpu}"
    against = _reasons_against(config)
    return KernelChoice(
        *(not reasons for reasons in against),
        why=", ".join([why, *(f"not with {reason}" for reasons in against for reason in reasons)]),
    )


def _reasons_against(config: VllmConfig) -> tuple[list[str], ...]:
    """What this package's experts, attention and dense layers do not do, of what `config` asks for."""
    parallel = config.parallel_config
    experts = {
        "expert parallelism": parallel.enable_expert_parallel,
        "data parallelism": parallel.data_parallel_size > 1,
        "LoRA": config.lora_config is not None,
        "a bf16 checkpoint": config.quant_config is None,
        f"moe_backend {config.kernel_config.moe_backend}": config.kernel_config.moe_backend != "auto",
        "VLLM_BATCH_INVARIANT": envs.VLLM_BATCH_INVARIANT,
    }
    attention = {
        f"KV cache in {config.cache_config.cache_dtype}": config.cache_config.cache_dtype not in ("auto", "bfloat16"),
        "an attention backend of choice": config.attention_config.backend is not None,
        "a GPU other than Hopper": not current_platform.is_device_capability(90),
        "context parallelism": parallel.decode_context_parallel_size > 1,
        # The angles of a step have one place, and nothing but the split at attention orders their use.
        "micro-batches": parallel.use_ubatching,
        "attention inside of a compiled graph": _compiles_attention(config.compilation_config),
    }
    dense = {
        f"activations in {config.model_config.dtype}": config.model_config.dtype != torch.bfloat16,
        f"linear_backend {config.kernel_config.linear_backend}": config.kernel_config.linear_backend != "auto",
        # vLLM joins the sum over ranks with the norm behind it.
        "tensor parallelism": parallel.tensor_parallel_size > 1,
        "VLLM_BATCH_INVARIANT": envs.VLLM_BATCH_INVARIANT,
    }
    return tuple([name for name, asked in of.items() if asked] for of in (experts, attention, dense))


def _compiles_attention(compilation: CompilationConfig) -> bool:
    if compilation.mode == CompilationMode.NONE:
        return False
    splits = compilation.mode == CompilationMode.VLLM_COMPILE and not compilation.use_inductor_graph_partition
    return not (splits and ATTENTION in (compilation.splitting_ops or ()))


def log_choice(choice: KernelChoice) -> None:
    """One line at start."""
    own = [*(["router", "gate_up", "down"] if choice.experts else []), *(["decode_attention"] * choice.attention)]
    own += ["dense", "rmsnorm"] if choice.dense else []
    if own:
        logger.info_once("gpt-oss kernels: %s for decoding, vLLM's for the rest (%s)", ", ".join(own), choice.why)
    else:
        logger.info_once("gpt-oss kernels: vLLM's (%s)", choice.why)
