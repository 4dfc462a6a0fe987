"""Harmony: token ids in, events out, one token at a time. No sequence of ids is an error.

A conversation is a row of messages, each a header and a body. What a token does depends on where it stands:

    token                  between messages     in a header             in a body
    text                   opens a header *     header text             text
    <|start|>              opens a header       opens it anew *         ends it *, opens a header
    <|channel|>            opens a header *     the channel follows     ends it *, opens a header
    <|constrain|>          nothing *            the type follows        nothing *
    <|message|>            opens a body *       the body follows        nothing *
    <|end|>, <|return|>,   nothing *            ends it *               ends it
    <|call|>, <|endoftext|>
    any other id           nothing *            nothing *               nothing *

    * a repair: well-formed output has none of these

A header that ends without `<|message|>` is read for text in it (`header.py`). Cost and memory a token are constant:
a header that grows past `HEADER_LIMIT` is a body whose `<|message|>` is missing.

Source: OpenAI's guide to the harmony response format; the ids are those of o200k_harmony.
"""

import codecs
import functools
import re
from typing import NamedTuple

from openai_harmony import HarmonyEncoding, HarmonyEncodingName, load_harmony_encoding

from vllm_gptoss.parsers.header import ASSISTANT, Header, Slot, read_header

END_OF_TEXT, RETURN, CONSTRAIN, CHANNEL = 199999, 200002, 200003, 200005
START, END, MESSAGE, CALL = 200006, 200007, 200008, 200012
STOPS = {END_OF_TEXT, RETURN, END, CALL}
FIRST_CONTROL = 199998
"""Ids from here on are control tokens, or mean nothing."""

TOKENS = {"<|channel|>": CHANNEL, "<|constrain|>": CONSTRAIN, "<|message|>": MESSAGE}
SPELT = re.compile("|".join(map(re.escape, TOKENS)))
"""What no header has as text."""

HEADER_LIMIT = 400
"""Characters: a recipient of 200 and all else that a header may say."""


class Opened(NamedTuple):
    """A message begins."""

    header: Header


class Text(NamedTuple):
    """A piece of the body of the open message."""

    text: str


class Closed(NamedTuple):
    """The open message is over."""

    stop: int | None = None
    """The id that ended it, None where that is missing."""
    cut: bool = False
    """The whole output ended here, in the middle of the message."""


class Repaired(NamedTuple):
    """The output was not well-formed here."""

    kind: str


Event = Opened | Text | Closed | Repaired


class HarmonyMachine:
    """Reads what a model generates behind `<|start|>assistant`, or whole conversations when `role` is None."""

    def __init__(self, role: str | None = ASSISTANT) -> None:
        self.message: Header | None = None
        """The open message, while its body is read."""
        self._slots: dict[Slot, str] | None = None if role is None else {Slot.ROLE: f"{role} "}
        self._slot = Slot.ROLE
        self._header_size = 0
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._act = {
            START: self._on_start,
            CHANNEL: self._on_channel,
            CONSTRAIN: self._on_constrain,
            MESSAGE: self._on_message,
            **{token: functools.partial(self._on_stop, token) for token in STOPS},
        }

    def feed(self, token: int) -> list[Event]:
        if 0 <= token < FIRST_CONTROL:
            text = self._utf8.decode(token_bytes(token))
            return self._on_text(text) if text else []
        act = self._act.get(token)
        events = self._flush_letters()
        return events + (act() if act else [Repaired("stray")])

    def finish(self) -> list[Event]:
        """The output is over, by a stop token or cut anywhere. The machine is then between messages."""
        events = self._flush_letters()
        if self.message is not None:
            return [*events, self._close(cut=True)]
        return events + self._read_unclosed(cut=True)

    def _on_text(self, text: str) -> list[Event]:
        if self.message is not None:
            return [Text(text)]
        events: list[Event] = []
        if self._slots is None:
            if not text.strip():
                return [Repaired("stray")]
            events = [Repaired("start"), *self._open_header()]
        self._slots[self._slot] += text
        self._header_size += len(text)
        if spelt := SPELT.search(self._slots[self._slot]):
            return events + self._on_spelt(spelt)
        if self._header_size > HEADER_LIMIT:
            events += self._open_body(closed=False)
        return events

    def _on_spelt(self, spelt: re.Match) -> list[Event]:
        """A grammar that names a control token lets a model write it in letters."""
        self._slots[self._slot] = spelt.string[: spelt.start()]
        events = [Repaired("spelt"), *self._act[TOKENS[spelt[0]]]()]
        rest = spelt.string[spelt.end() :]
        return events + self._on_text(rest) if rest else events

    def _on_start(self) -> list[Event]:
        return [*self._leave(), *self._open_header()]

    def _on_channel(self) -> list[Event]:
        events: list[Event] = []
        if self._slots is None:
            events = self._leave() or [Repaired("start")]
            self._open_header()
        elif Slot.CHANNEL in self._slots and read_header(self._slots, closed=False).text:
            events = self._leave()
            self._open_header()
        return events + self._open_slot(Slot.CHANNEL)

    def _on_constrain(self) -> list[Event]:
        return [Repaired("stray")] if self._slots is None else self._open_slot(Slot.TYPE)

    def _on_message(self) -> list[Event]:
        if self.message is not None:
            return [Repaired("stray")]
        events: list[Event] = []
        if self._slots is None:
            events = [Repaired("start"), *self._open_header()]
        return events + self._open_body(closed=True)

    def _on_stop(self, token: int) -> list[Event]:
        if self.message is not None:
            return [self._close(token)]
        if self._slots is None:
            return [Repaired("stray")]
        return [Repaired("message"), *self._read_unclosed(stop=token)]

    def _leave(self) -> list[Event]:
        """Something else begins: what was open ends without its end."""
        if self.message is not None:
            return [Repaired("end"), self._close()]
        if self._slots is not None:
            return [Repaired("message"), *self._read_unclosed()]
        return []

    def _open_header(self) -> list[Event]:
        self._slots = {}
        return self._open_slot(Slot.ROLE)

    def _open_slot(self, slot: Slot) -> list[Event]:
        self._slot = slot
        self._header_size += 1
        if slot in self._slots:
            self._slots[slot] = f"{self._slots[slot].rstrip()} "
            return [Repaired("doubled")]
        self._slots[slot] = ""
        return []

    def _open_body(self, *, closed: bool) -> list[Event]:
        reading = read_header(self._slots, closed=closed)
        self._slots = None
        self._header_size = 0
        self.message = reading.header
        events: list[Event] = [Repaired(kind) for kind in reading.repairs]
        events += [Opened(reading.header)]
        return [*events, Text(reading.text)] if reading.text else events

    def _read_unclosed(self, stop: int | None = None, cut: bool = False) -> list[Event]:
        """A header that ends without a body: a message if there is text in it, or if it is a call without arguments."""
        slots, self._slots = self._slots or {}, None
        self._header_size = 0
        reading = read_header(slots, closed=False, cut=cut)
        if not reading.text and not (stop == CALL and reading.header.recipient):
            return []
        events: list[Event] = [Repaired(kind) for kind in reading.repairs]
        events += [Opened(reading.header)]
        events += [Text(reading.text)] if reading.text else []
        return [*events, Closed(stop, cut)]

    def _close(self, stop: int | None = None, cut: bool = False) -> Event:
        self.message = None
        return Closed(stop, cut)

    def _flush_letters(self) -> list[Event]:
        """Bytes that wait for the rest of a letter, which does not come any more."""
        text = self._utf8.decode(b"", final=True)
        return self._on_text(text) if text else []


@functools.cache
def _encoding() -> HarmonyEncoding:
    return load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)


def token_bytes(token: int) -> bytes:
    """UTF-8 of a token of text, which may begin or end within a letter."""
    return _encoding()._inner.decode_bytes([token])  # the public methods decode whole letters alone
