"""Requests of real clients at `vllm serve`: what is wrong is said, all else is answered, and the server lives on."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from openai import BadRequestError, NotFoundError, OpenAI

from vllm_gptoss.demo.server import Server, reserved_port, serve_command
from vllm_gptoss.serving.store import UNDER_WAY
from vllm_gptoss.tiny import dialogues
from vllm_gptoss.tiny.requests import Talk, chat_request, responses_request

MODEL = "gpt-oss-20b"
HELLO, PARIS = dialogues.PLAIN[0], dialogues.WEATHER[0]
USER = {"role": "user", "content": HELLO.user}
PARAMETERS = dialogues.GET_WEATHER["parameters"]


@pytest.fixture(scope="module")
def client(tiny_checkpoint, tmp_path_factory, shell):
    """Of a server that keeps two responses, and that has the published name."""
    log = tmp_path_factory.mktemp("serve") / "server.log"
    config = json.dumps({"gptoss_store_entries": 2})
    options = ("--max-model-len=2048", "--max-num-seqs=16", "--kv-cache-memory-bytes=64M")
    more = ("--enable-prompt-tokens-details", f"--additional-config={config}")
    shell = {**shell, "VLLM_ENABLE_RESPONSES_API_STORE": "1"}
    with (
        reserved_port() as port,
        Server(serve_command(tiny_checkpoint, port, f"openai/{MODEL}", *options, *more), port, log, shell) as server,
    ):
        server.wait_healthy(600)
        with OpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=300, max_retries=0) as client:
            yield client
            server.check_alive()


def chat(client, **request):
    return client.chat.completions.create(**{"model": MODEL, "temperature": 0, **request})


def responses(client, **request):
    return client.responses.create(**{"model": MODEL, "temperature": 0, **request})


def says_hello(client) -> bool:
    return chat(client, messages=[USER]).choices[0].message.content == HELLO.turns[0].answer


def test_usage_holds_numbers_alone(client):
    """The Agents SDK for JavaScript takes nothing else, in a response and in the last event of a stream."""
    request = {"input": [USER], "store": False}
    streamed = list(responses(client, **request, stream=True))[-1].response
    for usage in (responses(client, **request).usage, streamed.usage):
        for details in (usage.input_tokens_details, usage.output_tokens_details):
            assert {type(value) for value in details.to_dict().values()} == {int}


IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}
NOWHERE = {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}}
GO_ON = {"continue_final_message": True, "add_generation_prompt": False}
CHAT_ERRORS = {
    "image": ({"messages": [IMAGE]}, "gpt-oss reads text alone"),
    "result of no call": (
        {"messages": [{"role": "tool", "tool_call_id": "c9", "content": ""}]},
        "answers the call 'c9'",
    ),
    "effort": ({"extra_body": {"chat_template_kwargs": {"reasoning_effort": "huge"}}}, "none of none, minimal, low"),
    "schema": (
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": NOWHERE}}]},
        "refers to nothing",
    ),
    "truncation": ({"extra_body": {"truncate_prompt_tokens": 5}}, "can't be truncated to 5 tokens"),
    "goes on": ({"extra_body": GO_ON}, "needs a last message of the assistant"),
}
INPUT_IMAGE = {"role": "user", "content": [{"type": "input_image", "image_url": "data:", "detail": "auto"}]}
RESPONSES_ERRORS = {
    "missing tool": (
        {"input": "?", "tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}},
        "tool_choice asks for web_search, which this server can't run: it was started without --tool-server",
    ),
    "image": ({"input": [INPUT_IMAGE]}, "gpt-oss reads text alone"),
    "result of no call": (
        {"input": [{"type": "function_call_output", "call_id": "c9", "output": ""}]},
        "the call 'c9'",
    ),
    "effort": CHAT_ERRORS["effort"],
    "schema": ({"tools": [{"type": "function", "name": "f", "parameters": NOWHERE}]}, "refers to nothing"),
    "no item": ({"input": [{}]}, "is no item"),
    "unknown item": (
        {"input": [{"type": "item_reference", "id": "rs_9"}]},
        "refers to an unknown item, 'rs_9': send the item itself",
    ),
}


@pytest.mark.parametrize(("request_", "said"), CHAT_ERRORS.values(), ids=CHAT_ERRORS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_chat_says_what_is_wrong(request_, said, stream, client):
    with ThreadPoolExecutor(1) as beside:
        other = beside.submit(says_hello, client)
        with pytest.raises(BadRequestError, match=said):
            chat(client, **{"messages": [USER], "stream": stream, **request_})
        assert other.result()


@pytest.mark.parametrize(("request_", "said"), RESPONSES_ERRORS.values(), ids=RESPONSES_ERRORS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_responses_say_what_is_wrong(request_, said, stream, client):
    with ThreadPoolExecutor(1) as beside:
        other = beside.submit(says_hello, client)
        with pytest.raises(BadRequestError, match=said):
            responses(client, **{"input": "Hi", "stream": stream, **request_})
        assert other.result()


@pytest.mark.parametrize("field", ["content", "reasoning"])
def test_a_message_goes_on(field, client):
    """What is generated has no header: it belongs to the message that the request ends with."""
    said = {"content": HELLO.turns[0].answer, "reasoning": HELLO.turns[0].reasoning}[field]
    begun, rest = said[: said.index(" ")], said[said.index(" ") :]
    messages = [USER, {"role": "assistant", field: begun}]
    message = chat(client, messages=messages, extra_body=GO_ON).choices[0].message
    # As learnt, if not to its end: the turn lacks one of its two messages.
    assert getattr(message, field).startswith(rest[:15])
    deltas = [chunk.choices[0].delta for chunk in chat(client, messages=messages, extra_body=GO_ON, stream=True)]
    for name in ("content", "reasoning"):
        text = "".join(getattr(delta, name, None) or "" for delta in deltas)
        assert text == (getattr(message, name, None) or "")


def test_both_apis_count_one_prompt(client):
    talk = Talk.of(PARIS, 1)
    used = chat(client, **chat_request(talk)).usage.prompt_tokens
    assert used == responses(client, **responses_request(talk)).usage.input_tokens


def test_every_effort_is_answered(client):
    for effort in ("none", "minimal", "xhigh", "max"):
        assert chat(client, messages=[USER], reasoning_effort=effort).choices[0].message.content
        assert responses(client, input=HELLO.user, reasoning={"effort": effort}).output_text


def test_the_model_has_both_names(client):
    for name in (MODEL, f"openai/{MODEL}"):
        assert chat(client, model=name, messages=[USER]).choices[0].message.content == HELLO.turns[0].answer
        assert responses(client, model=name, input=HELLO.user).output_text == HELLO.turns[0].answer
    with pytest.raises(NotFoundError):
        chat(client, model="gpt-oss-120b", messages=[USER])


CODEX_TOOLS = [
    {"type": "function", "name": "update_plan", "parameters": {"type": "object"}, "strict": False},
    {"type": "custom", "name": "sed", "format": {"type": "grammar", "syntax": "lark", "definition": "start: WORD"}},
    *({"type": "local_shell"}, {"type": "shell"}, {"type": "apply_patch"}, {"type": "web_search"}),
    *({"type": "tool_search"}, {"type": "image_generation"}, {"type": "of_the_future"}),
    {"type": "namespace", "name": "mcp", "description": "", "tools": [{"type": "function", "name": "f"}]},
    {"type": "mcp", "server_label": "docs", "server_url": "http://127.0.0.1:1", "require_approval": "never"},
]
SHELL_CALL = {"type": "local_shell_call", "call_id": "c1", "action": {"type": "exec", "command": ["ls"], "env": {}}}
SENT_BACK = [
    USER,
    {"type": "reasoning", "summary": [], "content": None, "encrypted_content": "x"},
    {"type": "web_search_call", "id": "ws", "status": "completed", "action": {"type": "search", "query": "q"}},
    {"type": "mcp_call", "id": "m", "server_label": "docs", "name": "f", "arguments": "{}", "output": "o"},
    {"type": "code_interpreter_call", "id": "ci", "code": "1", "container_id": "auto", "outputs": None},
    *(SHELL_CALL, {"type": "local_shell_call_output", "id": "c1", "output": "a"}),
    *({"type": "custom_tool_call", "call_id": "c2", "name": "sed", "input": "s/a/b/"},),
    {"type": "custom_tool_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "b"}]},
    {"type": "function_call", "call_id": "c3", "name": "f", "namespace": "mcp", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c3", "output": [{"type": "input_image", "image_url": "data:"}]},
    *({"type": "compaction", "id": "x"}, {"type": "of_the_future"}),
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Done."}]},
    USER,
]


def test_what_agents_send_is_accepted(client):
    include = ["reasoning.encrypted_content", "web_search_call.action.sources"]
    response = responses(client, input=SENT_BACK, tools=CODEX_TOOLS, include=include, parallel_tool_calls=False)
    assert response.status == "completed"
    assert [tool.type for tool in response.tools][:4] == ["function", "custom", "local_shell", "shell"]


CUSTOM_WEATHER = {"type": "custom", "name": "get_weather", "description": dialogues.GET_WEATHER["description"]}
ASKED = {
    "input": [{"role": "user", "content": PARIS.user}],
    "tools": [CUSTOM_WEATHER, {"type": "function", **dialogues.GET_TIME}],
}
INPUT = PARIS.turns[0].call.arguments
"""The tiny model writes the arguments that it has learnt; where they have no `input`, the tool is given all of them."""


def test_a_custom_tool_is_called(client):
    (*_, call) = responses(client, **ASKED).output
    assert (call.type, call.name, call.input) == ("custom_tool_call", "get_weather", INPUT)
    result = {"type": "custom_tool_call_output", "call_id": call.call_id, "output": PARIS.turns[0].call.result}
    sent = [*ASKED["input"], call.model_dump(exclude_none=True), result]
    assert responses(client, **ASKED | {"input": sent}).status == "completed"


def test_a_custom_tool_is_called_in_a_stream(client):
    events = list(responses(client, **ASKED, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    added = [event.item for event in events if event.type == "response.output_item.added"][-1]
    (done,) = [event for event in events if event.type == "response.custom_tool_call_input.done"]
    (*_, call) = events[-1].response.output
    assert added.type == call.type == "custom_tool_call"
    assert added.id == done.item_id == call.id
    assert done.input == call.input == INPUT
    assert not [event for event in events if "function_call" in event.type]


def test_what_the_server_gave_out_is_taken_back(client):
    items = responses(client, **responses_request(Talk.of(PARIS))).output
    assert [item.type for item in items] == ["reasoning", "message", "function_call"]
    assert [item.status for item in items] == ["completed"] * 3
    sent = [USER | {"content": PARIS.user}, *(item.model_dump(exclude_none=True) for item in items)]
    result = {"type": "function_call_output", "call_id": items[-1].call_id, "output": PARIS.turns[0].call.result}
    request = responses_request(Talk.of(PARIS)) | {"input": [*sent, result]}
    assert responses(client, **request).output_text == PARIS.turns[1].answer


def test_what_the_server_keeps_is_referred_to(client):
    first = responses(client, **responses_request(Talk.of(PARIS)))
    references = [{"type": "item_reference", "id": item.id} for item in first.output]
    result = {"type": "function_call_output", "call_id": first.output[-1].call_id}
    result["output"] = PARIS.turns[0].call.result
    items = [item.model_dump(exclude_none=True) for item in first.output]
    sent = [
        responses(
            client, **responses_request(Talk.of(PARIS)) | {"input": [USER | {"content": PARIS.user}, *said, result]}
        )
        for said in (references, items)
    ]
    assert sent[0].output_text == PARIS.turns[1].answer
    assert sent[0].usage.input_tokens == sent[1].usage.input_tokens


def test_a_tool_turn_is_in_the_prefix_cache(client):
    salt = {"extra_body": {"cache_salt": "what no other test has sent"}}
    first = responses_request(Talk.of(PARIS))
    response = responses(client, **first, **salt)
    items = [item.model_dump(exclude_none=True) for item in response.output]
    result = {"type": "function_call_output", "call_id": items[-1]["call_id"], "output": PARIS.turns[0].call.result}
    following = responses(client, **first | {"input": [*first["input"], *items, result]}, **salt)
    known = response.usage.input_tokens + response.usage.output_tokens
    # The last token that was generated was never computed, and blocks are whole.
    assert following.usage.input_tokens_details.cached_tokens >= known - 1 - 16


def test_chat_sends_the_generated_tokens_back(client):
    """The ids of the next prompt begin with those of this one and all that was generated."""
    ids = {"extra_body": {"return_token_ids": True}}
    request = chat_request(Talk.of(PARIS))
    first = chat(client, **request, **ids)
    message = first.choices[0].message
    said = {"role": "assistant", "content": message.content, "reasoning": message.reasoning}
    said["tool_calls"] = [call.model_dump() for call in message.tool_calls]
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": PARIS.turns[0].call.result}
    following = chat(client, **request | {"messages": [*request["messages"], said, result]}, **ids)
    known = first.model_extra["prompt_token_ids"] + first.choices[0].model_extra["token_ids"]
    assert following.model_extra["prompt_token_ids"][: len(known)] == known


def test_what_goes_on_from_a_response(client):
    first = responses(client, **responses_request(Talk.of(PARIS)))
    result = {"type": "function_call_output", "call_id": first.output[-1].call_id}
    result["output"] = PARIS.turns[0].call.result
    tools = responses_request(Talk.of(PARIS))["tools"]
    second = responses(client, input=[result], previous_response_id=first.id, tools=tools)
    assert second.output_text == PARIS.turns[1].answer
    messages = {"extra_body": {"enable_response_messages": True}}
    third = responses(client, input=HELLO.user, previous_response_id=second.id, instructions="Be brief.", **messages)
    system, developer, user = (message["content"][0]["text"] for message in third.model_extra["input_messages"][:3])
    assert "functions" not in system
    assert developer == "# Instructions\n\nBe brief."
    assert user == PARIS.user


def test_the_store_keeps_the_latest(client):
    ids = [responses(client, input=HELLO.user).id for _ in range(3)]
    with pytest.raises(NotFoundError):
        client.responses.retrieve(ids[0])
    assert client.responses.retrieve(ids[2]).output_text == HELLO.turns[0].answer
    with pytest.raises(NotFoundError, match=ids[0]):
        responses(client, input=HELLO.user, previous_response_id=ids[0])


def test_a_background_response_that_fails_is_over(client):
    """Its form leaves the token of `a` alone, which is a stop token: the engine finds that in the middle."""
    fields = {"structured_outputs": {"choice": ["a"]}, "stop_token_ids": [64]}
    request = {"input": HELLO.user, "background": True, "store": True, "extra_body": fields}
    *_, last = responses(client, stream=True, **request)
    kept = client.responses.retrieve(last.response.id)
    begun = responses(client, **request)
    until = time.monotonic() + 60
    while (later := client.responses.retrieve(begun.id)).status in UNDER_WAY:
        assert time.monotonic() < until
        time.sleep(0.2)
    for response in (last.response, kept, later):
        assert (response.status, response.error.code) == ("failed", "invalid_prompt")
        assert response.error.message.startswith("stop_token_ids has each token")


WRONG = [
    *([5], [[]], [None], {"a": 1}, 5, [{"type": ["x"]}], [{"role": ["user"]}], [{"type": "mcp_call"}]),
    *([{"type": "function_call", "call_id": [1], "name": "f"}], [{"type": "reasoning", "content": 5}]),
]
WRONG_TOOLS = [5, [5], [{"type": 5}], [{"type": "custom"}], [{"type": "namespace", "name": 5, "tools": [5]}]]


def test_nothing_is_a_servers_error(client):
    """Bodies that no client sends."""

    def status(**body) -> int:
        text = json.dumps({"model": MODEL, "max_output_tokens": 2, **body})
        return httpx.post(f"{client.base_url}responses", content=text, timeout=300).status_code

    for items in WRONG:
        assert status(input=items) in (200, 400), items
    for tools in WRONG_TOOLS:
        assert status(input="Hi", tools=tools) in (200, 400), tools
    assert status(input="\ud83d") in (200, 400)
