"""Tests that need a GPU: this package's kernels inside vLLM, beside Transformers on the same GPU."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

VOCABULARY = 2048


def pytest_collection_modifyitems(items) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.fixture(scope="session")
def gpu_engine(engine) -> Callable:
    """`engine` in bf16, with log-probabilities of all tokens to be had."""
    defaults = {"dtype": "bfloat16", "max_logprobs": -1, "kv_cache_memory_bytes": 2 << 30}
    # What is free at the start is checked against it, and others may use the GPU too; the KV cache has its size.
    defaults["gpu_memory_utilization"] = 0.1
    return lambda folder, **options: engine(folder, **(defaults | options))


@pytest.fixture(scope="session")
def generate() -> Callable:
    """`generate(llm, prompts, count)`: greedy tokens [N][count], and their log-probabilities [N][count, vocabulary]."""
    from vllm import SamplingParams

    def run(llm, prompts: list[list[int]], count: int):
        sampling = SamplingParams(temperature=0, max_tokens=count, logprobs=-1, ignore_eos=True, detokenize=False)
        outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts], sampling, use_tqdm=False)
        tokens = [list(output.outputs[0].token_ids) for output in outputs]
        tables = [
            torch.tensor([[row[token].logprob for token in range(VOCABULARY)] for row in output.outputs[0].logprobs])
            for output in outputs
        ]
        return tokens, tables

    return run


@pytest.fixture(scope="session")
def mean_kl(reference, generate, random_checkpoint) -> Callable:
    """`mean_kl(llm, prompts, count)`: of the engine's next-token distributions from Transformers', while it decodes."""
    models = []

    @torch.inference_mode()
    def measure(llm, prompts: list[list[int]], count: int) -> float:
        if not models:
            models.append(reference(random_checkpoint, torch.bfloat16).cuda())
        total = 0.0
        for prompt, tokens, ours in zip(prompts, *generate(llm, prompts, count), strict=True):
            ids = torch.tensor([prompt + tokens[:-1]], device="cuda")
            logits = models[0](ids, logits_to_keep=count).logits[0]
            target = logits.float().log_softmax(-1).cpu()
            total += (target.exp() * (target - ours)).sum(-1).mean().item()
        return total / len(prompts)

    return measure
