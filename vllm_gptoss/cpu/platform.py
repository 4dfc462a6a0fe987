"""vLLM's platform for a machine with no accelerator, over stock vLLM's (CUDA) wheel.

vLLM's own CPU platform needs a build of vLLM for the CPU. This one needs no compiled code of vLLM: its
layers run their torch versions (`PlatformEnum.OOT` selects them), ours run the specifications in `ops`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import psutil
import torch
from vllm.platforms.interface import Platform, PlatformEnum

if TYPE_CHECKING:  # vLLM's configuration asks for the platform while it is being imported.
    from vllm.config import VllmConfig


class UnsupportedOnCpuError(ValueError):
    """The configuration asks for what cannot work without an accelerator."""


class CpuPlatform(Platform):
    _enum = PlatformEnum.OOT
    device_name = "cpu"
    device_type = "cpu"
    dispatch_key = "CPU"
    dist_backend = "gloo"
    # Spawned workers of tensor parallelism tell their ranks apart by themselves: there is no device list.
    device_control_env_var = "VLLM_GPTOSS_CPU_DEVICES"

    @classmethod
    def pre_register_and_update(cls, parser=None) -> None:
        """Before any configuration is made."""
        # vLLM's second model runner is made of Triton kernels.
        os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "0"
        # A fork of a process in which torch has used its threads hangs at the first operation that wants threads.
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
        # Threads that spin while they wait take the cores from the server, and a step takes a hundred times as long.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    @classmethod
    def import_kernels(cls) -> None:
        """None of vLLM's compiled kernels can run here."""

    @classmethod
    def import_ir_kernels(cls) -> None:
        """None of vLLM's kernels for its IR can run here; the torch versions do."""

    @classmethod
    def register_triton_kernel_overrides(cls) -> None:
        """Triton compiles for GPUs only: give vLLM torch versions of the kernels that it launches."""
        from vllm.triton_utils.dispatcher import register_kernels

        from vllm_gptoss.cpu.slot_mapping import compute_slot_mapping

        register_kernels({"vllm.v1.worker.block_table.ComputeSlotMappingKernel.kernel": compute_slot_mapping})

    @classmethod
    def verify_model_arch(cls, model_arch: str) -> None:
        """Raises: UnsupportedOnCpuError for any other model than gpt-oss."""
        if model_arch != "GptOssForCausalLM":
            raise UnsupportedOnCpuError(
                f"without an accelerator vllm-gptoss serves gpt-oss alone, not {model_arch}; install vLLM's "
                "build for the CPU for other models"
            )

    @classmethod
    def get_attn_backend_cls(cls, selected_backend, attn_selector_config, num_heads=None) -> str:
        from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend

        register_backend(AttentionBackendEnum.CUSTOM, "vllm_gptoss.cpu.attention.CpuAttentionBackend")
        return AttentionBackendEnum.CUSTOM.get_path()

    @classmethod
    def apply_config_platform_defaults(cls, vllm_config: VllmConfig) -> None:
        """Runs before vLLM fills in its defaults, so what is set here was asked for by the user."""
        from vllm.config import CompilationMode, CUDAGraphMode

        compilation = vllm_config.compilation_config
        if compilation.cudagraph_mode not in (None, CUDAGraphMode.NONE) or compilation.cudagraph_capture_sizes:
            raise UnsupportedOnCpuError("CUDA graphs need a GPU: leave cudagraph_mode and its sizes unset")
        if compilation.mode not in (None, CompilationMode.NONE):
            raise UnsupportedOnCpuError(
                f"compilation mode {compilation.mode.name} is not supported without an accelerator: leave it unset"
            )
        compilation.mode = CompilationMode.NONE
        compilation.cudagraph_mode = CUDAGraphMode.NONE

    @classmethod
    def check_and_update_config(cls, vllm_config: VllmConfig) -> None:
        """Raises: UnsupportedOnCpuError for what cannot work here."""
        if vllm_config.speculative_config is not None:
            raise UnsupportedOnCpuError(
                f"speculative decoding ({vllm_config.speculative_config.method}) needs a GPU: vLLM's "
                "verification of drafts is made of Triton kernels"
            )
        if vllm_config.lora_config is not None:
            raise UnsupportedOnCpuError("LoRA adapters need a GPU: vLLM's adapter kernels are compiled for one")
        if vllm_config.cache_config.cache_dtype not in ("auto", "bfloat16", "float16"):
            raise UnsupportedOnCpuError(f"kv_cache_dtype {vllm_config.cache_config.cache_dtype} needs a GPU: use auto")
        backend = vllm_config.attention_config.backend
        if backend is not None and backend.name != "CUSTOM":
            raise UnsupportedOnCpuError(
                f"attention backend {backend.name} needs an accelerator: leave the choice to the platform"
            )
        model = vllm_config.model_config
        if model is not None and model.enable_sleep_mode:
            raise UnsupportedOnCpuError("sleep mode needs a GPU: there is no device memory to give back")

        parallel = vllm_config.parallel_config
        if parallel.data_parallel_size > 1:
            raise UnsupportedOnCpuError(
                f"data parallelism ({parallel.data_parallel_size}) needs a GPU: vLLM's exchange of experts' tokens is "
                "made of CUDA libraries; start one server a replica instead"
            )
        if parallel.worker_cls == "auto":
            parallel.worker_cls = "vllm_gptoss.cpu.worker.CpuWorker"
        parallel.disable_custom_all_reduce = True
        vllm_config.scheduler_config.async_scheduling = False

    @classmethod
    def get_device_name(cls, device_id: int = 0) -> str:
        return "cpu"

    @classmethod
    def get_device_total_memory(cls, device_id: int = 0) -> int:
        return psutil.virtual_memory().total

    @classmethod
    def get_current_memory_usage(cls, device: torch.types.Device = None) -> float:
        return psutil.Process().memory_info().rss

    @classmethod
    def set_device(cls, device: torch.device) -> None:
        torch.cpu.set_device(device)

    @classmethod
    def manual_seed_all(cls, seed: int) -> None:
        torch.manual_seed(seed)

    @classmethod
    def inference_mode(cls):
        return torch.no_grad()

    @classmethod
    def is_pin_memory_available(cls) -> bool:
        return False

    @classmethod
    def supports_fp8(cls) -> bool:
        return False

    @classmethod
    def support_hybrid_kv_cache(cls) -> bool:
        # Sliding layers keep the blocks of their window only.
        return True

    @classmethod
    def support_static_graph_mode(cls) -> bool:
        return False

    @classmethod
    def get_device_communicator_cls(cls) -> str:
        return "vllm.distributed.device_communicators.cpu_communicator.CpuCommunicator"

    @classmethod
    def use_custom_op_collectives(cls) -> bool:
        return False
