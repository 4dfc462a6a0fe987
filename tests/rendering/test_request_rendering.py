"""Requests of both APIs, as the server takes them, to one prompt."""

import pytest
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest

from vllm_gptoss.rendering.prompt import Ending, encoding, render_prompt
from vllm_gptoss.rendering.serving import chat_conversation, chat_ending, responses_conversation
from vllm_gptoss.rendering.tools import Function

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTIONS = [Function("weather", "Today's weather.", PARAMETERS)]
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "Today's weather.", "parameters": PARAMETERS}}
]
SCHEMA = {"type": "object", "properties": {"sky": {"type": "string"}}}

PROMPT = """<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.
Knowledge cutoff: 2024-06
Current date: 2026-01-02

Reasoning: high

# Valid channels: analysis, commentary, final. Channel must be included for every message.
Calls to these tools must go to the commentary channel: 'functions'.<|end|><|start|>developer<|message|># Instructions

Be kind.

# Tools

## functions

namespace functions {

// Today's weather.
type weather = (_: {
city: string,
}) => any;

} // namespace functions

# Response Formats

## report

// A report.
{"type":"object","properties":{"sky":{"type":"string"}}}<|end|><|start|>user<|message|>Paris?<|end|><|start|>assistant"""


@pytest.fixture(autouse=True)
def today(monkeypatch):
    monkeypatch.setenv("VLLM_SYSTEM_START_DATE", "2026-01-02")


def chat(**more) -> ChatCompletionRequest:
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Paris?"}]
    return ChatCompletionRequest(**{"model": "m", "messages": messages, **more})


def responses(**more) -> ResponsesRequest:
    return ResponsesRequest(**{"model": "m", "instructions": "Be kind.", "input": "Paris?", **more})


def text_of(messages, ending=Ending.ASSISTANT) -> str:
    return encoding().decode_utf8(render_prompt(messages, ending))


def asked(request: ResponsesRequest, functions=(), previous=(), calls=None) -> str:
    messages, left_out = responses_conversation(request, functions, (), previous, calls or {})
    assert not left_out
    return text_of(messages)


def test_the_whole_of_a_request_stands_in_the_prompt():
    wanted = {"name": "report", "description": "A report.", "schema": SCHEMA}
    request = chat(
        tools=TOOLS,
        tool_choice="auto",
        reasoning_effort="xhigh",
        response_format={"type": "json_schema", "json_schema": wanted},
    )
    assert text_of(chat_conversation(request, with_tools=True)) == PROMPT
    form = {"format": {"type": "json_schema", **wanted}}
    assert asked(responses(reasoning={"effort": "high"}, text=form), FUNCTIONS) == PROMPT


def test_template_settings():
    request = chat(chat_template_kwargs={"reasoning_effort": "low", "model_identity": "You are Ada."})
    text = text_of(chat_conversation(request, with_tools=True))
    assert text.startswith("<|start|>system<|message|>You are Ada.\n")
    assert "Reasoning: low\n" in text


def test_any_object():
    request = chat(response_format={"type": "json_object"})
    assert '## json_object\n\n{"type":"object"}<|end|>' in text_of(chat_conversation(request, with_tools=False))


def test_tools_that_may_not_be_called_are_not_named():
    request = chat(tools=TOOLS, tool_choice="none")
    assert "weather" not in text_of(chat_conversation(request, with_tools=False))


ENDINGS = {
    "begins": ({}, Ending.ASSISTANT),
    "goes on": ({"continue_final_message": True, "add_generation_prompt": False}, Ending.OPEN),
    "ends": ({"add_generation_prompt": False}, Ending.NOTHING),
}


@pytest.mark.parametrize(("options", "ending"), ENDINGS.values(), ids=ENDINGS)
def test_how_a_prompt_ends(options, ending):
    assert chat_ending(chat(**options)) is ending


def test_a_new_preamble_replaces_the_stored_one():
    first, _ = responses_conversation(responses(), FUNCTIONS, (), (), {})
    second = responses(instructions="Be brief.", input="And Rome?", reasoning={"effort": "low"})
    text = asked(second, previous=first)
    assert "Be kind." not in text
    assert "weather" not in text
    assert "Reasoning: low" in text
    assert text.endswith("<|message|>Paris?<|end|><|start|>user<|message|>And Rome?<|end|><|start|>assistant")


def test_without_instructions_there_is_no_developer_message():
    assert "developer" not in asked(responses(instructions=None))
    assert asked(responses(instructions="")) == asked(responses(instructions=None))


def test_instructions_in_the_system_message(monkeypatch):
    monkeypatch.setenv("VLLM_GPT_OSS_HARMONY_SYSTEM_INSTRUCTIONS", "1")
    text = asked(responses())
    assert "developer" not in text
    assert "Be kind.\nKnowledge cutoff" in text
