"""The grammar of a turn: which headers the model may write, and what may stand behind them.

    turn     = said* (answer | calls)
    said     = <|channel|> analysis|commentary <|message|> text NEXT
    answer   = <|channel|> final [type] <|message|> body
    calls    = call (NEXT said* call)*
    call     = ( to=R <|channel|> C  |  <|channel|> C to=R ) [type] <|message|> body         C: commentary, analysis
    type     = [space] <|constrain|> word  |  space json  |  space code
    NEXT     = <|end|> <|start|> assistant

These are the headers that `parsers/header.py` reads without a repair. Control tokens stand as token ids: in letters
no rule has them, and no text has their ids (`compiler.py`). A turn ends where an answer or a call does, in any of the
model's stop tokens, which xgrammar lets through nowhere else and tells from each other nowhere.

Source: OpenAI's guide to the harmony response format; xgrammar's structural tags.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from vllm_gptoss.parsers.harmony import CHANNEL, CONSTRAIN, END, MESSAGE, START
from vllm_gptoss.parsers.header import ANALYSIS, ASSISTANT, COMMENTARY, FINAL

Format = dict[str, Any]
"""One node of a structural tag."""

WHITESPACE = 64
"""The longest run of it between two tokens of JSON: a model that has lost its way writes line after empty line."""

TYPE = "[A-Za-z][A-Za-z0-9_-]{0,59}"
"""A content type behind `<|constrain|>`."""


class Callee(NamedTuple):
    """What the model may call."""

    recipient: Format
    """What stands behind `to=`."""
    body: Format


class Turn(NamedTuple):
    """What a request allows; at least one of `answer` and `callees`."""

    answer: Format | None = None
    """The body of the final message, None where the turn must not end without a call."""
    callees: Sequence[Callee] = ()
    parallel: bool = True
    """There may be several calls."""
    from_start: bool = False
    """The prompt does not end in `<|start|>assistant`: the turn begins with it."""


def token(token_id: int) -> Format:
    return {"type": "token", "token": token_id}


def text(value: str) -> Format:
    return {"type": "const_string", "value": value}


def pattern(regex: str) -> Format:
    return {"type": "regex", "pattern": regex}


def sequence(*elements: Format) -> Format:
    return {"type": "sequence", "elements": list(elements)}


def either(*elements: Format) -> Format:
    return {"type": "or", "elements": list(elements)} if len(elements) > 1 else elements[0]


def optional(content: Format) -> Format:
    return {"type": "optional", "content": content}


def any_number(content: Format) -> Format:
    return {"type": "star", "content": content}


def json_of(schema: dict[str, Any] | bool) -> Format:
    return {"type": "json_schema", "json_schema": schema, "max_whitespace_cnt": WHITESPACE}


TEXT: Format = {"type": "any_text"}

START_OF_MESSAGE = sequence(token(START), text(ASSISTANT))
NEXT = sequence(token(END), START_OF_MESSAGE)

CONTENT_TYPE = optional(
    either(text(" json"), text(" code"), sequence(optional(text(" ")), token(CONSTRAIN), pattern(TYPE)))
)


def function_recipient(name: str) -> Format:
    """A function goes by its name, with its namespace or without."""
    return either(text(f"functions.{name}"), text(name))


def turn_tag(turn: Turn) -> str:
    """The structural tag, as JSON."""
    said = any_number(either(_said(ANALYSIS), _said(COMMENTARY)))
    ends = []
    if turn.answer is not None:
        ends.append(sequence(token(CHANNEL), text(FINAL), CONTENT_TYPE, token(MESSAGE), turn.answer))
    if turn.callees:
        call = either(*map(_call, turn.callees))
        more = [any_number(sequence(NEXT, said, call))] if turn.parallel else []
        ends.append(sequence(call, *more))
    start = [START_OF_MESSAGE] if turn.from_start else []
    return json.dumps({"type": "structural_tag", "format": sequence(*start, said, either(*ends))})


def _said(channel: str) -> Format:
    return sequence(token(CHANNEL), text(channel), token(MESSAGE), TEXT, NEXT)


def _call(callee: Callee) -> Format:
    to = sequence(text(" to="), callee.recipient)
    channel = sequence(token(CHANNEL), either(text(COMMENTARY), text(ANALYSIS)))
    header = either(sequence(to, channel), sequence(channel, to))
    return sequence(header, CONTENT_TYPE, token(MESSAGE), callee.body)
