"""Tools that a client runs itself, on their way to the model, and their calls on the way back."""

import json

import pytest
from openai.types.responses import ResponseFunctionToolCall
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest, ResponsesResponse
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import SamplingParams

from vllm_gptoss.serving.client_tools import client_item, client_tools

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
FUNCTION = {"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": None}
GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": "start: WORD"}
CUSTOM = {"type": "custom", "name": "sed", "description": "Edits.", "format": GRAMMAR}
SPACE = {"type": "namespace", "name": "crm", "description": "CRM.", "tools": [{**FUNCTION, "name": "find"}, CUSTOM]}
LOCAL_SHELL, SHELL, PATCH = {"type": "local_shell"}, {"type": "shell"}, {"type": "apply_patch"}
ALL = [FUNCTION, CUSTOM, SPACE, LOCAL_SHELL, SHELL, PATCH]
NAMES = ["weather", "sed", "crm__find", "crm__sed", "local_shell", "shell", "apply_patch"]
PYTHON = {"type": "code_interpreter", "container": {"type": "auto"}}
MCP = {"type": "mcp", "server_label": "code_interpreter", "server_url": "http://x"}


def asked(tools, **more) -> ResponsesRequest:
    return ResponsesRequest(input="Hi", tools=tools, **more)


def test_each_tool_is_a_function_for_the_model(seams, responses_text):
    request = asked(ALL)
    assert [tool.name for tool in request.tools] == NAMES
    assert {tool.type for tool in request.tools} == {"function"}
    text = responses_text(input="Hi", tools=ALL)
    assert all(f"type {name} = (_: {{" in text for name in NAMES)
    assert "// Edits.\n// \n// Its input follows this lark grammar:\n// start: WORD\ntype sed = (_: {\n" in text
    assert 'type: "create_file" | "update_file" | "delete_file",' in text


def test_tools_that_the_server_runs_stay(seams):
    tools = [{"type": "web_search"}, {"type": "web_search_preview_2030_01_01"}, {"type": "code_interpreter"}, MCP]
    types = [tool.type for tool in asked(tools).tools]
    assert types == ["web_search", "web_search_preview", "code_interpreter", "mcp"]


UNKNOWN = [
    *({"type": "file_search", "vector_store_ids": ["v"]}, {"type": "image_generation"}, {"type": "tool_search"}),
    *({"type": "computer"}, {"type": "of_the_future", "name": "x"}),
]


def test_what_nothing_runs_is_left_out_with_a_warning(seams, caplog_vllm):
    assert [tool.name for tool in asked([*UNKNOWN, FUNCTION]).tools] == ["weather"]
    (record,) = [record for record in caplog_vllm.records if "nothing here runs" in record.getMessage()]
    assert record.levelname == "WARNING"
    assert record.getMessage().endswith("file_search, image_generation, tool_search, computer, of_the_future")


CHOICES = {
    "custom": ({"type": "custom", "name": "sed"}, "sed"),
    "by type": ({"type": "apply_patch"}, "apply_patch"),
    "without its namespace": ({"type": "function", "name": "find"}, "crm__find"),
    "with its namespace": ({"type": "function", "name": "find", "namespace": "crm"}, "crm__find"),
    "flat": ({"type": "function", "name": "crm__find"}, "crm__find"),
}


@pytest.mark.parametrize(("choice", "name"), CHOICES.values(), ids=CHOICES)
def test_a_tool_is_chosen_by_the_clients_name(choice, name, seams):
    request = asked(ALL, tool_choice=choice)
    assert (request.tool_choice.type, request.tool_choice.name) == ("function", name)


def test_allowed_tools_are_all_that_there_is(seams):
    allowed = [{"type": "function", "name": "weather"}, {"type": "shell"}, {"type": "web_search"}]
    choice = {"type": "allowed_tools", "mode": "required", "tools": allowed}
    request = asked([*ALL, {"type": "web_search"}, PYTHON], tool_choice=choice)
    assert [getattr(tool, "name", tool.type) for tool in request.tools] == ["weather", "shell", "web_search"]
    assert request.tool_choice == "required"


def test_no_call_of_a_servers_tool_is_forced(seams):
    assert asked([FUNCTION, PYTHON], tool_choice={"type": "code_interpreter"}).tool_choice == "auto"


def test_what_cannot_be_chosen_is_still_refused(seams):
    with pytest.raises(VLLMValidationError, match="not found in 'tools'"):
        asked([FUNCTION], tool_choice={"type": "custom", "name": "awk"})
    with pytest.raises(ValueError, match="tools"):
        asked([{"name": "no type"}])


def test_null_and_unknown_values_say_nothing(seams):
    includes = ["of.the.future", "reasoning.encrypted_content", "web_search_call.results"]
    request = asked(None, service_tier=None, tool_choice=None, include=includes, parallel_tool_calls=None)
    assert request.include == ["reasoning.encrypted_content"]
    assert request.service_tier == "auto"


CALLS = {
    "custom": (CUSTOM, {"input": "s/a/b/"}, {"type": "custom_tool_call", "name": "sed", "input": "s/a/b/"}),
    "custom in its own words": (CUSTOM, "s/a/b/", {"input": "s/a/b/"}),
    "half a letter": (CUSTOM, '{"input": "a\\ud83d"}', {"input": "a\ufffd"}),
    "function in a namespace": (SPACE, {"city": "x"}, {"type": "function_call", "name": "find", "namespace": "crm"}),
    "local shell": (
        LOCAL_SHELL,
        {"command": ["ls"], "timeout_ms": 5},
        {"type": "local_shell_call", "action": {"type": "exec", "command": ["ls"], "env": {}, "timeout_ms": 5}},
    ),
    "local shell in one string": (
        LOCAL_SHELL,
        {"command": "ls | wc"},
        {"action": {"type": "exec", "command": ["bash", "-lc", "ls | wc"], "env": {}}},
    ),
    "shell": (SHELL, {"commands": ["ls"]}, {"type": "shell_call", "action": {"commands": ["ls"]}}),
    "patch": (
        PATCH,
        {"type": "update_file", "path": "a", "diff": "@@"},
        {"type": "apply_patch_call", "operation": {"type": "update_file", "path": "a", "diff": "@@"}},
    ),
    "arguments of nothing": (SHELL, {"command": "ls"}, {"type": "function_call", "name": "shell"}),
    "no arguments": (LOCAL_SHELL, {}, {"type": "function_call", "name": "local_shell"}),
    "a list": (LOCAL_SHELL, [], {"type": "function_call"}),
    "no JSON": (PATCH, "*** Begin Patch", {"type": "function_call", "arguments": "*** Begin Patch"}),
}


@pytest.mark.parametrize(("tool", "arguments", "item"), CALLS.values(), ids=CALLS)
def test_a_call_is_the_clients_item(tool, arguments, item):
    (first, *_) = client_tools(tool)
    said = arguments if isinstance(arguments, str) else json.dumps(arguments)
    call = ResponseFunctionToolCall(
        type="function_call",
        id="fc_1",
        call_id="call_1",
        name=first.function["name"],
        arguments=said,
        status="completed",
    )
    given = client_item(call, first).model_dump(exclude_none=True, mode="json")
    assert given["call_id"] == "call_1"
    assert item.items() <= given.items()


def test_the_response_says_what_was_asked_for(seams):
    choice = {"type": "custom", "name": "sed"}
    request = asked([*ALL, *UNKNOWN], tool_choice=choice)
    call = ResponseFunctionToolCall(type="function_call", id="fc_1", call_id="c", name="sed", arguments='{"input":"x"}')
    response = ResponsesResponse.from_request(
        request, SamplingParams(temperature=1, max_tokens=9), "m", 0, output=[call], status="completed"
    ).model_dump(mode="json")
    types = [tool["type"] for tool in response["tools"]]
    assert types == [tool["type"] for tool in [*ALL, *UNKNOWN] if tool["type"] != "of_the_future"]
    assert response["tool_choice"] == choice
    assert response["output"][0]["type"] == "custom_tool_call"
    assert response["output"][0]["id"] == "ctc_1"
