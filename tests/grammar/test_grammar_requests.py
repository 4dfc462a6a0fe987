"""Requests of both APIs: which get a grammar, what it lets a turn end in, and what is refused."""

import json

import pytest
from matching import CITY, END, FUNCTIONS, chat, read, responses, tag_of
from vllm.exceptions import VLLMValidationError
from vllm.tool_parsers.tool_strict_level import ToolStrictLevel

from vllm_gptoss.grammar.serving import constrained, turn_grammar
from vllm_gptoss.parsers.serving import STOPS_IN_FINAL, harmony_parser

AUTO, FUNCTION, PARAMETER = ToolStrictLevel
T = "<|channel|>analysis<|message|>t<|end|><|start|>assistant"
TEXT_ANSWER = f"{T}<|channel|>final<|message|>Hi there.<|return|>"
CITY_ANSWER = f'{T}<|channel|>final<|message|>{{"city":"Rome"}}<|return|>'
CITY_CALL = f'{T}<|channel|>commentary to=functions.get_time json<|message|>{{"city":"Rome"}}<|call|>'
OTHER_CALL = f'{T}<|channel|>commentary to=functions.get_time json<|message|>{{"town":"Rome"}}<|call|>'
PYTHON_CALL = f"{T}<|channel|>analysis to=python code<|message|>print(1)<|call|>"
TURNS = {
    "text": TEXT_ANSWER,
    "form": CITY_ANSWER,
    "call": CITY_CALL,
    "other call": OTHER_CALL,
    "python": PYTHON_CALL,
}

CHAT_FORM = {"response_format": {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}}}
RESPONSES_FORM = {"text": {"format": {"type": "json_schema", "name": "city", "schema": CITY}}}
NAMED = {"tool_choice": {"type": "function", "function": {"name": "get_time"}}}
STRICT = {"type": "function", "name": "get_time", "parameters": CITY, "strict": True}
ALLOWED = {"type": "allowed_tools", "tools": [{"type": "function", "name": "get_time"}]}
PYTHON = ("code_interpreter",)

POSSIBLE = {
    "chat form": (chat(**CHAT_FORM), AUTO, "form"),
    "responses form": (responses(**RESPONSES_FORM), AUTO, "form"),
    "chat form, no tools to be called": (chat(FUNCTIONS, tool_choice="none", **CHAT_FORM), AUTO, "form"),
    "responses form, the same": (responses(FUNCTIONS, PYTHON, tool_choice="none", **RESPONSES_FORM), AUTO, "form"),
    "chat form and tools": (chat(FUNCTIONS, **CHAT_FORM), AUTO, "form, call, other call"),
    "responses form and tools": (
        responses(FUNCTIONS, PYTHON, **RESPONSES_FORM),
        AUTO,
        "form, call, other call, python",
    ),
    "chat required": (chat(FUNCTIONS, tool_choice="required"), AUTO, "call"),
    "responses required": (responses(FUNCTIONS, PYTHON, tool_choice="required"), AUTO, "call, python"),
    "required wins over a form": (chat(FUNCTIONS, tool_choice="required", **CHAT_FORM), AUTO, "call"),
    "chat named": (chat(FUNCTIONS, **NAMED), AUTO, "call"),
    "responses named": (
        responses(FUNCTIONS, PYTHON, tool_choice={"type": "function", "name": "get_time"}),
        AUTO,
        "call",
    ),
    "a built-in tool named": (responses(FUNCTIONS, PYTHON, tool_choice={"type": PYTHON[0]}), AUTO, "python"),
    "some required": (responses(FUNCTIONS, PYTHON, tool_choice=ALLOWED | {"mode": "required"}), AUTO, "call"),
    "some allowed": (
        responses(FUNCTIONS, PYTHON, tool_choice=ALLOWED | {"mode": "auto"}),
        AUTO,
        "text, form, call, other call",
    ),
    "level function": (chat(FUNCTIONS), FUNCTION, "text, form, call, other call"),
    "level parameter": (chat(FUNCTIONS), PARAMETER, "text, form, call"),
    "a strict tool": (responses(tools=[STRICT]), AUTO, "text, form, call"),
    "one call": (chat(FUNCTIONS, parallel_tool_calls=False), AUTO, "text, form, call, other call"),
}


@pytest.mark.parametrize("name", POSSIBLE)
def test_what_a_request_makes_possible(name):
    request, level, possible = POSSIBLE[name]
    tag = tag_of(request, level)
    assert ", ".join(turn for turn, text in TURNS.items() if read(tag, text) == END) == possible


@pytest.mark.parametrize(
    ("request_", "level"),
    [
        (chat(), AUTO),
        (chat(), PARAMETER),
        (chat(FUNCTIONS), AUTO),
        (chat(FUNCTIONS, tool_choice="none"), PARAMETER),
        (chat(FUNCTIONS, response_format={"type": "text"}), AUTO),
        (responses(FUNCTIONS, PYTHON), AUTO),
        (responses(text={"format": {"type": "text"}}), AUTO),
    ],
)
def test_the_model_is_free_otherwise(request_, level):
    assert turn_grammar(request_, level) is None


def test_an_operator_can_keep_choices_free(monkeypatch):
    monkeypatch.setenv("VLLM_ENFORCE_STRICT_TOOL_CALLING", "0")
    assert turn_grammar(responses(tools=[STRICT]), PARAMETER) is None
    assert turn_grammar(responses(tools=[STRICT], tool_choice="required"), AUTO) is not None


def test_arguments_of_a_function_without_parameters_are_empty():
    tag = tag_of(chat({"now": None}, tool_choice="required"))
    assert read(tag, "<|channel|>commentary to=functions.now<|message|>{}<|call|>") == END
    assert read(tag, '<|channel|>commentary to=functions.now<|message|>{"a":1}<|call|>') != END


@pytest.mark.parametrize("parameters", [{}, {"description": "Anything."}, {"type": ["object", "null"]}])
def test_arguments_are_an_object_whatever_else_is_open(parameters):
    tag = tag_of(chat({"f": parameters}, tool_choice="required"))
    for arguments, is_possible in (("{}", True), ("3", False), ("null", False), ("[]", False)):
        turn = f"<|channel|>commentary to=functions.f<|message|>{arguments}<|call|>"
        assert (read(tag, turn) == END) == is_possible


def test_not_strict_and_not_enforceable_is_any_object():
    schema = {"type": "object", "properties": {"city": {"not": {}}}}
    tools = [STRICT | {"strict": False, "parameters": schema}]
    assert read(tag_of(responses(tools=tools, tool_choice="required")), OTHER_CALL) == END
    tools = [STRICT | {"strict": False}]
    assert read(tag_of(responses(tools=tools, tool_choice="required")), OTHER_CALL) != END


def test_a_custom_tool_is_called_with_its_input():
    tag = tag_of(
        responses(tools=[{"type": "custom", "name": "patch"}], tool_choice={"type": "custom", "name": "patch"})
    )
    call = "<|channel|>commentary to=functions.patch json<|message|>{}<|call|>"
    assert read(tag, call.replace("{}", '{"input":"*** Begin"}')) == END
    assert read(tag, call) != END


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (chat({"f": {"type": "string"}}, tool_choice="required"), "function 'f': parameters.type is 'string'"),
        (chat({"f": {"items": {"not": {}}}}, tool_choice="required"), "function 'f': parameters.items.not can't"),
        (chat({"f g": {}}, tool_choice="required"), "function 'f g' can't be called"),
        (chat({"f": None, "g": {"not": {}}}, tool_choice="required"), "function 'g': parameters.not"),
        (chat(structured_outputs={"regex": "(a"}), "structured_outputs: .*parenthesis"),
        (chat(structured_outputs={"grammar": 'rot ::= "a"'}), "structured_outputs: EBNF"),
        (chat(structured_outputs={"grammar": "start: x"}), "structured_outputs: .*x"),
        (chat(structured_outputs={"json": "{"}), "structured_outputs: the schema is not JSON"),
        (chat(structured_outputs={"json": "[1]"}), "structured_outputs: schema is an array"),
        (
            chat(response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {"not": {}}}}),
            "'n': schema.n",
        ),
        (
            responses(text={"format": {"type": "json_schema", "name": "n", "schema": {"if": {}}}}),
            "text.format 'n': schema.i",
        ),
        (
            chat(FUNCTIONS, tool_choice="required", continue_final_message=True, add_generation_prompt=False),
            "goes on within",
        ),
        (responses(FUNCTIONS, tool_choice={"type": "file_search"}), "type 'file_search': choose one of function"),
        (responses(FUNCTIONS, tool_choice={"type": "code_interpreter"}), "not among the tools"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_refused_with_what_is_wrong(request_, message):
    with pytest.raises(VLLMValidationError, match=message) as refused:
        turn_grammar(request_, AUTO)
    assert refused.value.parameter
    assert "cpp" not in str(refused.value)


@pytest.fixture
def parser_class():
    return constrained(harmony_parser(None, None, AUTO))


@pytest.mark.parametrize(
    "request_", [chat(FUNCTIONS, stop="x", **CHAT_FORM), responses(FUNCTIONS, stop="x", **RESPONSES_FORM)]
)
def test_the_parser_puts_the_grammar_into_the_request(parser_class, request_):
    """In the place of what was asked for; the stop strings of the request are still the parser's."""
    expected = tag_of(request_)
    adjusted = parser_class(None, request_.tools).adjust_request(request_)
    assert adjusted is request_
    wanted = request_.to_sampling_params(64, {}).structured_outputs
    assert json.loads(wanted.structural_tag) == json.loads(expected)
    assert wanted.json is None
    assert request_.vllm_xargs[STOPS_IN_FINAL]


def test_the_level_of_the_server_counts():
    held = constrained(harmony_parser(None, None, FUNCTION))
    request = held(None, []).adjust_request(chat(FUNCTIONS))
    assert request.to_sampling_params(64, {}).structured_outputs.structural_tag == tag_of(chat(FUNCTIONS), FUNCTION)


def test_the_parser_leaves_a_free_request_as_it_is(parser_class):
    request = parser_class(None, []).adjust_request(chat(FUNCTIONS))
    assert request.to_sampling_params(64, {}).structured_outputs is None
