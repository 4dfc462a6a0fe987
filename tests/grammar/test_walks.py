"""Whatever a grammar lets through, the parser reads without a repair, and it is what the request asked for.

A walk samples token after token from the masks: what headers and JSON are made of most of the time, and else any
token that is allowed.
"""

import json
import random

import numpy as np
import pytest
from matching import FUNCTIONS, allowed, chat, encoding, ids, matcher, responses, tag_of
from vllm.tool_parsers.tool_strict_level import ToolStrictLevel

from vllm_gptoss.model.config import END_TOKENS
from vllm_gptoss.parsers.answer import Answer, Kind, Offer, Part, Piece

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 8}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS = dict.fromkeys(FUNCTIONS, SCHEMA)
OFFER = Offer(frozenset(TOOLS), frozenset({"python", "browser"}))
FORM = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA}}
BUILTIN = ("code_interpreter", "web_search_preview")

REQUESTS = {
    "form": chat(response_format=FORM),
    "form and tools": chat(TOOLS, response_format=FORM),
    "required": chat(TOOLS, tool_choice="required"),
    "named": chat(TOOLS, tool_choice={"type": "function", "function": {"name": "get_time"}}),
    "one call": chat(TOOLS, tool_choice="required", parallel_tool_calls=False),
    "auto": responses(TOOLS, BUILTIN),
}
FAVOURITES = np.array(
    sorted(
        {
            *ids(' to=functions.get_weather get_time web-browsing python browser.search {"city":"Köln", "days":3}'),
            *ids("<|channel|>analysis commentary final<|message|><|constrain|>json code<|end|><|start|>assistant"),
            *ids('{"city": "'),
            *ids('", "days": 3}'),
            *ids("analysiscommentaryfinalassistantfunctionsHello there"),
        }
    )
)
STEPS = 400


def walk(tag: str, seed: int) -> list[int]:
    """The tokens of one turn, which may be cut."""
    dice = random.Random(seed)
    state = matcher(tag)
    tokens: list[int] = []
    while not state.is_terminated() and len(tokens) < STEPS:
        mask = allowed(state)
        assert mask.any(), f"a dead end behind {encoding().decode(tokens)!r}"
        likely = FAVOURITES[mask[FAVOURITES]]
        ends = [token for token in END_TOKENS if mask[token]]
        if ends and dice.random() < 0.5:
            tokens.append(dice.choice(ends))
        elif likely.size and dice.random() < 0.95:
            tokens.append(int(dice.choice(likely)))
        else:
            tokens.append(int(dice.choice(np.flatnonzero(mask))))
        assert state.accept_token(tokens[-1])
    return tokens


def parts_and_repairs(tokens: list[int]) -> tuple[list[Part], list[str]]:
    answer = Answer(OFFER)
    pieces = [piece for piece in answer.feed(tokens) if isinstance(piece, Piece)]
    return list({id(piece.part): piece.part for piece in pieces}.values()), answer.repairs


@pytest.mark.parametrize("name", REQUESTS)
def test_what_the_grammar_lets_through_needs_no_repair(name):
    tag = tag_of(REQUESTS[name], ToolStrictLevel.PARAMETER)
    ended = 0
    for seed in range(30):
        tokens = walk(tag, seed)
        parts, repairs = parts_and_repairs(tokens)
        assert not repairs, (repairs, encoding().decode(tokens))
        if tokens[-1] in END_TOKENS:
            ended += 1
            check(name, parts)
    assert ended > 10


def check(name: str, parts: list[Part]) -> None:
    calls = [part for part in parts if part.kind is Kind.CALL]
    answers = [part for part in parts if part.is_final]
    if name in ("required", "named", "one call"):
        assert calls
        assert not answers
    if name == "one call":
        assert len(calls) == 1
    if name == "form":
        assert not calls
    assert {call.function for call in calls} <= ({"get_time"} if name == "named" else {*TOOLS, "python"}) | {
        call.function for call in calls if call.function.startswith("browser")
    }
    held = [call.text for call in calls if call.function in TOOLS]
    held += [answer.text for answer in answers if name.startswith("form")]
    for value in map(json.loads, held):
        assert value.keys() == {"city", "days"}
        assert len(value["city"]) <= 8
        assert value["days"] in range(1, 10)
