"""Checkpoints that the tests serve, Transformers as the reference, and engines that end with their test."""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from vllm_gptoss.tiny import write_random, write_tiny

if TYPE_CHECKING:
    from openai import OpenAI

SHELL = dict(os.environ)
"""The environment of whoever runs the tests, before they change it."""


# While this file is imported: a folder's own conftest, which comes next, may import vLLM and Triton.
os.environ.update(
    # The engine in the process of the test: a test can look inside it and plant mistakes in it.
    VLLM_ENABLE_V1_MULTIPROCESSING="0",
    # Ranks come from a fork, which is quick, and safe as long as torch has no threads of its own.
    VLLM_WORKER_MULTIPROC_METHOD="fork",
    OMP_NUM_THREADS="1",
    VLLM_NO_USAGE_STATS="1",
    HF_HUB_OFFLINE="1",
)
if not torch.cuda.is_available():
    # Read when a kernel is decorated: without a GPU Triton's interpreter runs it on the CPU.
    os.environ["TRITON_INTERPRET"] = "1"
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def device() -> str:
    """Where kernels run: compiled on a GPU, in Triton's interpreter on a CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def bf16_products(monkeypatch) -> None:
    """What Triton's interpreter lacks: it holds bf16 as uint16, and up to 3.7 `tl.dot` multiplies those integers."""
    if "TRITON_INTERPRET" not in os.environ:
        return
    # At the top, Triton would come before the environment that says to interpret it.
    import numpy as np
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    plain = InterpreterBuilder.create_dot

    def widened(handle: TensorHandle) -> TensorHandle:
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        return TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def create_dot(self, a: TensorHandle, b: TensorHandle, *rest) -> TensorHandle:
        return plain(self, widened(a), widened(b), *rest)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)


@pytest.fixture(scope="session")
def shell() -> dict[str, str]:
    """The environment of a user, for processes that do what a user does."""
    return dict(SHELL)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    write_tiny(folder)
    return folder


@pytest.fixture(scope="session")
def random_checkpoint(tmp_path_factory) -> Path:
    """Four layers over 2048 tokens, MXFP4: every part of the arithmetic, at any length a test can afford."""
    folder = tmp_path_factory.mktemp("checkpoints") / "random"
    write_random(folder, layers=4, vocab=2048)
    return folder


@pytest.fixture(scope="session")
def bf16_checkpoint(tmp_path_factory) -> Path:
    """The layout of fine-tunes: dense experts, and several shards."""
    folder = tmp_path_factory.mktemp("checkpoints") / "bf16"
    write_random(folder, layers=2, vocab=2048, weight_format="bf16", max_shard_bytes=1 << 20)
    return folder


@pytest.fixture(scope="session")
def reference() -> Callable:
    """`reference(folder, dtype)`: Transformers' model of a checkpoint, experts dequantized, kept for all tests."""
    from transformers import GptOssForCausalLM, Mxfp4Config

    models = {}

    @torch.inference_mode(False)  # a caller's mode would make weights that no test may change
    def load(folder: Path, dtype: torch.dtype = torch.float32) -> GptOssForCausalLM:
        if (folder, dtype) not in models:
            quantized = "mxfp4" in (folder / "config.json").read_text()
            options = {"quantization_config": Mxfp4Config(dequantize=True)} if quantized else {}
            model = GptOssForCausalLM.from_pretrained(
                folder, dtype=dtype, attn_implementation="eager", **options
            ).eval()
            # Transformers dequantizes to bf16 whatever the dtype, and casts activations to its weights.
            models[folder, dtype] = model.float() if dtype == torch.float32 else model
        return models[folder, dtype]

    return load


@pytest.fixture(scope="session")
def greedy(reference) -> Callable:
    """`greedy(folder, prompt, count)`: the tokens that Transformers continues a prompt with, in fp32."""
    known = {}

    def continue_(folder: Path, prompt: list[int], count: int) -> list[int]:
        key = (folder, tuple(prompt), count)
        if key not in known:
            with torch.inference_mode():
                ids = reference(folder).generate(
                    torch.tensor([prompt]),
                    attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                    max_new_tokens=count,
                    do_sample=False,
                    eos_token_id=None,
                    pad_token_id=0,
                )
            known[key] = ids[0, len(prompt) :].tolist()
        return known[key]

    return continue_


@pytest.fixture(scope="session")
def engine() -> Callable[..., AbstractContextManager]:
    """`with engine(folder, **options) as llm`: a vLLM engine that leaves nothing behind."""
    from vllm import LLM
    from vllm.distributed import cleanup_dist_env_and_memory

    @contextmanager
    def start(folder: Path, **options) -> Iterator[LLM]:
        defaults = {"dtype": "float32", "max_model_len": 5120, "max_num_seqs": 32, "seed": 0}
        defaults |= {"skip_tokenizer_init": True, "kv_cache_memory_bytes": 256 << 20}
        llm = LLM(str(folder), disable_log_stats=False, **(defaults | options))
        try:
            yield llm
        finally:
            llm.llm_engine.engine_core.shutdown()
            del llm
            cleanup_dist_env_and_memory()
            gc.collect()

    return start


@pytest.fixture(scope="session")
def client(tiny_checkpoint, tmp_path_factory, shell) -> "Iterator[OpenAI]":
    """The official client of a bare `vllm serve` on the tiny checkpoint, which it knows as `tiny`."""
    from openai import OpenAI

    from vllm_gptoss.demo.server import Server, reserved_port, serve_command

    log = tmp_path_factory.mktemp("serve") / "server.log"
    options = ("--max-model-len=2048", "--max-num-seqs=16", "--kv-cache-memory-bytes=64M")
    with (
        reserved_port() as port,
        Server(serve_command(tiny_checkpoint, port, "tiny", *options), port, log, shell) as server,
    ):
        server.wait_healthy(300)
        with OpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=120, max_retries=0) as client:
            yield client
            server.check_alive()
