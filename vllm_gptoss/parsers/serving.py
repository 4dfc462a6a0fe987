"""Harmony in vLLM's server: the parser class that Chat Completions and Responses talk to.

vLLM makes one parser a choice. Chat calls `parse` once or `parse_delta` for each piece of the stream; Responses
calls `process_chunk` and, at the end of each turn with a built-in tool, `flush`.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from openai_harmony import Message, Role
from vllm.entrypoints.generate.base.protocol import DeltaFunctionCall, DeltaMessage, DeltaToolCall, FunctionCall
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.entrypoints.openai.responses.utils import extract_function_tool_names, extract_tool_types
from vllm.parser import harmony as stock
from vllm.parser.harmony import ChunkResult, Segment
from vllm.reasoning import ReasoningParserManager
from vllm.renderers.chat_utils import make_tool_call_id
from vllm.tool_parsers import ToolParserManager
from vllm.tool_parsers.tool_strict_level import ToolStrictLevel
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.detokenizer import BaseIncrementalDetokenizer

from vllm_gptoss.parsers.answer import Answer, Done, Kind, Offer, Part, Piece
from vllm_gptoss.parsers.harmony import CHANNEL, MESSAGE, START, STOPS
from vllm_gptoss.parsers.metrics import repair_log
from vllm_gptoss.parsers.stop import StopStrings

REASONING_PARSER, TOOL_PARSER = "openai_gptoss", "openai"

BUILTIN_TOOLS = {"code_interpreter": "python", "web_search_preview": "browser", "container": "container"}
"""Types of tools that Responses runs itself, and the recipients that the model knows them by."""

STOPS_IN_FINAL = "vllm_gptoss_stops_in_final"
"""In a request's extra arguments: its stop strings are for the final answer."""

Request = ChatCompletionRequest | ResponsesRequest


class HarmonyParser(stock.HarmonyParser):
    """Everything that the model generates, in its place; see `answer.py`."""

    def __init__(self, tokenizer, tools=None, *args, **kwargs) -> None:
        super().__init__(tokenizer, tools, *args, **kwargs)
        self._tools = tools or []
        self._request: Request | None = None
        self._answer: Answer | None = None
        self._open_header: Sequence[int] = ()
        self._joined = _Joined()
        self._counted = (0, 0)
        self._repairs = repair_log()  # with the first parser: all kinds stand in the metrics from the start

    def adjust_request(self, request: Request) -> Request:
        """Before the prompt is made; vLLM uses the request that it gave, so that one is changed."""
        if request.stop:
            request.vllm_xargs = {**(request.vllm_xargs or {}), STOPS_IN_FINAL: 1}
        return super().adjust_request(request)

    def take_request(self, request: Request) -> None:
        """What Responses asks for, which `process_chunk` is not told."""
        self._request = request

    def set_prompt_token_ids(self, prompt_token_ids: Sequence[int]) -> None:
        """Where the prompt ends in a message that goes on, what is generated has no header of its own."""
        self._open_header = open_header(prompt_token_ids)

    def parse(
        self,
        model_output: str,
        request: Request,
        enable_auto_tools: bool = False,
        model_output_token_ids: Sequence[int] = (),
    ) -> tuple[str | None, str | None, list[FunctionCall] | None]:
        pieces = [*self._feed(model_output_token_ids, request), *self._finish(request)]
        joined, self._joined = self._joined, _Joined()
        texts: dict[Kind, str] = {Kind.REASONING: "", Kind.CONTENT: ""}
        calls = []
        for piece in pieces:
            if isinstance(piece, Piece) and piece.part.kind is not Kind.CALL:
                texts[piece.part.kind] += joined.text(piece)
            elif isinstance(piece, Done) and piece.part.kind is Kind.CALL:
                calls.append(FunctionCall(name=piece.part.function, arguments=piece.part.text))
        return texts[Kind.REASONING] or None, texts[Kind.CONTENT] or None, calls or None

    def parse_delta(
        self,
        delta_text: str,
        delta_token_ids: list[int],
        request: Request,
        prompt_token_ids: list[int] | None = None,
        *,
        finished: bool,
    ) -> DeltaMessage | None:
        if prompt_token_ids is not None and self._answer is None and self._joined.is_new:
            self.set_prompt_token_ids(prompt_token_ids)
        pieces = self._feed(delta_token_ids, request)
        if finished:
            pieces = [*pieces, *self._finish(request)]
        delta = self._joined.delta(pieces, request.include_reasoning)
        if finished:
            self._joined = _Joined()
        return delta

    def process_chunk(self, token_ids: Sequence[int]) -> ChunkResult:
        before = self._answer.reasoning_tokens if self._answer else 0
        segments = self._segments(self._feed(token_ids, self._request))
        after = self._answer.reasoning_tokens if self._answer else 0
        return ChunkResult(segments=segments, reasoning_token_count=after - before)

    def flush(self) -> list[Segment]:
        return self._segments(self._finish(self._request))

    def count_reasoning_tokens(self, token_ids: Sequence[int]) -> int:
        tokens, reasoning = (
            (self._answer.tokens, self._answer.reasoning_tokens) if self._answer is not None else self._counted
        )
        if tokens == len(token_ids):
            return reasoning
        answer = Answer(_offer(self._tools, self._request))
        answer.feed(token_ids)
        return answer.reasoning_tokens

    def _feed(self, tokens: Sequence[int], request: Request | None) -> list[Piece | Done]:
        if not tokens:
            return []
        if self._answer is None:
            self._answer = Answer(_offer(self._tools, request), _stop_strings(request))
            self._answer.feed(self._open_header)
            self._answer.tokens = self._answer.reasoning_tokens = 0
            self._open_header = ()
        pieces = self._answer.feed(tokens)
        self._report()
        return pieces

    def _finish(self, request: Request | None) -> list[Piece | Done]:
        if self._answer is None:
            return []
        pieces = self._answer.finish()
        self._report()
        self._counted = self._answer.tokens, self._answer.reasoning_tokens
        self._answer = None
        return pieces

    def _report(self) -> None:
        if self._answer.repairs:
            self._repairs.count(self._answer.repairs)
            self._answer.repairs.clear()

    def _segments(self, pieces: Iterable[Piece | Done]) -> list[Segment]:
        """Deltas and messages for Responses, never both in one: an item closes with a segment of its own."""
        hidden = self._request is not None and not self._request.include_reasoning
        segments = []
        for piece in pieces:
            part = piece.part
            if hidden and part.kind is Kind.REASONING:
                continue
            if isinstance(piece, Done):
                # An item that was cut before its first delta was never opened.
                segments += [Segment(part.channel, part.recipient, "", _message(part))] if part.texts else []
            elif piece.text:
                segments.append(Segment(part.channel, part.recipient, piece.text))
        return segments


class _Joined:
    """Parts of one kind in one row of text, each on lines of its own; calls by their index."""

    def __init__(self) -> None:
        self._last: dict[str, Part] = {}
        self._calls = 0

    @property
    def is_new(self) -> bool:
        return not self._last

    def text(self, piece: Piece) -> str:
        part, text = piece
        last = self._last.get(part.kind.value)
        if last is part:
            return text
        self._last[part.kind.value] = part
        return text if last is None else f"\n{text}"

    def delta(self, pieces: Iterable[Piece | Done], include_reasoning: bool) -> DeltaMessage | None:
        reasoning = content = ""
        calls: list[DeltaToolCall] = []
        for piece in pieces:
            kind = piece.part.kind
            if type(piece) is Done:
                continue
            if kind is Kind.CALL:
                self._call(piece, calls)
            elif kind is Kind.CONTENT:
                content += self.text(piece)
            elif include_reasoning:
                reasoning += self.text(piece)
        fields: dict[str, Any] = {}  # A field that is set is sent, even if it is empty.
        if reasoning:
            fields["reasoning"] = reasoning
        if content:
            fields["content"] = content
        if calls:
            fields["tool_calls"] = calls
        return DeltaMessage(**fields) if fields else None

    def _call(self, piece: Piece, calls: list[DeltaToolCall]) -> None:
        if self._last.get(Kind.CALL.value) is not piece.part:
            self._last[Kind.CALL.value] = piece.part
            function = DeltaFunctionCall(name=piece.part.function, arguments=piece.text)
            calls.append(DeltaToolCall(id=make_tool_call_id(), type="function", index=self._calls, function=function))
            self._calls += 1
        elif calls and calls[-1].index == self._calls - 1:
            calls[-1].function.arguments += piece.text
        else:
            calls.append(DeltaToolCall(index=self._calls - 1, function=DeltaFunctionCall(arguments=piece.text)))


class FinalTextDetokenizer(BaseIncrementalDetokenizer):
    """Knows the final answer alone, so that vLLM finds stop strings there and ends the generation."""

    def __init__(self, request: EngineCoreRequest) -> None:
        super().__init__(request)
        self._answer = Answer(Offer())
        self._answer.feed(open_header(request.prompt_token_ids or ()))

    def decode_next(self, next_token_id: int) -> str:
        # A character that no stop string has keeps them from reaching over two messages.
        return "".join(
            piece.text if isinstance(piece, Piece) else "\0"
            for piece in self._answer.feed((next_token_id,))
            if piece.part.is_final
        )

    @staticmethod
    def is_for(request: EngineCoreRequest) -> bool:
        extra = request.sampling_params.extra_args
        return bool(extra and extra.get(STOPS_IN_FINAL))


def harmony_parser(
    reasoning_parser: str | None, tool_parser: str | None, strict_level: ToolStrictLevel
) -> type[HarmonyParser]:
    """A class of its own for each configuration: vLLM reads what is configured from the class.

    Raises: TypeError by vLLM, when one of the two names another parser than gpt-oss has.
    """

    class ConfiguredHarmonyParser(HarmonyParser):
        reasoning_parser_cls = ReasoningParserManager.get_reasoning_parser(reasoning_parser or REASONING_PARSER)
        tool_parser_cls = ToolParserManager.get_tool_parser(tool_parser or TOOL_PARSER)
        tool_strict_level = strict_level

    return ConfiguredHarmonyParser


def open_header(prompt: Sequence[int]) -> Sequence[int]:
    """The header of the message that a prompt ends in the middle of, behind its role; empty where it ends otherwise."""
    for start in range(len(prompt) - 1, -1, -1):
        if prompt[start] == START:
            last = list(prompt[start:])
            if MESSAGE not in last or last[-1] in STOPS:
                return ()
            header = last[: last.index(MESSAGE) + 1]
            return header[header.index(CHANNEL) :] if CHANNEL in header else header[-1:]
    return ()


def _offer(tools: Sequence[Any], request: Request | None) -> Offer:
    if request is not None and request.tool_choice == "none":
        return Offer()
    if tools and hasattr(tools[0], "function"):  # Chat Completions
        return Offer(frozenset(tool.function.name for tool in tools))
    types = extract_tool_types(tools)
    return Offer(
        extract_function_tool_names(tools),
        frozenset(recipient for type_, recipient in BUILTIN_TOOLS.items() if type_ in types),
    )


def _stop_strings(request: Request | None) -> StopStrings | None:
    if request is None or not request.stop:
        return None
    return StopStrings(
        [request.stop] if isinstance(request.stop, str) else request.stop,
        keep=request.include_stop_str_in_output,
        min_tokens=getattr(request, "min_tokens", 0) or 0,
    )


def _message(part: Part) -> Message:
    message = Message.from_role_and_content(Role.ASSISTANT, part.text).with_channel(part.channel)
    if part.recipient is not None:
        message = message.with_recipient(part.recipient)
    return message if part.content_type is None else message.with_content_type(part.content_type)
