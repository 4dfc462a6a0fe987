"""One engine in a process of its own, for a parent that lets several of them take turns.

    python -m benchmarks.worker '{"model": FOLDER, ...}'      the keyword arguments of vllm.LLM

Once the engine stands it says so in a line of JSON on stdout; then it answers each line of JSON on stdin with one on
stdout: `{"do": NAME, ...}` with `{...}`, or `{"error": TEXT}`. It ends with its stdin. What vLLM prints goes to stderr.

A step is timed where its tokens arrive in this process, with vLLM's engine in a process of its own as always.
"""

import itertools
import json
import os
import sys
import time
import traceback
from typing import Any

from benchmarks import random_model

SPECIAL_TOKENS = 199_998
"""Prompts are drawn below the control tokens of the vocabulary."""
SETTLE_STEPS = 4
"""Steps of the full batch that are not timed: scheduler and GPU still catch up with the last request."""
TOP = 20
"""Log-probabilities a position, the most that vLLM gives by default."""

if __name__ in random_model.MAIN_NAMES:
    random_model.register()


class Engine:
    """Each public method is a command, its arguments and its answer are JSON."""

    def __init__(self, options: dict[str, Any]) -> None:
        from vllm import LLM

        self._llm = LLM(**options, load_format=random_model.LOAD_FORMAT, skip_tokenizer_init=True)
        self._engine = self._llm.llm_engine
        self._ids = (str(number) for number in itertools.count())
        self._fresh = itertools.count()
        self._vocab = min(self._llm.model_config.get_vocab_size(), SPECIAL_TOKENS)

    def hello(self) -> dict[str, Any]:
        """How vLLM set the engine up."""
        config = self._engine.vllm_config
        return {
            "model_class": str(config.model_config.architecture),
            "max_num_batched_tokens": config.scheduler_config.max_num_batched_tokens,
            "async_scheduling": bool(config.scheduler_config.async_scheduling),
            "kv_cache_tokens": config.cache_config.kv_cache_size_tokens,
        }

    def parity(self, prompts: int, length: int, tokens: int) -> list[dict[str, Any]]:
        """Greedy tokens after random prompts, and the most likely tokens of every position.

        `rows` holds `length - 1` positions of the prompt and `tokens` after it, each `{token: log-probability}`.
        """
        from vllm import SamplingParams

        sampling = SamplingParams(
            temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False, logprobs=TOP, prompt_logprobs=TOP
        )
        asked = [{"prompt_token_ids": self._prompt("parity", i, length)} for i in range(prompts)]
        answers = []
        for output in self._llm.generate(asked, sampling, use_tqdm=False):
            best = output.outputs[0]
            rows = [*output.prompt_logprobs[1:], *best.logprobs]
            plain = [{str(token): value.logprob for token, value in row.items()} for row in rows]
            answers.append({"tokens": list(best.token_ids), "rows": plain})
        return answers

    def warm(self, batch: int, context: int) -> None:
        """Bring the prompts of `decode` into the prefix cache."""
        self._run(self._batch(batch, context), steps=1)

    def decode(self, batch: int, context: int, steps: int) -> dict[str, float]:
        """Milliseconds of a decode step of `batch` requests behind prompts of `context` tokens.

        Raises: RuntimeError when the batch was never whole: the KV cache is too small for it.
        """
        stamps = self._run(self._batch(batch, context), steps + SETTLE_STEPS + 1)[SETTLE_STEPS:]
        if len(stamps) < 2:
            raise RuntimeError(f"{batch} requests of {context} tokens never ran together")
        return {"ms": (stamps[-1] - stamps[0]) / (len(stamps) - 1) * 1e3, "steps": len(stamps) - 1}

    def prefill(self, tokens: int) -> dict[str, float]:
        """Milliseconds from a request with a prompt never seen before to its first token."""
        prompt = self._prompt("fresh", next(self._fresh), tokens)
        start = time.perf_counter()
        return {"ms": (self._run([prompt], steps=1)[0] - start) * 1e3}

    def trace(self, batch: int, context: int, steps: int, prefix: str) -> None:
        """Profile `steps` decode steps into the folder of the engine's profiler."""
        self.decode(batch, context, steps)
        self._run(self._batch(batch, context), 2 * steps + SETTLE_STEPS, profile=(prefix, steps))

    def _run(self, prompts: list[list[int]], steps: int, profile: tuple[str, int] | None = None) -> list[float]:
        """Generate until all prompts have run together for `steps` steps; returns when each of those came in."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        longest = steps + len(prompts) // 2 + 32  # the first requests run while the last still come in
        sampling = SamplingParams(
            temperature=0,
            max_tokens=longest if steps > 1 else 1,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        ids = [next(self._ids) for _ in prompts]
        for request, prompt in zip(ids, prompts, strict=True):
            self._engine.add_request(request, {"prompt_token_ids": prompt}, sampling)
        stamps: list[float] = []
        while self._engine.has_unfinished_requests() and (steps == 1 or len(stamps) < steps):
            whole = len(self._engine.step()) == len(prompts)
            if whole:
                stamps.append(time.perf_counter())
            if profile and whole and len(stamps) == SETTLE_STEPS:
                self._engine.start_profile(profile[0], max_iterations=profile[1])
        if profile:
            self._engine.stop_profile()
        self._engine.abort_request(ids)
        while self._engine.has_unfinished_requests():
            self._engine.step()
        return stamps or [time.perf_counter()]

    def _batch(self, batch: int, context: int) -> list[list[int]]:
        return [self._prompt("decode", i, context) for i in range(batch)]

    def _prompt(self, kind: str, index: int, length: int) -> list[int]:
        """Random tokens, the same in every engine."""
        import numpy as np

        seed = [*kind.encode(), index, length]
        return np.random.default_rng(seed).integers(0, self._vocab, length).tolist()


def main() -> None:
    # Only this process must hold the pipe to the parent; vLLM and its children print to the log.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    engine = Engine(json.loads(sys.argv[1]))
    print(json.dumps(engine.hello()), file=replies, flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = getattr(engine, command.pop("do"))(**command)
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=replies, flush=True)


if __name__ == "__main__":
    main()
