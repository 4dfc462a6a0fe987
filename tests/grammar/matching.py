"""Requests to grammars over the real vocabulary, and what these let through, token by token."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import xgrammar
from openai_harmony import HarmonyEncoding, HarmonyEncodingName, load_harmony_encoding
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.tool_parsers.tool_strict_level import ToolStrictLevel

from vllm_gptoss.grammar.compiler import HarmonyCompiler
from vllm_gptoss.grammar.serving import turn_grammar
from vllm_gptoss.model.config import END_TOKENS

VOCABULARY = 201088
END = "the turn may end here"
GOES_ON = "it must go on"

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTIONS = dict.fromkeys(("get_weather", "get_time", "web-browsing"), CITY)


@functools.cache
def compiler() -> HarmonyCompiler:
    return HarmonyCompiler(VOCABULARY, list(END_TOKENS), 64 << 20)


@functools.cache
def encoding() -> HarmonyEncoding:
    return load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)


def ids(text: str) -> list[int]:
    return encoding().encode(text, allowed_special="all")


def chat(functions: dict[str, Any] | None = None, **fields: Any) -> ChatCompletionRequest:
    """A request of Chat Completions that offers these functions."""
    tools = [
        {"type": "function", "function": {"name": name, "parameters": parameters}}
        for name, parameters in (functions or {}).items()
    ]
    message = {"role": "user", "content": "?"}
    return ChatCompletionRequest(**{"model": "m", "messages": [message]} | ({"tools": tools} if tools else {}) | fields)


def responses(functions: dict[str, Any] | None = None, builtin: Sequence[str] = (), **fields: Any) -> ResponsesRequest:
    tools: list[dict[str, Any]] = [
        {"type": "function", "name": name, "parameters": parameters, "strict": None}
        for name, parameters in (functions or {}).items()
    ]
    tools += [{"type": kind, "container": {"type": "auto"}} for kind in builtin]
    return ResponsesRequest(**{"model": "m", "input": "?", "tools": tools} | fields)


def tag_of(request: ChatCompletionRequest | ResponsesRequest, level: ToolStrictLevel = ToolStrictLevel.AUTO) -> str:
    grammar = turn_grammar(request, level)
    assert grammar is not None
    return grammar.structural_tag


def matcher(tag: str) -> xgrammar.GrammarMatcher:
    return xgrammar.GrammarMatcher(compiler().compile_structural_tag(tag), override_stop_tokens=list(END_TOKENS))


def allowed(state: xgrammar.GrammarMatcher) -> np.ndarray:
    """For each token, whether the mask of the next one has it."""
    mask = xgrammar.allocate_token_bitmask(1, VOCABULARY)
    state.fill_next_token_bitmask(mask, 0)
    return np.unpackbits(mask.numpy().view(np.uint8), bitorder="little")[:VOCABULARY].astype(bool)


def read(tag: str, tokens: Sequence[int] | str) -> str:
    """How far a grammar lets a turn come: to `END`, to where it `GOES_ON`, or what stands in front of the bad token.

    vLLM samples by the mask and advances by the token; the two must agree.
    """
    tokens = ids(tokens) if isinstance(tokens, str) else tokens
    state = matcher(tag)
    for place, token in enumerate(tokens):
        if state.is_terminated():
            return END  # the engine has stopped
        is_masked = not allowed(state)[token]
        assert state.accept_token(token) != is_masked, f"the mask disagrees on {token} at {place}"
        if is_masked:
            return encoding().decode(tokens[:place])
    return END if state.is_terminated() else GOES_ON
