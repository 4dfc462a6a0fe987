"""Every header that is published is possible, and none that has to be repaired; each row a class of outputs."""

import json
from pathlib import Path

import pytest
from matching import CITY, END, FUNCTIONS, GOES_ON, chat, ids, read, responses, tag_of
from vllm.tool_parsers.tool_strict_level import ToolStrictLevel

GOLDEN = Path(__file__).parents[1] / "data" / "harmony"
T = "<|channel|>analysis<|message|>t<|end|><|start|>assistant"
BODY = '<|message|>{"city":"Köln"}'
GOLDEN_FUNCTIONS = ("get_weather", "get_time", "web-browsing_2", "sql", "now", "lookup_weather")

AS_IT_STOPS = {
    "simple_reasoning_response": "the turn can't end with its reasoning",
    "simple_tool_call": "the same",
    "empty_call": "arguments are JSON",
}


def auto(**fields) -> str:
    """Tools are offered, the model chooses, headers are held."""
    functions = {name: {"type": "object"} for name in GOLDEN_FUNCTIONS}
    request = responses(functions, ("code_interpreter", "web_search_preview"), **fields)
    return tag_of(request, ToolStrictLevel.FUNCTION)


def golden(name: str) -> list[int]:
    """What the model generated, to the end of its turn."""
    file = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    assert file["role"] == "assistant"
    return [token for _, run in file["runs"] for token, _ in run]


TURNS = sorted(
    path.stem for path in GOLDEN.glob("*.json") if json.loads(path.read_text(encoding="utf-8"))["role"] == "assistant"
)


@pytest.mark.parametrize("name", TURNS)
def test_what_is_published_is_possible(name):
    if name in AS_IT_STOPS:
        assert read(auto(), golden(name)) not in (END, GOES_ON)
    else:
        cut = name.startswith("cut_") or not json.loads((GOLDEN / f"{name}.json").read_text())["text"].endswith("|>")
        assert read(auto(), golden(name)) == (GOES_ON if cut else END)


TYPES = ("", " json", " code", "<|constrain|>json", " <|constrain|>json", " <|constrain|>lark")
CALLS = [
    form.format(to=to, channel=channel, type=content_type)
    for form in (" to={to}<|channel|>{channel}{type}", "<|channel|>{channel} to={to}{type}")
    for to in ("functions.get_weather", "get_weather", "functions.web-browsing")
    for channel in ("commentary", "analysis")
    for content_type in TYPES
]
FINALS = [f"<|channel|>final{content_type}" for content_type in TYPES]
BEFORE = (
    "",
    T,
    T + T,
    "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant",
    T + "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant" + T,
)
FORCED = {
    "required": "required",
    "named": {"type": "function", "function": {"name": "get_weather"}},
}


@pytest.mark.parametrize("before", BEFORE, ids=range(len(BEFORE)))
@pytest.mark.parametrize("end", ["<|call|>", "<|return|>"])
def test_each_header_of_a_required_call(before, end):
    tag = tag_of(chat(FUNCTIONS, tool_choice="required"))
    for header in CALLS:
        assert read(tag, before + header + BODY + end) == END, header


@pytest.mark.parametrize("before", BEFORE, ids=range(len(BEFORE)))
def test_each_header_of_an_answer_with_a_form(before):
    form = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}}
    tag = tag_of(chat(FUNCTIONS, response_format=form))
    for header in (*FINALS, *CALLS):
        assert read(tag, f"{before}{header}{BODY}<|return|>") == END, header


@pytest.mark.parametrize("choice", FORCED.values(), ids=FORCED)
@pytest.mark.parametrize(
    "turn",
    [
        f"{T}<|channel|>final<|message|>No.<|return|>",
        f"{T}<|return|>",
        "<|channel|>analysis<|message|>t<|return|>",
        "<|channel|>commentary<|message|>I look.<|return|>",
        "<|return|>",
    ],
)
def test_a_turn_does_not_end_without_the_call_that_is_required(choice, turn):
    assert read(tag_of(chat(FUNCTIONS, tool_choice=choice)), turn) not in (END, GOES_ON)


def test_only_the_named_function():
    tag = tag_of(chat(FUNCTIONS, tool_choice=FORCED["named"]))
    assert read(tag, f"{T}<|channel|>commentary to=functions.get_weather{BODY}<|call|>") == END
    assert read(tag, f"{T}<|channel|>commentary to=functions.get_time{BODY}<|call|>").endswith("functions.get")


FIRST = f"{T} to=functions.get_weather<|channel|>commentary json{BODY}"
SECOND = f"<|channel|>commentary to=functions.get_time{BODY}<|call|>"


@pytest.mark.parametrize("between", ["", T, T + T])
@pytest.mark.parametrize("choice", ["required", "auto"])
def test_several_calls_where_they_may_be_parallel(between, choice):
    two = f"{FIRST}<|end|><|start|>assistant{between}{SECOND}"
    assert read(tag_of(chat(FUNCTIONS, tool_choice=choice), ToolStrictLevel.FUNCTION), two) == END
    one = tag_of(chat(FUNCTIONS, tool_choice=choice, parallel_tool_calls=False))
    assert read(one, two) == FIRST
    assert read(one, f"{FIRST}<|call|>") == END


MALFORMED = [
    "<|message|>I'm sorry<|return|>",
    "<|end|>",
    "<|channel|>final<|message|>Hi<|end|><|channel|>final<|message|>Hi",
    "<|start|>assistant<|channel|>final<|message|>Hi",
    "assistant<|channel|>final<|message|>Hi",
    "assistantfinalHi",
    "Hi there",
    "<|channel|>comment<|message|>Hi",
    "<|channel|>commentary?<|message|>Hi",
    "<|channel|><|message|>Hi",
    "<|channel|> final<|message|>Hi",
    "<|channel|>Final<|message|>Hi",
    "<|channel|>final<|channel|>final<|message|>Hi",
    "<|channel|>final I'm sorry, but<|return|>",
    "<|channel|>final\nI'm sorry<|return|>",
    "<|channel|>final<|return|>",
    "<|channel|>final to=user<|message|>Hi",
    f"<|channel|>final to=functions.get_weather{BODY}",
    "<|channel|>analysis<|message|>t<|start|>assistant<|channel|>final<|message|>Hi",
    "<|channel|>analysis<|message|>t<|channel|>final<|message|>Hi",
    "<|channel|>analysis<|message|>t<|message|>Hi",
    "<|channel|>analysis<|message|>t<|constrain|>",
    "<|channel|>analysis<|message|>t<|reserved_200014|>",
    "<|channel|>analysis<|message|>t<|end|><|end|>",
    "<|channel|>analysis<|message|>t<|end|>Hi",
    "<|channel|>analysis<|message|>t<|end|><|start|>user",
    "<|channel|>analysis<|message|>t<|end|><|start|>functions.get_weather to=assistant",
    f" to=functions.get_weather{BODY}",
    f" to=functions.get_weather<|channel|>commentary to=functions.get_weather <|constrain|>json{BODY}",
    f"<|channel|>commentary to=functions.get_weather to=functions.get_weather{BODY}",
    f"<|channel|>commentary json to=functions.web-browsing_2{BODY}",
    f"<|channel|>commentary <|constrain|>json to=functions.get_weather{BODY}",
    f"<|channel|>commentary to=functions.get_weatherjson{BODY}",
    f"<|channel|>commentaryto=functions.get_weather{BODY}",
    f"<|channel|>commentary to=functions.get_wether{BODY}",
    f"<|channel|>commentary to=container.exec{BODY}",
    f"<|channel|>commentary to=functions.get_weather{BODY}<|call|>".replace("<|message|>", ""),
    "<|channel|>commentary to=functions.get_weather<|message|><|call|>",
    f"<|channel|>commentary to=functions.get_weather{BODY}<|channel|>commentary",
    "<|endoftext|>",
]


@pytest.mark.parametrize("before", ["", T], ids=["first", "behind a thought"])
@pytest.mark.parametrize("turn", MALFORMED)
def test_what_would_have_to_be_repaired_is_impossible(before, turn):
    place = read(auto(), before + turn)
    assert place not in (END, GOES_ON)
    assert place.startswith(before)


@pytest.mark.parametrize("name", ["<|channel|>", "<|message|>", "<|end|>", "<|start|>", "<|constrain|>"])
def test_letters_are_no_control_tokens(name):
    """What the grammar of vLLM lets through: the name of a token where the token should be."""
    turn = f"{T}<|channel|>final <|constrain|>json{BODY}<|return|>"
    tag = tag_of(chat(response_format={"type": "json_object"}))
    assert read(tag, turn) == END
    head, tail = turn.split(name, 1)
    letters = ids(head) + encoding_of_letters(name) + ids(tail)
    assert read(tag, letters) not in (END, GOES_ON)


def encoding_of_letters(name: str) -> list[int]:
    return [token for letter in name for token in ids(letter)]


@pytest.mark.parametrize("token", [199998, 200003, 200005, 200006, 200007, 200008, 200014, 201087])
def test_no_control_token_stands_in_a_text(token):
    """Not in JSON, not in reasoning, not in what a regular expression calls any letter."""
    strings = tag_of(chat(response_format={"type": "json_object"}))
    letters = tag_of(chat(structured_outputs={"regex": "[^a]*"}))
    for tag, head in ((strings, '{"a":"'), (letters, "x")):
        turn = ids(f"<|channel|>final<|message|>{head}")
        assert read(tag, turn) == GOES_ON
        assert read(tag, [*turn, token]).endswith(head)
    thought = ids("<|channel|>analysis<|message|>t")
    assert (read(strings, [*thought, token]) == GOES_ON) == (token == 200007)


def test_the_prompt_may_leave_the_start_to_the_model():
    request = chat(response_format={"type": "json_object"}, add_generation_prompt=False)
    assert read(tag_of(request), "<|start|>assistant<|channel|>final<|message|>{}<|return|>") == END
    assert read(tag_of(request), "<|channel|>final<|message|>{}<|return|>") == ""
