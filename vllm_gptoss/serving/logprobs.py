"""Log probabilities of the texts of a response, where it asks to include `message.output_text.logprobs`.

vLLM has those of all that was generated: headers, reasoning and calls too. A text gets those of the tokens that it was
written in, in the shape in which vLLM gives them out for other models; preambles are texts as well.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from openai.types.responses import ResponseOutputMessage
from openai.types.responses.response_output_text import Logprob
from openai.types.responses.response_text_delta_event import Logprob as DeltaLogprob
from openai.types.responses.response_text_done_event import Logprob as DoneLogprob
from vllm.entrypoints.openai.responses.context import HarmonyContext
from vllm.logprobs import SampleLogprobs
from vllm.outputs import RequestOutput
from vllm.parser.harmony import ChunkResult, Segment

from vllm_gptoss.parsers.harmony import FIRST_CONTROL, token_bytes
from vllm_gptoss.parsers.header import ANALYSIS

RECORD = "vllm_gptoss_logprobs"
"""A field of requests that ask for log probabilities: the `Record` of their response."""

Known = tuple[int, Any]
"""A token, and vLLM's log probabilities where it was chosen."""


class Record:
    """The log probabilities of one response, by the pieces and the texts that it shows, as far as it has come."""

    def __init__(self, spelt: Callable[[Sequence[int], Sequence[Any]], list[Logprob]]) -> None:
        """`spelt` makes what clients get of tokens and what vLLM knows of them."""
        self.texts: list[list[Logprob]] = []
        """Of each text that is complete."""
        self._spelt = spelt
        self.pieces: deque[list[Logprob]] = deque()
        self._text: list[Logprob] = []
        self._waiting: list[tuple[bytes, Known]] = []
        """Tokens that no piece has shown yet, with their bytes."""
        self._shown = 0

    def take(self, known: Known, segments: Sequence[Segment]) -> None:
        """A token was generated, and then `segments` could be shown."""
        token = known[0]
        is_text = 0 <= token < FIRST_CONTROL
        if is_text:
            self._waiting.append((token_bytes(token), known))
        self.show(segments)
        if not is_text:
            self._waiting.clear()

    def show(self, segments: Sequence[Segment]) -> None:
        for segment in segments:
            is_text = segment.recipient is None and segment.channel != ANALYSIS
            if segment.completed_message is None:
                piece = self._written_in(segment.delta.encode())
                if is_text:
                    self.pieces.append(self._spelt(*zip(*piece, strict=True)) if piece else [])
                    self._text += self.pieces[-1]
            elif is_text:
                self.texts.append(self._text)
                self._text = []
                self._waiting.clear()

    def _written_in(self, data: bytes) -> list[Known]:
        """The tokens of a piece; those in front of it were of a header, and those behind it wait."""
        raw = b"".join(raw for raw, _ in self._waiting)
        start = raw.find(data)
        if start < 0:  # It begins in a token that is counted, or has U+FFFD for half of a letter.
            start, data = 0, raw
        tokens, rest, at, end = [], [], 0, start + len(data)
        for raw, known in self._waiting:
            begin, at = at, at + len(raw)
            if begin >= end:
                rest.append((raw, known))
            elif at > start:
                tokens.append(known)
        self._waiting = rest
        return tokens

    def event(self, event: Any) -> Any:
        """An event of the stream, with what belongs to its text."""
        kind = getattr(event, "type", None)
        if kind == "response.output_text.delta":
            return event.model_copy(update={"logprobs": _of_type(DeltaLogprob, self.pieces.popleft())})
        if kind == "response.output_text.done":
            return event.model_copy(update={"logprobs": _of_type(DoneLogprob, self.texts[self._shown])})
        if kind == "response.content_part.done" and event.part.type == "output_text":
            event.part.logprobs = self.texts[self._shown]
        elif kind == "response.output_item.done" and isinstance(event.item, ResponseOutputMessage):
            self._shown += 1
        return event


def complete(record: Record | None, output: Sequence[Any]) -> None:
    """Texts of a response that is complete; without a record they have none, which is an empty list."""
    texts = iter(record.texts if record is not None else ())
    for item in output:
        if isinstance(item, ResponseOutputMessage):
            logprobs = next(texts, [])
            for part in item.content:
                if part.type == "output_text":
                    part.logprobs = logprobs


def append_output(stock: Callable) -> Callable:
    """Token by token where their log probabilities count, so that each is known to be of which text."""

    def append_output(self: HarmonyContext, output: RequestOutput) -> None:
        record, logprobs = getattr(self.request, RECORD, None), output.outputs[0].logprobs
        if record is None or logprobs is None:
            stock(self, output)
            return
        parser = self.response_parser
        self.response_parser = _Watched(parser, record, logprobs)
        try:
            stock(self, output)
        finally:
            self.response_parser = parser

    return append_output


class _Watched:
    """A parser that says to a record what it was given and has shown."""

    def __init__(self, parser: Any, record: Record, logprobs: SampleLogprobs) -> None:
        self._parser, self._record, self._logprobs = parser, record, logprobs

    def process_chunk(self, token_ids: Sequence[int]) -> ChunkResult:
        segments, reasoning = [], 0
        for token, logprobs in zip(token_ids, self._logprobs, strict=True):
            result = self._parser.process_chunk((token,))
            self._record.take((token, logprobs), result.segments)
            segments += result.segments
            reasoning += result.reasoning_token_count
        return ChunkResult(segments=segments, reasoning_token_count=reasoning)

    def flush(self) -> list[Segment]:
        segments = self._parser.flush()
        self._record.show(segments)
        return segments


def _of_type(kind: type, logprobs: Sequence[Logprob]) -> list:
    """OpenAI's library has a type for each event."""
    return [kind.model_validate(each.model_dump()) for each in logprobs]
