"""What a user sees of Harmony output: reasoning, content and calls, with nothing lost.

    message to a function or tool that the request offers      a call
    message of another recipient                               content: its text is the answer then
    analysis                                                   reasoning
    all else                                                   content

A message without a body is none, except that a call without arguments is a call with `{}`.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from vllm_gptoss.parsers.harmony import FIRST_CONTROL, Closed, Event, HarmonyMachine, Opened, Text
from vllm_gptoss.parsers.header import ANALYSIS, ASSISTANT, FINAL, Header
from vllm_gptoss.parsers.stop import StopStrings

FUNCTIONS = "functions."
GLUED_TYPES = ("json", "code")


class Kind(Enum):
    REASONING = "reasoning"
    CONTENT = "content"
    CALL = "call"


@dataclass(frozen=True)
class Offer:
    """What a request lets the model call: functions by name, and tools that the server runs itself."""

    functions: frozenset[str] = frozenset()
    tools: frozenset[str] = frozenset()
    """First parts of recipients, such as `python` and `browser`."""

    def resolve(self, recipient: str) -> str | None:
        """The recipient as it was offered, None when it was not."""
        name = recipient.removeprefix(FUNCTIONS).rstrip(".:")
        for candidate in (name, *(name.removesuffix(glued) for glued in GLUED_TYPES)):
            if candidate in self.functions:
                return FUNCTIONS + candidate
        return recipient if recipient.partition(".")[0] in self.tools else None


@dataclass
class Part:
    """One message, as far as it has come."""

    kind: Kind
    channel: str
    recipient: str | None = None
    content_type: str | None = None
    texts: list[str] = field(default_factory=list)
    is_final: bool = False
    """It is the answer, and neither reasoning nor a preamble."""
    cut: bool = False
    """The output ended in the middle of it."""

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def function(self) -> str | None:
        """The name of the function that is called."""
        return self.recipient.removeprefix(FUNCTIONS) if self.kind is Kind.CALL else None


class Piece(NamedTuple):
    """Text of a part, in the order of generation; the first piece of a call may be empty."""

    part: Part
    text: str


class Done(NamedTuple):
    """A part is complete."""

    part: Part


class Answer:
    """Token ids of one turn in, pieces out; `feed` and `finish` never raise."""

    def __init__(self, offer: Offer, stop: StopStrings | None = None) -> None:
        self.offer = offer
        self.tokens = self.reasoning_tokens = 0
        self.repairs: list[str] = []
        """Kinds of repairs since the caller last cleared it."""
        self._stop = stop
        self._machine = HarmonyMachine()
        self._part: Part | None = None
        self._stops_here = self._stopped = False
        self._refused: str | None = None
        self._space = ""
        """White space in front of arguments, of which nothing is known yet."""

    def feed(self, tokens: Iterable[int]) -> list[Piece | Done]:
        pieces: list[Piece | Done] = []
        for token in tokens:
            self.tokens += 1
            if self._stopped:
                continue
            for event in self._machine.feed(token):
                pieces += self._take(event)
            if self._part is not None and self._part.kind is Kind.REASONING and 0 <= token < FIRST_CONTROL:
                self.reasoning_tokens += 1
        return pieces

    def finish(self) -> list[Piece | Done]:
        """The turn is over; the next token begins another one."""
        pieces = [piece for event in self._machine.finish() for piece in self._take(event)]
        self._machine, self._stopped = HarmonyMachine(), False
        return pieces

    def _take(self, event: Event) -> list[Piece | Done]:
        if self._stopped:
            return []
        if type(event) is Text:
            return self._say(event.text)
        if type(event) is Opened:
            return self._open(event.header)
        if type(event) is Closed:
            return self._close(event)
        self.repairs.append(event.kind)
        return []

    def _open(self, header: Header) -> list[Piece | Done]:
        channel, recipient = header.channel or FINAL, header.recipient
        called = self.offer.resolve(recipient) if recipient and header.role == ASSISTANT else None
        is_final = channel == FINAL and recipient is None
        self._stops_here = is_final and self._stop is not None
        self._refused = None
        if called is not None:
            if called.removeprefix(FUNCTIONS) != recipient.removeprefix(FUNCTIONS):
                self.repairs.append("misplaced")
            self._part = Part(Kind.CALL, channel, called, header.content_type)
            return [Piece(self._part, "")]
        if recipient is not None or header.role != ASSISTANT:
            self.repairs.append("not_offered" if header.role == ASSISTANT else "role")
            self._refused, channel = recipient if header.role == ASSISTANT else None, FINAL
        self._part = Part(Kind.REASONING if channel == ANALYSIS else Kind.CONTENT, channel, is_final=is_final)
        return []

    def _say(self, text: str) -> list[Piece | Done]:
        part = self._part
        if self._stops_here:
            return self._say_until_stop(part, text)
        if part.kind is Kind.CALL and not part.texts:
            text = self._space + text
            if text.isspace():
                self._space = text
                return []
        part.texts.append(text)
        return [Piece(part, text)]

    def _say_until_stop(self, part: Part, text: str) -> list[Piece | Done]:
        text = self._stop.feed(text, self.tokens)
        self._stopped = self._stop.hit is not None
        pieces: list[Piece | Done] = []
        if text:
            part.texts.append(text)
            pieces = [Piece(part, text)]
        return [*pieces, *self._close(Closed())] if self._stopped else pieces

    def _close(self, closed: Closed) -> list[Piece | Done]:
        part, self._part, self._space = self._part, None, ""
        rest = ""
        if self._stops_here:
            rest = self._stop.flush()
        elif part.kind is Kind.CALL and not part.texts and not closed.cut:
            rest = "{}"
        elif self._refused and not part.texts and not closed.cut:
            rest = self._refused  # All that there is of this answer.
        pieces: list[Piece | Done] = []
        if rest:
            part.texts.append(rest)
            pieces = [Piece(part, rest)]
        part.cut = closed.cut
        if part.kind is Kind.CALL and not part.cut and not _is_sound(part):
            self.repairs.append("invalid_json")
        return [*pieces, Done(part)] if part.texts or part.kind is Kind.CALL else pieces


def _is_sound(call: Part) -> bool:
    """Arguments that are to be JSON are."""
    if call.content_type is not None and "json" not in call.content_type:
        return True
    try:
        json.loads(call.text, parse_int=str, parse_constant=_refuse)  # Python limits the digits of its integers
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
