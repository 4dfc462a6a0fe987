"""Grammars in vLLM's server: a request of either API is given the grammar of its turns.

    tool_choice          a turn ends in            there is a grammar
    none, or no tools    the answer                if a form of answer is asked for
    auto                 the answer, or calls      if a form is asked for, or a tool is strict, or calls must not be
                                                   parallel, or by `--tool-strict-level function`
    required, named      calls                     always

`--tool-strict-level` is an option of vLLM's server, `auto` unless given; `parameter` holds the arguments of every
tool to its schema, as `strict` does for one tool and as is done where a call is required. With
`VLLM_ENFORCE_STRICT_TOOL_CALLING=0` in its environment `auto` without a form of answer is free.
"""

from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import StructuredOutputsParams
from vllm.tool_parsers.tool_strict_level import ToolStrictLevel

from vllm_gptoss.grammar.answer import answer_format
from vllm_gptoss.grammar.backend import END_TOKENS
from vllm_gptoss.grammar.callees import callees, choice_of, is_strict
from vllm_gptoss.grammar.turn import TEXT, Turn, turn_tag
from vllm_gptoss.parsers.harmony import CHANNEL, END, MESSAGE, START, token_bytes
from vllm_gptoss.parsers.serving import HarmonyParser, Request, harmony_parser

EARLIER = (START, CHANNEL, MESSAGE, END)
"""Control tokens of messages before the last."""
NEEDED = (CHANNEL, MESSAGE)
"""Those of each message."""


def composed(
    *, reasoning_parser_name: str | None, tool_parser_name: str | None, tool_strict_level: str, **_: object
) -> type[HarmonyParser]:
    """The parser class of a server that is configured so. Raises: as `harmony_parser`."""
    level = ToolStrictLevel.from_name(tool_strict_level)
    return constrained(harmony_parser(reasoning_parser_name, tool_parser_name, level))


def constrained(parser: type[HarmonyParser]) -> type[HarmonyParser]:
    """A parser class whose requests get the grammar of their turns."""

    class ConstrainedHarmonyParser(parser):
        def adjust_request(self, request: Request) -> Request:
            grammar = turn_grammar(request, self.tool_strict_level)
            if grammar is None:
                return super().adjust_request(request)
            _hold(request, None)  # vLLM would make a grammar of its own of what is asked for
            request = super().adjust_request(request)
            _hold(request, grammar)
            return request

        def _apply_structural_tag(self, request: Request) -> Request:
            return request

    return ConstrainedHarmonyParser


def _hold(request: Request, grammar: StructuredOutputsParams | None) -> None:
    """The form of the answer leaves the request, as it does in vLLM: beside it a grammar would be one too many."""
    setattr(request, "text" if isinstance(request, ResponsesRequest) else "response_format", None)
    request.structured_outputs = grammar


def turn_grammar(request: Request, level: ToolStrictLevel) -> StructuredOutputsParams | None:
    """The grammar of a request, None where the model is free.

    Raises: VLLMValidationError, which is a 400, for what no grammar can be made of.
    """
    choice = choice_of(request)
    wanted = None if choice.is_required else request.extract_structured_outputs()
    answer = None if wanted is None else answer_format(request, wanted)
    if answer is None and not choice.is_required:
        if wanted is not None or not is_strict(request, choice, level):
            return None  # vLLM says what is wrong with a form that says nothing
        answer = TEXT
    if getattr(request, "continue_final_message", False):
        raise VLLMValidationError(
            "continue_final_message goes on within a message, which can't be held to a form or become a call: "
            "leave out response_format, tool_choice and strict tools, or the continuation",
            parameter="continue_final_message",
        )
    if getattr(request, "allowed_token_ids", None):
        raise VLLMValidationError(
            "allowed_token_ids can't stand beside calls or an answer that are held to a form, which need tokens of "
            "their own: leave out the one or the other",
            parameter="allowed_token_ids",
        )
    _check_tokens(request)
    from_start = getattr(request, "add_generation_prompt", True) is False
    allowed = callees(request, choice, level) if choice.may_call else ()
    turn = Turn(answer, allowed, request.parallel_tool_calls is not False, from_start)
    return StructuredOutputsParams(structural_tag=turn_tag(turn))


def _check_tokens(request: Request) -> None:
    """Raises: VLLMValidationError where the request forbids control tokens without which a turn has no form."""
    stops = ", ".join(f"{token} ({_name(token)})" for token in request.stop_token_ids or () if token in EARLIER)
    if stops:
        raise VLLMValidationError(
            f"stop_token_ids can't have {stops} beside calls or an answer that are held to a form: a stop token may "
            "come where the form is complete, and messages before that need these; leave them out of stop_token_ids",
            parameter="stop_token_ids",
        )
    words = {word.lstrip() for word in getattr(request, "bad_words", None) or ()}
    ends = set(map(_name, END_TOKENS))
    forbidden = words.intersection(map(_name, NEEDED)) or (ends if words >= ends else ())
    if forbidden:
        raise VLLMValidationError(
            f"bad_words can't have {', '.join(sorted(forbidden))} beside calls or an answer that are held to a form, "
            "whose messages need them: leave them out of bad_words",
            parameter="bad_words",
        )


def _name(control: int) -> str:
    return token_bytes(control).decode()
