"""bf16 on a GPU lies close to Transformers, whatever the batch and the context; each planted mistake shows."""

import random

import pytest
import torch

from vllm_gptoss import ops
from vllm_gptoss.kernels import rope

LIMIT = 0.08
"""Mean KL: two correct bf16 implementations lie below it, every mistake here above it."""


def prompt(length: int, seed: int = 0) -> list[int]:
    return random.Random(f"{length}-{seed}").choices(range(2048), k=length)


PROMPTS = [prompt(100, seed) for seed in range(4)]
COUNT = 200
"""Decoding from 100 to 300 tokens: past the window of 128."""


@pytest.fixture(scope="module")
def llm(gpu_engine, random_checkpoint):
    with gpu_engine(random_checkpoint, max_num_seqs=512, max_model_len=5120) as llm:
        yield llm


def test_decoding_lies_close_to_transformers(llm, mean_kl):
    assert mean_kl(llm, PROMPTS, COUNT) < LIMIT


@pytest.mark.parametrize("batch", [1, 3, 5, 9, 17, 64, 65, 512])
def test_any_batch_lies_close(llm, mean_kl, batch):
    """Batches between the sizes of the CUDA graphs are padded; from 65 tokens on other kernels compute."""
    assert mean_kl(llm, [prompt(40 + seed % 7, seed) for seed in range(batch)], 4) < LIMIT


@pytest.mark.parametrize("length", [1, 127, 128, 129, 4096, 5000])
def test_any_context_lies_close(llm, mean_kl, length):
    assert mean_kl(llm, [prompt(length, seed) for seed in range(2)], 16) < LIMIT


def test_a_context_of_40000(gpu_engine, random_checkpoint, mean_kl):
    with gpu_engine(random_checkpoint, max_num_seqs=4, max_model_len=40960) as llm:
        assert mean_kl(llm, [prompt(40000)], 16) < LIMIT


def test_mixed_prefill_and_decode(gpu_engine, random_checkpoint, mean_kl):
    """Prompts of 1500 tokens are read in chunks while the short ones are already answered."""
    options = {"max_num_seqs": 8, "max_model_len": 2048, "max_num_batched_tokens": 256}
    with gpu_engine(random_checkpoint, **options) as llm:
        assert mean_kl(llm, [prompt(length) for length in (5, 1500, 30, 1400, 7)], 32) < LIMIT


def test_two_runs_are_bit_equal(gpu_engine, random_checkpoint, generate):
    prompts = [prompt(100 + 13 * seed, seed) for seed in range(9)]
    with gpu_engine(random_checkpoint, max_num_seqs=16, max_model_len=512, enable_prefix_caching=False) as llm:
        (tokens, tables), (again, tables_again) = (generate(llm, prompts, 64) for _ in range(2))
    assert tokens == again
    assert all(torch.equal(one, other) for one, other in zip(tables, tables_again, strict=True))


@pytest.fixture(scope="module")
def eager(gpu_engine, random_checkpoint):
    """Without graphs, which would replay what stood in the model when they were captured."""
    with gpu_engine(random_checkpoint, max_num_seqs=8, max_model_len=512, enforce_eager=True) as llm:
        yield llm


def layers_of(llm) -> list[torch.nn.Module]:
    worker = llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker
    return list(worker.get_model().model.layers)


def no_sinks(monkeypatch, llm):
    for layer in layers_of(llm):
        monkeypatch.setattr(layer.self_attn.sinks, "data", torch.full_like(layer.self_attn.sinks, -1e4))
        monkeypatch.setattr(layer.self_attn.attn.impl, "sinks", layer.self_attn.sinks)


def window(change):
    def plant(monkeypatch, llm):
        for layer in layers_of(llm):
            impl = layer.self_attn.attn.impl
            if impl.window is not None:
                monkeypatch.setattr(impl, "window", impl.window + change)

    return plant


def experts(**fields):
    def plant(monkeypatch, llm):
        for layer in layers_of(llm):
            for name, value in fields.items():
                monkeypatch.setattr(layer.mlp.experts.routed_experts, name, value)

    return plant


def a_scale_doubled(monkeypatch, llm):
    for layer in layers_of(llm):
        method = layer.mlp.experts.routed_experts.quant_method
        monkeypatch.setattr(method, "experts", method.experts._replace(down_scales=method.experts.down_scales + 1))


def rows_not_interleaved(monkeypatch, llm):
    for layer in layers_of(llm):
        method = layer.mlp.experts.routed_experts.quant_method
        bias = method.experts.gate_up_bias
        mixed = torch.cat((bias[:, 0::2], bias[:, 1::2]), 1)
        monkeypatch.setattr(method, "experts", method.experts._replace(gate_up_bias=mixed))


def weights_not_normalised(monkeypatch, llm):
    correct = ops.route

    def wrong(*args, **named):
        routing = correct(*args, **named)
        return routing._replace(weights=routing.weights * 0.7)

    monkeypatch.setattr(ops, "route", wrong)


def truncate(monkeypatch, llm):
    worker = llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker
    rotary = worker.get_model().model.rotary
    wrong, _ = rope.yarn_inv_freq_ref(64, 150000.0, 32.0, 32.0, 1.0, 4096, truncate=True)
    monkeypatch.setattr(rotary, "inv_freq", wrong.cuda())


MISTAKES = {
    "no sinks": no_sinks,
    "window 127": window(-1),
    "window 129": window(1),
    "alpha 1": experts(swiglu_alpha=1.0),
    "limit 6": experts(swiglu_limit=6.0),
    "top-3": experts(top_k=3),
    "a scale doubled": a_scale_doubled,
    "not interleaved": rows_not_interleaved,
    "routing weights not normalised": weights_not_normalised,
    "truncate": truncate,
}


def test_without_graphs_it_lies_close(eager, mean_kl):
    assert mean_kl(eager, PROMPTS, COUNT) < LIMIT


@pytest.mark.parametrize("plant", MISTAKES.values(), ids=MISTAKES.keys())
def test_each_mistake_shows(plant, monkeypatch, eager, mean_kl):
    plant(monkeypatch, eager)
    assert mean_kl(eager, PROMPTS, COUNT) > LIMIT
