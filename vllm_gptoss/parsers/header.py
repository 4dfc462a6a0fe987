"""The header of a Harmony message, read together with what models get wrong about it.

    <|start|> role [to=recipient] <|channel|> channel [to=recipient] [<|constrain|>] [content type] <|message|>

The text behind a control token is a slot. Its words are taken one after the other by the first row of `WORDS` that
fits; what no row takes was meant to be read, and goes into the body.

Source: OpenAI's guide to the harmony response format, and the malformed headers that servers see.
"""

import re
from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

ASSISTANT, TOOL = "assistant", "tool"
ROLES = (ASSISTANT, "user", "system", "developer", TOOL)
ANALYSIS, COMMENTARY, FINAL = "analysis", "commentary", "final"
CHANNELS = (ANALYSIS, COMMENTARY, FINAL)
CONSTRAIN = "<|constrain|>"

NOBODY = {*ROLES, *CHANNELS, "all", "json", "none", "null"}
"""A message of the assistant to one of these is for the user, as if it named nobody."""


class Slot(Enum):
    """The control token that header text stands behind."""

    ROLE = "<|start|>"
    CHANNEL = "<|channel|>"
    TYPE = CONSTRAIN


class Header(NamedTuple):
    role: str = ASSISTANT
    name: str | None = None
    """The author, where that is a tool."""
    channel: str | None = None
    recipient: str | None = None
    content_type: str | None = None


class Reading(NamedTuple):
    header: Header
    text: str
    """What stands among the header and is not header: the beginning of the body."""
    repairs: tuple[str, ...]


NAME = r"[\w.:/@-]{1,200}"
TYPE = r"[\w/.+-]{1,60}"
# Words stand apart, or are glued to the next one; what follows a known word may be a slip of punctuation.
END = rf"(?=[\WA-Z]|$|to=|functions\.|json|code|{'|'.join((*ROLES, *CHANNELS))})[?!.,:;]*"

EVERYWHERE, HEAD = tuple(Slot), (Slot.ROLE, Slot.CHANNEL)
WORDS = (
    # the field       where            how its word looks
    ("recipient", EVERYWHERE, rf"to=\s*{NAME}"),
    ("name", (Slot.ROLE,), rf"(?!(?:{'|'.join(ROLES)})\b){NAME}(?=\s+to=assistant\b)"),
    ("role", (Slot.ROLE,), rf"(?:{'|'.join(ROLES)}){END}"),
    ("role", (Slot.CHANNEL,), rf"{ASSISTANT}{END}"),
    ("channel", HEAD, rf"(?:{'|'.join(CHANNELS)}){END}"),
    ("recipient", EVERYWHERE, rf"functions\.{NAME}"),
    ("content_type", HEAD, rf"(?:json|code|text)(?=\s*to=\s*{NAME})"),
    ("channel", (Slot.CHANNEL,), rf"[^\W\d]{{1,40}}[?!.,:;]*(?=\s*to=\s*{NAME})"),
    ("content_type", (Slot.TYPE,), TYPE),
)
SLOT_WORDS = {
    slot: re.compile(
        r"\s*(?:"
        + "|".join(f"(?P<{field}_{row}>{word})" for row, (field, slots, word) in enumerate(WORDS) if slot in slots)
        + ")"
    )
    for slot in Slot
}
KNOWN_TYPE = re.compile(r"\s*(?:json|code|text)(?=[\s{[\"]|$)")
MISPLACED = {
    *(("content_type", slot) for slot in HEAD),
    ("channel", Slot.ROLE),
    ("role", Slot.CHANNEL),
    ("recipient", Slot.TYPE),
}
"""Fields that `WORDS` finds there, though the format has them elsewhere."""
CUT_TOKEN = re.compile(r"<(?:\|[a-z]*\|?)?")
VOCABULARY = (*ROLES, *CHANNELS, "to=", "json", "code", "functions.")


def read_header(slots: Mapping[Slot, str], *, closed: bool, cut: bool = False) -> Reading:
    """What a header says, and which repairs that took.

    `closed`: a `<|message|>` follows, so a lone word that no row knows is a misspelt one and not text.
    `cut`: the output ended here, so a lone word may be the beginning of one.
    """
    found: dict[str, str] = {}
    repairs: list[str] = []
    text = ""
    for slot, words in slots.items():
        rest = _take_words(slot, words, found, repairs)
        if rest and closed:
            rest = _take_misspelt(slot, rest, found, repairs)
        elif rest and "recipient" in found and (known := KNOWN_TYPE.match(rest)):
            found.setdefault("content_type", known[0].strip())
            rest = rest[known.end() :]
        if rest and cut and _is_cut_header(rest.strip()):
            rest = ""
        elif rest and not closed and slot is Slot.ROLE and found.get("role", ASSISTANT) != ASSISTANT:
            rest = words  # "user input is needed": text that only begins like a header
            del found["role"]
        text += rest if text else rest.lstrip()
    if text:
        repairs.append("text_in_header")
    return Reading(_checked(found, repairs), text, tuple(repairs))


def _take_words(slot: Slot, text: str, found: dict[str, str], repairs: list[str]) -> str:
    """Takes known words from the front of a slot; returns the rest, empty where only space is left."""
    position = 0
    while word := SLOT_WORDS[slot].match(text, position):
        field = word.lastgroup.rpartition("_")[0]
        value = word[word.lastgroup]
        if field == "content_type" and CONSTRAIN in found.get(field, ""):
            break  # Any word would do for a content type: the second one is text.
        glued = 0 < position == word.start(word.lastgroup)
        if glued or (field, slot) in MISPLACED:
            repairs.append("misplaced")
        position = word.end()
        if field == "recipient":
            value = value.removeprefix("to=").lstrip()
        elif field == "content_type" and slot is Slot.TYPE:
            value = CONSTRAIN + value
        if field not in found:
            found[field] = value
        elif field == "recipient" and value == ASSISTANT:
            found |= {"name": found[field], field: value}  # the result of a tool, made up
        else:
            repairs.append("doubled")
            if field == "channel":  # The later one is where the model went on.
                found[field] = value
    return text[position:] if text[position:].strip() else ""


def _take_misspelt(slot: Slot, text: str, found: dict[str, str], repairs: list[str]) -> str:
    """A lone word in front of `<|message|>` is a role, a channel or a content type, whatever it says."""
    if len(text.split()) > 1 or len(text) > 60:
        return text
    field = {Slot.ROLE: "role", Slot.CHANNEL: "channel"}.get(slot, "content_type")
    if field in found:
        field = "content_type"
        if "recipient" not in found and not KNOWN_TYPE.fullmatch(text.rstrip()):
            repairs.append("misplaced")
    found.setdefault(field, text.strip())
    return ""


def _is_cut_header(text: str) -> bool:
    *whole, last = text.split()
    begins = CUT_TOKEN.fullmatch(last) is not None or any(word.startswith(last) for word in VOCABULARY)
    return begins and all(map(KNOWN_TYPE.fullmatch, whole))


def _checked(found: dict[str, str], repairs: list[str]) -> Header:
    """The header with names that exist; a channel that was not given stays None."""
    role = found.get("role", TOOL if "name" in found else ASSISTANT)
    if role not in ROLES:
        stripped = role.strip("?!.,:;")
        role = stripped if stripped in ROLES else ASSISTANT
        repairs.append("role")
    channel, recipient = found.get("channel"), found.get("recipient")
    if role == ASSISTANT and recipient in NOBODY:
        recipient = None
        repairs.append("recipient")
    if channel is not None and channel not in CHANNELS:
        channel = COMMENTARY if recipient else nearest_channel(channel)
        repairs.append("channel")
    if channel is None and role == ASSISTANT:
        channel = COMMENTARY if recipient else FINAL
        repairs.append("channel")
    return Header(role, found.get("name"), channel, recipient, found.get("content_type"))


def nearest_channel(word: str) -> str:
    """The channel that a misspelt word means; one that means none is for the user."""
    letters = "".join(filter(str.isalpha, word)).lower()
    return next((channel for channel in CHANNELS if letters[:4] == channel[:4]), FINAL)
