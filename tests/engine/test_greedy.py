"""fp32 greedy tokens of the engine equal those of Transformers, token for token."""

import random

import pytest
from vllm import SamplingParams

from vllm_gptoss.tiny import write_random

COUNT = 8
"""Tokens that each prompt is continued by."""

# Around the window (128), a KV block (16), a chunk of prefill (96) and YaRN's original length (4096).
LENGTHS = (1, 2, 15, 16, 17, 96, 97, 127, 128, 129, 130, 300, 1000, 4095, 4096, 4097, 5000)


def prompt(length: int, seed: int = 0) -> list[int]:
    return random.Random(f"{length}-{seed}").choices(range(2048), k=length)


def tokens(llm, prompts: list[list[int]], count: int = COUNT) -> list[list[int]]:
    sampling = SamplingParams(temperature=0, max_tokens=count, ignore_eos=True, detokenize=False)
    outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts], sampling, use_tqdm=False)
    return [list(output.outputs[0].token_ids) for output in outputs]


def counter(llm, name: str) -> float:
    return sum(metric.value for metric in llm.get_metrics() if metric.name == name)


@pytest.fixture(scope="module")
def expected(greedy, random_checkpoint):
    return lambda prompts, count=COUNT: [greedy(random_checkpoint, ids, count) for ids in prompts]


def test_one_by_one_together_and_from_a_warm_cache(engine, random_checkpoint, expected):
    prompts = [prompt(length) for length in LENGTHS]
    with engine(random_checkpoint) as llm:
        assert [tokens(llm, [ids])[0] for ids in prompts] == expected(prompts)
        hits = counter(llm, "vllm:prefix_cache_hits")
        assert tokens(llm, prompts) == expected(prompts)
        assert counter(llm, "vllm:prefix_cache_hits") - hits > 10_000


def test_a_batch_of_32(engine, random_checkpoint, expected):
    prompts = [prompt(1 + 13 * i, seed=1) for i in range(32)]
    with engine(random_checkpoint) as llm:
        assert tokens(llm, prompts) == expected(prompts)


def test_chunked_prefill(engine, random_checkpoint, expected):
    prompts = [prompt(length) for length in LENGTHS if length <= 1000]
    with engine(random_checkpoint, max_num_batched_tokens=96, enable_prefix_caching=False) as llm:
        assert tokens(llm, prompts) == expected(prompts)


def test_preemption(engine, random_checkpoint, expected):
    """More requests than the KV cache holds: some are thrown out and computed again, and nothing changes."""
    prompts = [prompt(200, seed) for seed in range(8)]
    cache = {"kv_cache_memory_bytes": 7 << 20, "max_model_len": 512, "enable_prefix_caching": False}
    with engine(random_checkpoint, **cache) as llm:
        assert tokens(llm, prompts, 100) == expected(prompts, 100)
        assert counter(llm, "vllm:num_preemptions") > 0


@pytest.mark.parametrize(
    "parallel",
    [
        {"tensor_parallel_size": 2},
        {"tensor_parallel_size": 2, "enable_expert_parallel": True},
        {"pipeline_parallel_size": 2},
    ],
    ids=["tensor", "expert", "pipeline"],
)
def test_two_ranks(engine, random_checkpoint, expected, parallel):
    prompts = [prompt(length) for length in (1, 17, 129, 300)]
    with engine(random_checkpoint, **parallel, distributed_executor_backend="mp") as llm:
        assert tokens(llm, prompts) == expected(prompts)


def test_a_bf16_checkpoint_in_shards(engine, bf16_checkpoint, greedy):
    prompts = [prompt(length) for length in (1, 129, 300)]
    with engine(bf16_checkpoint) as llm:
        assert tokens(llm, prompts) == [greedy(bf16_checkpoint, ids, COUNT) for ids in prompts]


@pytest.mark.parametrize(
    ("sizes", "parallel"),
    [
        ({"heads": 4, "kv_heads": 1}, {"tensor_parallel_size": 2}),
        ({"intermediate": 96}, {"tensor_parallel_size": 2}),
        ({"intermediate": 96, "weight_format": "bf16"}, {"tensor_parallel_size": 2}),
        ({"experts": 7}, {"tensor_parallel_size": 2, "enable_expert_parallel": True}),
    ],
    ids=["one KV head", "blocks that do not divide", "blocks that do not divide, bf16", "experts that do not divide"],
)
def test_two_ranks_share_odd_sizes(engine, greedy, tmp_path, sizes, parallel):
    write_random(tmp_path, layers=2, vocab=2048, **sizes)
    prompts = [prompt(length) for length in (1, 129)]
    with engine(tmp_path, **parallel, distributed_executor_backend="mp", max_model_len=512) as llm:
        assert tokens(llm, prompts) == [greedy(tmp_path, ids, COUNT) for ids in prompts]
