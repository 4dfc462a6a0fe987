"""Answers whose form leaves them no token in their middle: the engine finds why, the server says it with a 400.

A form lets some tokens through; vLLM takes those away that `bad_words` forbid, and holds all stop tokens back until the
form is complete. Where none is left it samples one all the same, the grammar refuses that, and the request is over.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

import numpy as np
from vllm.exceptions import VLLMValidationError

from vllm_gptoss.grammar.backend import END_TOKENS

if TYPE_CHECKING:
    from vllm.outputs import RequestOutput
    from vllm.v1.request import Request
    from vllm.v1.structured_output import StructuredOutputManager

ERROR = "error"
"""vLLM's finish reason of a request that the engine gave up."""
FORM = "form"
SMALLEST, LARGEST = 1e-30, 1e30
"""Beyond these a penalty takes a logit out of the range of fp32."""
CAUSES = {
    "bad_words": "bad_words forbid each token with which the answer could keep its form at this place: leave words "
    "out of bad_words, or ask for another form",
    "min_tokens": "bad_words and min_tokens forbid each token with which the answer could keep its form at this place: "
    "leave one of them out, or ask for another form",
    "stop_token_ids": "stop_token_ids has each token with which the answer could keep its form at this place, and a "
    "stop token may come where the form is complete: leave it out of stop_token_ids, or ask for another form",
    "repetition_penalty": "repetition_penalty makes logits infinite, so that no token can be chosen by them: give one "
    "nearer to 1",
    FORM: "nothing has the form that the answer should have: no token is left with which it could go "
    "on at this place; ask for a form that there is something of",
}
"""What is said, by the parameter at fault. The engine gives that as the stop reason of its request."""


def accept_tokens(stock: Callable) -> Callable:
    """In the engine: a request that ends since its grammar refused a token has the cause as its stop reason."""

    def accept_tokens(self, request: "Request", new_token_ids: list[int]) -> bool:
        accepted = stock(self, request, new_token_ids)
        if not accepted and getattr(self.vllm_config.model_config.hf_config, "model_type", None) == "gpt_oss":
            request.stop_reason = cause(self, request, new_token_ids)
        return accepted

    return accept_tokens


def cause(manager: "StructuredOutputManager", request: "Request", refused: list[int]) -> str | None:
    """A key of `CAUSES`; None where a token was left, so that the fault is not the request's.

    `refused`: the end of the request's output; the grammar stands where it refused one of these.
    """
    left = allowed(manager, request)
    params = request.sampling_params
    if not left:
        own_stops = set(params.stop_token_ids or ()).difference(END_TOKENS)
        return "stop_token_ids" if own_stops else FORM
    output = list(request.output_token_ids)
    for end in range(len(output) - len(refused), len(output)):
        unsaid = left - forbidden(params.bad_words_token_ids or (), output[:end])
        if not unsaid:
            return "bad_words"
        stops = params.all_stop_token_ids
        if end < params.min_tokens and unsaid <= stops and not left <= stops:
            return "min_tokens"  # vLLM's newer sampler takes stop tokens away first, and then the bad words
    return None if SMALLEST < params.repetition_penalty < LARGEST else "repetition_penalty"


def allowed(manager: "StructuredOutputManager", request: "Request") -> set[int]:
    """The tokens that the grammar lets through where it stands."""
    mask = manager.backend.allocate_token_bitmask(1)
    request.structured_output_request.grammar.fill_bitmask(mask, 0)
    return set(np.unpackbits(mask.numpy().view(np.uint8), bitorder="little").nonzero()[0].tolist())


def forbidden(bad_words: list[list[int]], output: list[int]) -> set[int]:
    """The tokens that would end one of the words behind this output."""
    return {word[-1] for word in bad_words if word[:-1] == output[len(output) - len(word) + 1 :]}


def generate(stock: Callable) -> Callable:
    """In the server: results as they come. Raises: VLLMValidationError that names the cause of the engine."""

    async def generate(self, *args, **kwargs) -> "AsyncIterator[RequestOutput]":
        async with aclosing(stock(self, *args, **kwargs)) as results:
            async for result in results:
                for output in result.outputs:
                    if output.finish_reason == ERROR and output.stop_reason in CAUSES:
                        raise _refusal(output.stop_reason)
                yield result

    return generate


def _refusal(cause: str) -> VLLMValidationError:
    return VLLMValidationError(CAUSES[cause], parameter=None if cause == FORM else cause)
