"""One turn of a model as each of the public surfaces shows it, in a form in which they can be compared."""

import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.tool_parsers.tool_strict_level import ToolStrictLevel

from vllm_gptoss.parsers.answer import Answer, Offer, Part, Piece
from vllm_gptoss.parsers.serving import HarmonyParser, harmony_parser

TOKENIZER = object()
"""The parser reads ids alone and never asks its tokenizer."""


class Turn(NamedTuple):
    reasoning: str | None = None
    content: str | None = None
    calls: tuple[tuple[str, str], ...] = ()
    """Names and arguments."""

    @classmethod
    def of(cls, reasoning: Iterable[str], content: Iterable[str], calls: Iterable[tuple[str, str]]) -> "Turn":
        """Messages of one kind stand on lines of their own."""
        return cls("\n".join(reasoning) or None, "\n".join(content) or None, tuple(calls))


class Said(NamedTuple):
    """A message as Responses gets it."""

    channel: str
    recipient: str | None
    text: str


@functools.cache
def parser_class() -> type[HarmonyParser]:
    return harmony_parser(None, None, ToolStrictLevel.AUTO)


def chat_request(*functions: str, **fields) -> ChatCompletionRequest:
    tools = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in functions]
    return ChatCompletionRequest(model="m", messages=[{"role": "user", "content": "?"}], tools=tools or None, **fields)


def responses_request(*functions: str, builtin: Sequence[dict] = (), **fields) -> ResponsesRequest:
    tools = [{"type": "function", "name": name, "parameters": {}, "strict": False} for name in functions]
    return ResponsesRequest(model="m", input="?", tools=[*tools, *builtin], **fields)


def chat_parser(request: ChatCompletionRequest) -> HarmonyParser:
    return parser_class()(TOKENIZER, request.tools)


def responses_parser(request: ResponsesRequest) -> HarmonyParser:
    parser = parser_class()(TOKENIZER, request.tools)
    parser.take_request(request)
    return parser


def chunks(tokens: Sequence[int], cuts: Iterable[int] | None = None) -> list[list[int]]:
    """The stream cut at these places, or behind every token."""
    places = [0, *(range(1, len(tokens)) if cuts is None else sorted(cuts)), len(tokens)]
    return [list(tokens[a:b]) for a, b in itertools.pairwise(places)]


def parts_of(tokens: Sequence[int], offer: Offer) -> tuple[list[Part], list[str]]:
    """The parts of an answer, each with the text that came in pieces, and the repairs."""
    answer = Answer(offer)
    pieces = [piece for piece in [*answer.feed(tokens), *answer.finish()] if isinstance(piece, Piece)]
    parts = list({id(piece.part): piece.part for piece in pieces}.values())
    for part in parts:
        assert part.text == "".join(piece.text for piece in pieces if piece.part is part)
    return parts, answer.repairs


def parsed(tokens: Sequence[int], request: ChatCompletionRequest, parser: HarmonyParser | None = None) -> Turn:
    parser = parser or chat_parser(request)
    reasoning, content, calls = parser.parse("", request, model_output_token_ids=tokens)
    return Turn(reasoning, content, tuple((call.name, call.arguments) for call in calls or ()))


def streamed(
    tokens: Sequence[int],
    request: ChatCompletionRequest,
    cuts: Iterable[int] | None = None,
    parser: HarmonyParser | None = None,
) -> Turn:
    """What a client puts together from the stream."""
    parser = parser or chat_parser(request)
    texts = {"reasoning": "", "content": ""}
    calls: list[list[str]] = []
    pieces = chunks(tokens, cuts)
    for number, piece in enumerate(pieces, 1):
        delta = parser.parse_delta("", piece, request, finished=number == len(pieces))
        if delta is None:
            continue
        for field in texts:
            texts[field] += getattr(delta, field) or ""
        for call in delta.tool_calls or ():
            if call.id is not None:
                assert call.index == len(calls)
                calls.append([call.function.name, ""])
            assert call.index == len(calls) - 1
            calls[-1][1] += call.function.arguments or ""
    return Turn(texts["reasoning"] or None, texts["content"] or None, tuple((name, text) for name, text in calls))


def said(
    tokens: Sequence[int],
    request: ResponsesRequest,
    cuts: Iterable[int] | None = None,
    parser: HarmonyParser | None = None,
) -> list[Said]:
    """The messages of a turn of Responses; the deltas of each are its text, and none is left without a message."""
    parser = parser or responses_parser(request)
    segments = [segment for piece in chunks(tokens, cuts) for segment in parser.process_chunk(piece).segments]
    segments += parser.flush()
    messages, deltas = [], []
    for segment in segments:
        if segment.completed_message is None:
            deltas.append(segment)
            continue
        assert not segment.delta, "vLLM would not close this item"
        message = segment.completed_message
        head = (message.channel, message.recipient)
        assert {delta[:2] for delta in deltas} <= {head}
        assert deltas, "vLLM sends no event for a message without a delta"
        assert "".join(delta.delta for delta in deltas) == message.content[0].text
        messages.append(Said(*head, message.content[0].text))
        deltas.clear()
    assert not deltas
    return messages


def as_turn(messages: Sequence[Said]) -> Turn:
    """What chat would show of messages of a request that offers functions alone."""
    calls = [message for message in messages if message.recipient is not None]
    texts = [message for message in messages if message.recipient is None]
    return Turn.of(
        [message.text for message in texts if message.channel == "analysis"],
        [message.text for message in texts if message.channel != "analysis"],
        [(message.recipient.removeprefix("functions."), message.text) for message in calls],
    )


def with_arguments(turn: Turn) -> Turn:
    """Without the call that is cut behind its header: Responses has no event for a call of which there is no text."""
    return turn._replace(calls=tuple(call for call in turn.calls if call[1]))


def everywhere(tokens: Sequence[int], *functions: str) -> Turn:
    """The turn, which all surfaces show alike: whole, token by token, and cut in two anywhere."""
    chat, responses = chat_request(*functions), responses_request(*functions)
    turn = parsed(tokens, chat)
    assert streamed(tokens, chat) == turn
    in_responses = with_arguments(turn)
    assert as_turn(said(tokens, responses)) == in_responses
    for cut in range(len(tokens) + 1):
        assert streamed(tokens, chat, [cut]) == turn
        assert as_turn(said(tokens, responses, [cut])) == in_responses
    return turn
