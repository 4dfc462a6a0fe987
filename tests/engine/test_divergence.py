"""How far next-token distributions lie from Transformers in bf16, and that each known mistake shows.

A greedy text hides most mistakes (docs/log.md): a random checkpoint and the mean KL divergence do not.
"""

import random

import pytest
import torch
from vllm import SamplingParams

from vllm_gptoss import ops
from vllm_gptoss.kernels import experts, mxfp4, rope

LIMIT = 0.08
"""Mean KL: two correct bf16 implementations lie below it, every mistake here above it."""

PROMPT = random.Random(0).choices(range(2048), k=400)


def log_probabilities(llm) -> torch.Tensor:
    """Next-token log-probabilities [positions, vocabulary] that the engine gives at every place of PROMPT."""
    sampling = SamplingParams(max_tokens=1, prompt_logprobs=-1, detokenize=False)
    (output,) = llm.generate({"prompt_token_ids": PROMPT}, sampling, use_tqdm=False)
    rows = output.prompt_logprobs[1:]
    return torch.tensor([[row[token].logprob for token in range(2048)] for row in rows])


@pytest.fixture(scope="module")
def llm(engine, random_checkpoint):
    with engine(random_checkpoint, dtype="bfloat16", max_model_len=512, max_logprobs=-1) as llm:
        yield llm


@pytest.fixture(scope="module")
def mean_kl(llm, reference, random_checkpoint):
    with torch.inference_mode():
        logits = reference(random_checkpoint, torch.bfloat16)(torch.tensor([PROMPT])).logits[0, :-1]
    target = logits.float().log_softmax(-1)

    def measure() -> float:
        ours = log_probabilities(llm)
        return (target.exp() * (target - ours)).sum(-1).mean().item()

    return measure


def test_bf16_lies_close_to_transformers(mean_kl):
    assert mean_kl() < LIMIT


def model_of(llm) -> torch.nn.Module:
    return llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker.get_model()


def attention(change):
    """A mistake in what `ops.sink_attention` is given: `change(sinks, window)` returns what to use."""

    def plant(monkeypatch, llm):
        correct = ops.sink_attention_ref

        def wrong(*args):
            *rest, sinks, scale, window = args
            sinks, window = change(sinks, window)
            return correct(*rest, sinks, scale, window)

        monkeypatch.setattr(ops, "sink_attention_ref", wrong)

    return plant


def swiglu(formula):
    """A mistake in the activation: `formula(x, alpha, limit)`, gate and up rows alternating in x."""

    def plant(monkeypatch, llm):
        monkeypatch.setattr(experts, "swiglu_ref", lambda x, *rest: formula(x.float(), *rest).to(x.dtype))

    return plant


def clamped(gate, up, limit):
    return gate.clamp(max=limit), up.clamp(-limit, limit)


def alpha_one(x, alpha, limit):
    gate, up = clamped(x[:, 0::2], x[:, 1::2], limit)
    return gate * gate.sigmoid() * (up + 1)


def no_plus_one(x, alpha, limit):
    gate, up = clamped(x[:, 0::2], x[:, 1::2], limit)
    return gate * (alpha * gate).sigmoid() * up


def not_interleaved(x, alpha, limit):
    gate, up = clamped(*x.chunk(2, dim=1), limit)
    return gate * (alpha * gate).sigmoid() * (up + 1)


def top_3(monkeypatch, llm):
    correct = ops.router_ref
    monkeypatch.setattr(ops, "router_ref", lambda logits, k: correct(logits, 3))


def softmax_before_top_k(monkeypatch, llm):
    def wrong(logits, k):
        return logits.float().softmax(-1).to(logits.dtype).topk(k)

    monkeypatch.setattr(ops, "router_ref", wrong)


def wrong_fp4_value(monkeypatch, llm):
    values = list(mxfp4.FP4_VALUES)
    values[6], values[14] = 5.0, -5.0
    monkeypatch.setattr(mxfp4, "FP4_VALUES", tuple(values))


def truncate(monkeypatch, llm):
    rotary = model_of(llm).model.rotary
    wrong, _ = rope.yarn_inv_freq_ref(64, 150000.0, 32.0, 32.0, 1.0, 4096, truncate=True)
    monkeypatch.setattr(rotary, "inv_freq", wrong)


MISTAKES = {
    "no sinks": attention(lambda sinks, window: (None, window)),
    "window 127": attention(lambda sinks, window: (sinks, window and window - 1)),
    "window 129": attention(lambda sinks, window: (sinks, window and window + 1)),
    "alpha 1": swiglu(alpha_one),
    "no +1": swiglu(no_plus_one),
    "not interleaved": swiglu(not_interleaved),
    "top-3": top_3,
    "softmax before top-k": softmax_before_top_k,
    "wrong fp4 value": wrong_fp4_value,
    "truncate": truncate,
}


@pytest.mark.parametrize("plant", MISTAKES.values(), ids=MISTAKES.keys())
def test_each_mistake_shows(plant, monkeypatch, llm, mean_kl):
    plant(monkeypatch, llm)
    assert mean_kl() > LIMIT
