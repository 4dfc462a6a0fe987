"""vLLM's worker on a machine with no accelerator: the V1 model runner, and memory of the host."""

import os
from contextlib import AbstractContextManager, nullcontext

import psutil
import torch
from vllm.distributed import get_pp_group
from vllm.logger import init_logger
from vllm.platforms import current_platform
from vllm.utils.mem_utils import format_gib
from vllm.utils.torch_utils import OMP_NUM_THREADS_SET_BY_VLLM, set_random_seed
from vllm.v1.worker.cpu_model_runner import CPUModelRunner
from vllm.v1.worker.gpu_worker import Worker, init_worker_distributed_environment
from vllm.v1.worker.worker_base import CompilationTimes

logger = init_logger(__name__)

KV_CACHE_SHARE = 0.5
"""Of the memory that is free once the weights are loaded: pages are taken only when they are written."""


class CpuWorker(Worker):
    def init_device(self) -> None:
        self.device = torch.device("cpu")
        init_worker_distributed_environment(
            self.vllm_config,
            self.rank,
            self.distributed_init_method,
            self.local_rank,
            current_platform.dist_backend,
        )
        set_random_seed(self.model_config.seed)
        self._init_workspace_and_model_runner()

    def load_model(self, *, load_dummy_weights: bool = False) -> None:
        super().load_model(load_dummy_weights=load_dummy_weights)
        if "OMP_NUM_THREADS" not in os.environ or os.environ.get(OMP_NUM_THREADS_SET_BY_VLLM) == "1":
            # vLLM has just cut torch to one thread: elsewhere the GPU computes, here torch's threads do.
            ranks = self.parallel_config.world_size
            torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // ranks))

        runner = self.model_runner
        if not get_pp_group().is_first_rank:
            # vLLM allocates these in its profiling step, which would take minutes here for nothing.
            runner.intermediate_tensors = runner.model.make_empty_intermediate_tensors(
                batch_size=runner.max_num_tokens, dtype=self.model_config.dtype, device=self.device
            )

    def _make_model_runner(self) -> CPUModelRunner:
        return CPUModelRunner(self.vllm_config, self.device)

    def _maybe_get_memory_pool_context(self, tag: str) -> AbstractContextManager:
        return nullcontext()

    def determine_available_memory(self) -> int:
        """Bytes for the KV cache: as asked for, else what the longest requests of a full batch need.

        Raises: ValueError when what was asked for is not free.
        """
        free = psutil.virtual_memory().available // self.parallel_config.world_size
        asked = self.cache_config.kv_cache_memory_bytes
        if asked is not None:
            if asked > free:
                raise ValueError(
                    f"kv_cache_memory_bytes asks for {format_gib(asked)} GiB a rank, {format_gib(free)} GiB are free"
                )
            return asked
        specs = self.model_runner.get_kv_cache_spec().values()
        one_request = sum(spec.max_memory_usage_bytes(self.vllm_config) for spec in specs)
        unused_block = sum(spec.page_size_bytes for spec in specs)  # vLLM keeps one for padding
        needed = one_request * self.scheduler_config.max_num_seqs + unused_block
        size = min(needed, int(free * KV_CACHE_SHARE))
        logger.info("KV cache: %s GiB of host memory", format_gib(size))
        return size

    def compile_or_warm_up_model(self) -> CompilationTimes:
        """Nothing is compiled here: torch's operations run as they are."""
        set_random_seed(self.model_config.seed)
        return CompilationTimes(language_model=0.0, encoder=0.0)
