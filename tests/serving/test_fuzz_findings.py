"""What `make fuzz` and probes by hand found: values over which vLLM ends with a 500, refused with the field's name.

Each is shown in vLLM's own validation too: the test fails once vLLM refuses it by itself.
"""

import json

import httpx
import pytest
from pydantic import ValidationError
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.exceptions import VLLMValidationError
from vllm.renderers.online_renderer import OnlineRenderer

from vllm_gptoss.seam import stock_of
from vllm_gptoss.serving.bodies import DEEPEST, LARGEST

HALF = "\ud800"
HELLO = [{"role": "user", "content": "Hello"}]
BODIES = {
    ChatCompletionRequest: {"messages": HELLO},
    CompletionRequest: {"prompt": "Hello"},
    ResponsesRequest: {"input": "Hello"},
}
ROUTES = {
    ChatCompletionRequest: "chat/completions",
    CompletionRequest: "completions",
    ResponsesRequest: "responses",
}
every_route = pytest.mark.parametrize("kind", BODIES, ids=ROUTES.values())


def nested(levels: int) -> list:
    value = []
    for _ in range(levels - 1):
        value = [value]
    return value


def posted(client, kind: type, stream: bool, fields: dict) -> httpx.Response:
    body = json.dumps({"model": "tiny", "stream": stream, **BODIES[kind], **fields})
    return httpx.post(
        f"{client.base_url}{ROUTES[kind]}", content=body, headers={"Content-Type": "application/json"}, timeout=120
    )


@pytest.fixture
def stock(seams, monkeypatch) -> None:
    """vLLM's validation alone, as where another model is served."""
    name = "_make_request_with_harmony"
    monkeypatch.setattr(OnlineRenderer, name, stock_of(OnlineRenderer, name))


REFUSED = {
    "half a character": ({"stop": HALF}, "stop has half of a surrogate pair"),
    "one in a list": ({"stop": ["a", "b" + HALF]}, "stop has half of a surrogate pair"),
    "one in a key": ({"vllm_xargs": {HALF: "1"}}, "vllm_xargs has half of a surrogate pair"),
    "a number of 400 digits": ({"top_k": 10**400}, "top_k has a number beyond 64 bits"),
    "the first that is too large": ({"top_k": LARGEST + 1}, "top_k has a number beyond 64 bits"),
    "one level too many": ({"kv_transfer_params": {"a": nested(DEEPEST)}}, "kv_transfer_params is nested too deeply"),
}


@every_route
@pytest.mark.parametrize(("fields", "said"), REFUSED.values(), ids=REFUSED)
def test_refused_by_name(seams, kind, fields, said):
    with pytest.raises(VLLMValidationError, match=said):
        kind(**BODIES[kind], **fields)


@every_route
@pytest.mark.parametrize("fields", [fields for fields, _ in REFUSED.values()], ids=REFUSED)
def test_vllm_lets_them_through(stock, kind, fields):
    kind(**BODIES[kind], **fields)


HALF_TEXTS = {
    "content": [{"role": "user", "content": "a" + HALF}],
    "a part": [{"role": "user", "content": [{"type": "text", "text": "a" + HALF}]}],
    "instructions": [{"role": "system", "content": "a" + HALF}, *HELLO],
    "reasoning": [*HELLO, {"role": "assistant", "reasoning": "a" + HALF}],
}
HALF_ITEMS = {
    "an input": {"input": "a" + HALF},
    "content": {"input": HALF_TEXTS["content"]},
    "a part": {"input": [{"role": "user", "content": [{"type": "input_text", "text": "a" + HALF}]}]},
    "instructions": {"input": "Hello", "instructions": "a" + HALF},
    "a thought": {"input": [{"type": "reasoning", "content": [{"type": "reasoning_text", "text": "a" + HALF}]}]},
    "what came before": {"input": "Hello", "previous_input_messages": HALF_TEXTS["content"]},
}


@pytest.mark.parametrize("messages", HALF_TEXTS.values(), ids=HALF_TEXTS)
def test_half_a_letter_in_a_message_is_replaced(chat_text, messages):
    assert "a\ufffd<|end|>" in chat_text(messages=messages)


@pytest.mark.parametrize("fields", HALF_ITEMS.values(), ids=HALF_ITEMS)
def test_half_a_letter_in_an_item_is_replaced(responses_text, fields):
    assert "a\ufffd<|end|>" in responses_text(**fields)


def test_half_a_letter_in_a_call_and_its_result_is_replaced(chat_text, responses_text):
    arguments = '{"a":"' + HALF + '"}'
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    result = {"role": "tool", "tool_call_id": "c", "content": "r" + HALF}
    text = chat_text(messages=[*HELLO, {"role": "assistant", "tool_calls": [call]}, result])
    assert '{"a":"\ufffd"}<|call|>' in text
    assert "r\ufffd<|end|>" in text
    called = {"type": "function_call", "call_id": "c", "name": "f", "arguments": arguments}
    given = {"type": "function_call_output", "call_id": "c", "output": "r" + HALF}
    assert text == responses_text(input=[*HELLO, called, given])
    shell = {"type": "local_shell_call", "id": "c", "call_id": "c", "action": {"command": ["a" + HALF]}}
    assert '{"command":["a\ufffd"]}<|call|>' in responses_text(input=[*HELLO, shell])


NO_TEXTS = {
    "a role": {"messages": [{"role": HALF, "content": "Hello"}]},
    "a name": {"messages": [{"role": "tool", "name": HALF, "content": "Hello"}]},
    "a field": {"messages": [{HALF: "Hello"}]},
    "deep text": {"messages": [{"role": "user", "content": [HALF, *nested(700)]}]},
}


@pytest.mark.parametrize("fields", NO_TEXTS.values(), ids=NO_TEXTS)
def test_half_a_letter_elsewhere_in_a_message_is_refused(seams, fields):
    with pytest.raises(VLLMValidationError, match=r"^messages (has half of a surrogate pair|is nested too deeply)"):
        ChatCompletionRequest(**fields)


@every_route
def test_what_is_whole_and_fits_is_accepted(seams, kind):
    fields = {"stop": ["😀 " + json.loads(r'"\ud83d\ude00"')], "top_k": LARGEST}
    request = kind(**BODIES[kind], **fields, kv_transfer_params={"a": nested(DEEPEST - 2)})
    assert request.stop == ["😀 😀"]
    assert request.top_k == LARGEST


def test_a_bound_in_a_schema_has_any_size(seams):
    schema = {"type": "object", "properties": {"a": {"type": "integer", "maximum": 10**30}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    assert ChatCompletionRequest(messages=HELLO, tools=[tool]).tools[0].function.parameters == schema


@pytest.mark.parametrize("kind", [ChatCompletionRequest, CompletionRequest])
@pytest.mark.parametrize("value", ["x", 1, ["x"]], ids=str)
def test_a_form_that_is_no_object(seams, kind, value):
    with pytest.raises(ValidationError, match="a type that it can't have"):
        kind(**BODIES[kind], structured_outputs=value)


def test_vllm_looks_into_it_first(stock):
    with pytest.raises(AttributeError):
        CompletionRequest(prompt="Hello", structured_outputs="x")


NO_MESSAGES = {
    "a part that is no object": [{"role": "user", "content": [None]}],
    "one of harmony's": [{"author": {"role": "user"}, "content": [1]}],
}


@pytest.mark.parametrize("messages", NO_MESSAGES.values(), ids=NO_MESSAGES)
def test_previous_input_that_is_no_messages(responses_result, messages):
    error = responses_result({"input": "Hello", "previous_input_messages": messages}).error
    assert (error.code, error.param) == (400, "input")
    assert "previous_input_messages are no messages" in error.message


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
NO_TOKENS = {
    "completions, response_format": (CompletionRequest, {"response_format": {"type": "json_object"}}),
    "completions, structured_outputs": (CompletionRequest, {"structured_outputs": {"choice": ["a"]}}),
    "chat, response_format": (ChatCompletionRequest, {"response_format": {"type": "json_object"}}),
    "chat, calls": (ChatCompletionRequest, {"tools": [TOOL], "tool_choice": "required"}),
}


@pytest.mark.parametrize(("kind", "fields"), NO_TOKENS.values(), ids=NO_TOKENS)
def test_a_form_beside_allowed_tokens_is_refused(client, kind, fields):
    """The engine has no token left, and ends the request with a 500."""
    answer = posted(client, kind, False, {**fields, "allowed_token_ids": [5], "max_tokens": 2})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"].startswith("allowed_token_ids can't stand beside")


@pytest.mark.parametrize("kind", [ChatCompletionRequest, CompletionRequest])
def test_allowed_tokens_alone_are_accepted(client, kind):
    fields = {"allowed_token_ids": [5], "max_tokens": 2, "response_format": {"type": "text"}}
    assert posted(client, kind, False, fields).status_code == 200


REPLACED = {
    "chat": (ChatCompletionRequest, {"messages": HALF_TEXTS["content"], "max_tokens": 2}),
    "responses": (ResponsesRequest, {**HALF_ITEMS["content"], "instructions": HALF, "max_output_tokens": 2}),
}


@pytest.mark.parametrize(("kind", "fields"), REPLACED.values(), ids=REPLACED)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_server_answers_half_a_letter(client, kind, fields, stream):
    answer = posted(client, kind, stream, fields)
    assert answer.status_code == 200, answer.text
    assert "\\ud8" not in answer.text


SERVED = {
    **{f"{name}, {ROUTES[kind]}": (kind, fields) for kind in BODIES for name, (fields, _) in REFUSED.items()},
    "form, completions": (CompletionRequest, {"structured_outputs": "x"}),
    "a role of half a character": (ChatCompletionRequest, {"messages": [{"role": HALF, "content": "Hello"}]}),
    "a field of half a character": (ChatCompletionRequest, {HALF: 1}),
    "deep messages": (ChatCompletionRequest, {"messages": [{"role": "user", "reasoning": nested(450)}]}),
    "deep items": (ResponsesRequest, {"input": [{"type": "function_call", "call_id": nested(450)}]}),
}


@pytest.mark.parametrize(("kind", "fields"), SERVED.values(), ids=SERVED)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_server_says_400(client, kind, fields, stream):
    answer = posted(client, kind, stream, fields)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"]
