"""A turn that is sent back renders to the tokens that were generated, so that the prefix cache has them."""

import asyncio

import pytest
from openai_harmony import Author, Message, Role
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.responses.context import HarmonyContext
from vllm.entrypoints.openai.responses.harmony import harmony_to_response_output
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.outputs import CompletionOutput, RequestOutput

from vllm_gptoss.rendering.prompt import encoding

TOOL = {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}
CHAT_TOOLS, TOOLS = [{"type": "function", "function": TOOL}], [{"type": "function", **TOOL}]
QUESTION = {"role": "user", "content": "Hi"}
START = "<|start|>assistant"
ANALYSIS = "<|channel|>analysis<|message|>I look.\nü 😀<|end|>"
PREAMBLE = "<|channel|>commentary<|message|>One moment.<|end|>"
CALL = '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>'
TURNS = {
    "call": CALL,
    "thought, call": START.join((ANALYSIS, CALL)),
    "preamble, call": START.join((PREAMBLE, CALL)),
    "thought, preamble, call": START.join((ANALYSIS, PREAMBLE, CALL)),
}
MIXED_TURNS = {
    "thought, preamble, thought, call": START.join((ANALYSIS, PREAMBLE, ANALYSIS, CALL)),
    "two thoughts": START.join((ANALYSIS, ANALYSIS, CALL)),
}
"""Chat has one field for each kind of text, Responses an item for each message."""


def ids_of(text: str) -> list[int]:
    return encoding().encode(text, allowed_special="all")


def ids_rendered(rendered) -> list[int]:
    return rendered.engine_input["prompt_token_ids"]


@pytest.mark.parametrize("generated", TURNS.values(), ids=TURNS)
def test_by_chat(generated, online_renderer):
    def prompt(messages: list) -> list[int]:
        request = ChatCompletionRequest(messages=messages, tools=CHAT_TOOLS)
        _, (engine_input,) = asyncio.run(online_renderer.render_chat(request))
        return engine_input["prompt_token_ids"]

    request = ChatCompletionRequest(messages=[QUESTION], tools=CHAT_TOOLS)
    parser = online_renderer.parser(None, request.tools)
    reasoning, content, calls = parser.parse("", request, model_output_token_ids=ids_of(generated))
    called = [
        {"id": "c", "type": "function", "function": call.model_dump(include={"name", "arguments"})} for call in calls
    ]
    said = {"role": "assistant", "content": content, "reasoning": reasoning, "tool_calls": called}
    turn = prompt([QUESTION]) + ids_of(generated)
    following = prompt([QUESTION, said, {"role": "tool", "tool_call_id": "c", "content": "2"}])
    assert following[: len(turn)] == turn
    rest = "<|start|>functions.f to=assistant<|channel|>commentary<|message|>2<|end|><|start|>assistant"
    assert following[len(turn) :] == ids_of(rest)


def generated_by(context_messages: list, request: ResponsesRequest, online_renderer, tokens: list[int]) -> None:
    """vLLM's context reads the turn, and appends its messages."""
    parser = online_renderer.parser(None, request.tools)
    context = HarmonyContext(context_messages, [], frozenset({"f"}), response_parser=parser, request=request)
    output = CompletionOutput(0, "", tokens, None, None, finish_reason="stop")
    context.append_output(RequestOutput("id", None, [1], None, [output], finished=True))


@pytest.mark.parametrize("generated", [*TURNS.values(), *MIXED_TURNS.values()], ids=[*TURNS, *MIXED_TURNS])
def test_by_responses(generated, online_renderer, responses_result):
    first = responses_result({"input": [QUESTION], "tools": TOOLS})
    turn = ids_rendered(first) + ids_of(generated)
    messages = first.messages.copy()
    generated_by(messages, ResponsesRequest(input="", tools=TOOLS), online_renderer, ids_of(generated))
    new = messages[len(first.messages) :]
    items = [item.model_dump() for message in new for item in harmony_to_response_output(message, frozenset({"f"}))]
    result = {"type": "function_call_output", "call_id": items[-1]["call_id"], "output": "2"}

    sent_back = ids_rendered(responses_result({"input": [QUESTION, *items, result], "tools": TOOLS}))
    stored = ids_rendered(responses_result({"input": [result], "tools": TOOLS}, messages, items))
    assert sent_back == stored
    assert sent_back[: len(turn)] == turn

    tool = Message.from_author_and_content(Author.new(Role.TOOL, "functions.f"), "2").with_channel("commentary")
    between = online_renderer.render_responses_harmony_messages(
        [*messages, tool.with_recipient("assistant")], cache_salt=None
    )
    assert between["prompt_token_ids"] == stored
