"""Whose kernels compute a model: this package's where they were measured to be faster, else vLLM's; said in one line.

`--additional-config '{"gptoss_kernels": "own"}'` asks for this package's on other GPUs, `"vllm"` for vLLM's anywhere.
"""

from typing import NamedTuple

from vllm.config import VllmConfig
from vllm.logger import init_logger
from vllm.platforms import current_platform

MEASURED = ("NVIDIA H200",)
"""GPUs on which the benchmarks were run: `benchmarks/results`."""

OPTION = "gptoss_kernels"

logger = init_logger(f"vllm.{__name__}")


class KernelChoice(NamedTuple):
    """Which of this package's kernels a model uses."""

    experts: bool
    attention: bool
    why: str


class ExpertsState:
    """What the expert layers of a model share: whether they still use this package's kernels."""

    def __init__(self) -> None:
        self.own = True
        self.checked = False


def choose_kernels(config: VllmConfig) -> KernelChoice:
    """The choice for `config` on this machine.

    Raises: ValueError for an unknown value of the option.
    """
    options = config.additional_config if isinstance(config.additional_config, dict) else {}
    asked = options.get(OPTION, "auto")
    if asked not in ("auto", "own", "vllm"):
        raise ValueError(f"additional_config {OPTION!r} is {asked!r}: choose 'auto', 'own' or 'vllm'")
    if not current_platform.is_cuda():
        return KernelChoice(False, False, "not an NVIDIA GPU")
    if asked == "vllm":
        return KernelChoice(False, False, "asked for")
    gpu = current_platform.get_device_name()
    if asked == "auto" and gpu not in MEASURED:
        return KernelChoice(False, False, f"{gpu} was not measured")
    why = "asked for" if asked == "own" else f"measured on {gpu}"
    against_experts, against_attention = _reasons_against(config)
    return KernelChoice(
        experts=not against_experts,
        attention=not against_attention,
        why=", ".join([why, *(f"not with {reason}" for reason in against_experts + against_attention)]),
    )


def _reasons_against(config: VllmConfig) -> tuple[list[str], list[str]]:
    """What this package's experts and attention do not do, of what `config` asks for."""
    parallel = config.parallel_config
    experts = {
        "expert parallelism": parallel.enable_expert_parallel,
        "data parallelism": parallel.data_parallel_size > 1,
        "LoRA": config.lora_config is not None,
        "a bf16 checkpoint": config.quant_config is None,
        f"moe_backend {config.kernel_config.moe_backend}": config.kernel_config.moe_backend != "auto",
    }
    attention = {
        f"KV cache in {config.cache_config.cache_dtype}": config.cache_config.cache_dtype not in ("auto", "bfloat16"),
        "an attention backend of choice": config.attention_config.backend is not None,
        "a GPU other than Hopper": not current_platform.is_device_capability(90),
        "context parallelism": parallel.decode_context_parallel_size > 1,
    }
    return [name for name, asked in experts.items() if asked], [name for name, asked in attention.items() if asked]


def log_choice(choice: KernelChoice) -> None:
    """One line at start."""
    own = [*(["router", "gate_up", "down"] if choice.experts else []), *(["decode_attention"] * choice.attention)]
    if own:
        logger.info_once("gpt-oss kernels: %s for decoding, vLLM's for the rest (%s)", ", ".join(own), choice.why)
    else:
        logger.info_once("gpt-oss kernels: vLLM's (%s)", choice.why)
