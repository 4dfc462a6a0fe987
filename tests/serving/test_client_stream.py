"""Events of vLLM's stream, as the client that asked expects them."""

import asyncio
import json

import pytest
from vllm.entrypoints.openai.responses import streaming_events as stock
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest

from vllm_gptoss.serving.answers import events_as_asked

CUSTOM = {"type": "custom", "name": "sed"}
FUNCTION = {"type": "function", "name": "weather", "parameters": None, "strict": None}
SPACE = {"type": "namespace", "name": "crm", "description": "CRM.", "tools": [{**FUNCTION, "name": "find"}]}


def call_events(state: stock.StreamingState, name: str, arguments: str) -> list:
    """What vLLM makes of a call that comes letter by letter."""
    events = [event for letter in arguments for event in stock.emit_function_call_delta_events(letter, name, state)]
    events += stock.emit_function_call_done_events(name, arguments, state)
    state.reset_for_new_item()
    return events


def streamed(tools: list, name: str, arguments: str) -> list:
    """Events of some text, of the call, and of text behind it; each has the next number."""
    request = ResponsesRequest(input="Hi", tools=tools)
    state = stock.StreamingState()
    events = [*stock.emit_text_delta_events("Wait.", state), *stock.emit_text_output_done_events("Wait.", state)]
    state.reset_for_new_item()
    text, call = len(events), call_events(state, name, arguments)
    events += [*call, *stock.emit_text_delta_events("So.", state)]

    async def given() -> list:
        async def stream():
            for event in events:
                yield event

        return [event async for event in events_as_asked(request, stream())]

    out = asyncio.run(given())
    assert [event.sequence_number for event in out] == list(range(len(out)))
    assert [event.type for event in out[:text]] == [event.type for event in events[:text]]
    assert out[-1].type == "response.output_text.delta"
    between = out[text:-3]
    assert {event.output_index for event in between} == {1}
    return between


def test_the_input_of_a_custom_tool_is_streamed(seams):
    added, *deltas, done, item = streamed([CUSTOM], "sed", json.dumps({"input": 's/"a"/ü/'}))
    assert (added.type, added.item.type, added.item.input) == ("response.output_item.added", "custom_tool_call", "")
    assert {delta.type for delta in deltas} == {"response.custom_tool_call_input.delta"}
    assert "".join(delta.delta for delta in deltas) == 's/"a"/ü/' == done.input == item.item.input
    assert done.type == "response.custom_tool_call_input.done"
    assert {each.item_id for each in (*deltas, done)} == {added.item.id} == {item.item.id}
    assert item.item.call_id == added.item.call_id
    assert (item.type, item.item.name) == ("response.output_item.done", "sed")


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("local_shell", {"command": ["ls"]}),
        ("shell", {"commands": ["ls"]}),
        ("apply_patch", {"type": "delete_file", "path": "a"}),
    ],
)
def test_a_call_with_an_action_comes_whole(kind, arguments, seams):
    added, done = streamed([{"type": kind}], kind, json.dumps(arguments))
    assert (added.type, done.type) == ("response.output_item.added", "response.output_item.done")
    assert (added.item.status, done.item.status) == ("in_progress", "completed")
    assert added.item.type == done.item.type == f"{kind}_call"
    assert added.item.id == done.item.id


def test_a_function_in_a_namespace_has_its_own_name(seams):
    added, *deltas, done, item = streamed([SPACE], "crm__find", '{"a":1}')
    assert (added.item.name, added.item.namespace) == (item.item.name, item.item.namespace) == ("find", "crm")
    assert "".join(delta.delta for delta in deltas) == '{"a":1}' == done.arguments
    assert done.name == "find"


def test_plain_functions_are_as_vllm_gives_them(seams):
    events = streamed([FUNCTION, CUSTOM], "weather", '{"a":1}')
    assert [event.type for event in events if "delta" not in event.type] == [
        "response.output_item.added",
        "response.function_call_arguments.done",
        "response.output_item.done",
    ]
    assert events[-1].item.type == "function_call"
