"""Grammars through a bare `vllm serve`: both APIs, streamed and not. The tiny model has learnt none of this."""

import json
from typing import Any

import pytest
from openai import BadRequestError

from vllm_gptoss.parsers.harmony import END

MODEL = "tiny"
MOOD = {
    "type": "object",
    "properties": {"mood": {"enum": ["glad", "sad"]}, "level": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["mood", "level"],
    "additionalProperties": False,
}
HELLO, PARIS, LOST = "Hello", "What is the weather in Paris?", "Tell me about zebras."
UNSUPPORTED = {"type": "object", "properties": {"level": {"type": "integer", "multipleOf": 3}}}


def functions(**schemas: Any) -> list[dict[str, Any]]:
    return [{"name": name, "parameters": schema} for name, schema in schemas.items()]


TOOLS = functions(set_mood=MOOD, get_mood=None)


class Chat:
    """Chat Completions; an answer is its reasoning, its content, its calls, and why it ended."""

    def __init__(self, client):
        self.client = client

    def ask(self, text: str, tools=(), choice=None, schema=None, limit=None, **fields):
        request: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": text}], "temperature": 0}
        request["max_tokens"] = limit
        if tools:
            request["tools"] = [{"type": "function", "function": tool} for tool in tools]
        if choice:
            request["tool_choice"] = (
                {"type": "function", "function": {"name": choice}} if choice != "required" else choice
            )
        if schema:
            request["response_format"] = {"type": "json_schema", "json_schema": {"name": "form", "schema": schema}}
        return self.said(request | fields)

    def said(self, request):
        choice = self.client.chat.completions.create(**request).choices[0]
        calls = [(call.function.name, call.function.arguments) for call in choice.message.tool_calls or ()]
        return choice.message.reasoning or "", choice.message.content or "", calls, choice.finish_reason


class ChatStreamed(Chat):
    def said(self, request):
        reasoning, content, finish, calls = "", "", None, []
        for chunk in self.client.chat.completions.create(stream=True, **request):
            for choice in chunk.choices:
                reasoning += getattr(choice.delta, "reasoning", None) or ""
                content += choice.delta.content or ""
                for call in choice.delta.tool_calls or ():
                    if call.index == len(calls):
                        calls.append((call.function.name, ""))
                    calls[call.index] = (calls[call.index][0], calls[call.index][1] + (call.function.arguments or ""))
                finish = choice.finish_reason or finish
        return reasoning, content, calls, finish


class Responses:
    def __init__(self, client):
        self.client = client

    def ask(self, text: str, tools=(), choice=None, schema=None, limit=None, **fields):
        request: dict[str, Any] = {"model": MODEL, "input": text, "temperature": 0, "max_output_tokens": limit}
        if tools:
            request["tools"] = [{"type": "function", "strict": None, **tool} for tool in tools]
        if choice:
            request["tool_choice"] = {"type": "function", "name": choice} if choice != "required" else choice
        if schema:
            request["text"] = {"format": {"type": "json_schema", "name": "form", "schema": schema}}
        return self.said(request | fields)

    def said(self, request):
        return self.of(self.client.responses.create(**request))

    def of(self, response):
        texts = {"reasoning": "", "message": ""}
        calls = []
        for item in response.output:
            if item.type == "function_call":
                calls.append((item.name, item.arguments))
            else:
                texts[item.type] += item.content[0].text
        return *texts.values(), calls, "tool_calls" if calls else "stop"


class ResponsesStreamed(Responses):
    def said(self, request):
        *_, last = self.client.responses.create(stream=True, **request)
        assert last.type in ("response.completed", "response.incomplete")
        return self.of(last.response)


@pytest.fixture(params=[Chat, ChatStreamed, Responses, ResponsesStreamed], ids=lambda way: way.__name__)
def ask(request, client):
    return request.param(client).ask


def is_mood(text: str) -> bool:
    value = json.loads(text)
    return value.keys() == {"mood", "level"} and value["mood"] in ("glad", "sad") and value["level"] in range(10)


@pytest.mark.parametrize("tools", [(), TOOLS], ids=["alone", "with tools"])
def test_an_answer_has_its_form_and_reasoning_is_free(ask, tools):
    reasoning, content, calls, finish = ask(LOST, tools, schema=MOOD)
    assert reasoning
    assert is_mood(content), content
    assert (calls, finish) == ([], "stop")


def test_a_learnt_call_passes_beside_a_form(ask):
    """vllm-project/vllm#39929: the form is that of the answer, and this turn has none."""
    city = {"type": "object", "properties": {"city": {"type": "string", "description": "Name of the city."}}}
    weather = {"name": "get_weather", "description": "The weather in a city right now.", "parameters": city}
    reasoning, _, calls, finish = ask(PARIS, [weather], schema=MOOD, parallel_tool_calls=False)
    assert reasoning
    assert [name for name, _ in calls] == ["get_weather"]
    assert finish == "tool_calls"


@pytest.mark.parametrize(("choice", "names"), [("required", {"set_mood", "get_mood"}), ("set_mood", {"set_mood"})])
def test_one_call_is_made_where_one_is_required(ask, choice, names):
    reasoning, content, calls, finish = ask(HELLO, TOOLS, choice, parallel_tool_calls=False)
    assert reasoning
    assert not content
    ((name, arguments),) = calls
    assert name in names
    assert is_mood(arguments) if name == "set_mood" else json.loads(arguments) == {}
    assert finish != "length"


def test_several_calls_where_they_may_be_parallel(ask):
    """The model is made to end each message at once and to begin another, until it is cut."""
    urged = {"logit_bias": {str(END): 100}}
    _, content, calls, _ = ask(HELLO, TOOLS, "set_mood", limit=300, extra_body=urged)
    assert not content
    assert len(calls) > 1
    assert all(name == "set_mood" and is_mood(arguments) for name, arguments in calls[:-1])


def test_a_strict_tool_is_held_though_the_model_may_choose(ask):
    tools = [tool | {"strict": True} for tool in TOOLS]
    reasoning, content, calls, _ = ask(HELLO, tools, parallel_tool_calls=False)
    assert reasoning
    assert content or calls
    assert all(is_mood(arguments) for name, arguments in calls if name == "set_mood")


DEEP: dict[str, Any] = {"type": "object"}
for _ in range(70):
    DEEP = {"type": "object", "properties": {"a": DEEP}}


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        (UNSUPPORTED, ".properties.level.multipleOf"),
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/B"}}}, ".properties.a.$ref"),
        ({"type": "object", "properties": {"a": {"type": "strung"}}}, ".properties.a"),
        (DEEP, "nested too deeply"),
    ],
    ids=["keyword", "reference", "type", "depth"],
)
def test_a_schema_that_can_not_be_held_to_is_refused_by_name(ask, schema, path):
    with pytest.raises(BadRequestError, match="'form': schema") as refused:
        ask(HELLO, schema=schema)
    assert path in refused.value.message
    with pytest.raises(BadRequestError, match="function 'paint': parameters") as refused:
        ask(HELLO, functions(paint=schema), "required")
    assert path in refused.value.message


def test_arguments_are_an_object(ask):
    with pytest.raises(BadRequestError, match=r"function 'paint': parameters.type is 'array'"):
        ask(HELLO, functions(paint={"type": "array"}), "paint")


def test_a_schema_of_a_tool_that_nobody_holds_to_is_no_error(ask):
    reasoning, content, *_ = ask(HELLO, functions(paint=UNSUPPORTED))
    assert reasoning
    assert content


@pytest.mark.parametrize(
    ("asked", "answers"),
    [
        ({"regex": "[ab]{3}c"}, None),
        ({"choice": ["yes", "no"]}, {"yes", "no"}),
        ({"grammar": 'root ::= "x" | "y"'}, "xy"),
    ],
    ids=["regex", "choice", "grammar"],
)
def test_other_forms(ask, asked, answers):
    reasoning, content, *_ = ask(LOST, extra_body={"structured_outputs": asked})
    assert reasoning
    if answers is None:
        assert len(content) == 4
        assert content.endswith("c")
    else:
        assert content in answers


def test_any_object(client):
    completion = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": HELLO}],
        temperature=0,
        max_tokens=200,
        response_format={"type": "json_object"},
    )
    assert completion.choices[0].message.reasoning
    assert completion.choices[0].message.content.startswith("{")


def test_a_form_that_is_none_is_refused(ask):
    with pytest.raises(BadRequestError, match=r"structured_outputs: .*parenthesis"):
        ask(HELLO, extra_body={"structured_outputs": {"regex": "(a"}})
