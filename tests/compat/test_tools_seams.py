"""Seams of the built-in tools: each works, and the second kind of test fails once vLLM has its own."""

import asyncio
import inspect
import json
from types import SimpleNamespace

import pytest
from openai_harmony import Message, Role
from seams_in_place import HARMONY, compose, demo_server
from vllm.entrypoints.mcp.tool import Tool
from vllm.entrypoints.mcp.tool_server import init_tool_server
from vllm.entrypoints.openai.responses import serving as responses_serving
from vllm.entrypoints.openai.responses.context import HarmonyContext
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses
from vllm.entrypoints.openai.responses.streaming_events import StreamingState
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.parser.harmony import Segment

from vllm_gptoss.seam import stock_of
from vllm_gptoss.tools.serving import OF_RESPONSES


def test_the_demo_server_has_our_tools_and_vllm_has_none(monkeypatch, tmp_path):
    assert demo_server({"GPTOSS_SEARCH_FOLDER": str(tmp_path)}, monkeypatch).tools.keys() == {"browser", "python"}
    assert demo_server({"EXA_API_KEY": "k"}, monkeypatch, stock=True).tools == {}
    assert asyncio.run(init_tool_server(SimpleNamespace(tool_server=None))) is None


class BrokenTool(Tool):
    """As a tool server's connection is that has ended."""

    async def get_result(self, context):
        raise ConnectionError("the tool is gone")

    async def get_result_parsable_context(self, context):
        raise NotImplementedError


def context_of(text: str, finish: str, **fields) -> HarmonyContext:
    """A response that has said `text`, with a tool `python` that is broken."""
    request = ResponsesRequest(input="?", tools=[{"type": "code_interpreter", "container": {"type": "auto"}}], **fields)
    parser = compose()(None, request.tools)
    context = HarmonyContext([], ["python"], frozenset(), parser, request)
    context._tool_sessions["python"] = BrokenTool()
    output = CompletionOutput(0, "", HARMONY.encode(text, allowed_special="all"), None, None, finish_reason=finish)
    context.append_output(RequestOutput("id", None, [1], None, [output], finished=True))
    return context


CODE = "<|channel|>analysis to=python code<|message|>print("


def test_a_tool_that_fails_is_a_message_and_in_vllm_an_error():
    context = context_of(CODE + "<|call|>", "stop")
    assert context.need_builtin_tool_call()
    (message,) = asyncio.run(context.call_tool())
    assert (message.author.name, message.recipient, message.channel) == ("python", "assistant", "analysis")
    assert "the tool is gone" in message.content[0].text
    with pytest.raises(ConnectionError):
        asyncio.run(stock_of(HarmonyContext, "call_tool")(context))


def test_half_of_a_call_is_not_made_and_vllm_makes_it():
    context = context_of(CODE, "length")
    assert not context.need_builtin_tool_call()
    assert stock_of(HarmonyContext, "need_builtin_tool_call")(context)


def test_an_answer_that_fills_the_context_ends_the_response_and_in_vllm_the_request():
    """As `get_max_tokens` raises between two turns: nothing else of the loop is needed here."""
    compose()
    name = "_generate_with_builtin_tools"
    context = context_of(CODE + "<|call|>", "stop")

    async def full(serving, context):
        yield context
        raise ValueError("Input length (9) exceeds model's maximum context length (8).")

    async def drained(called: set[str]):
        context.called_tools = called
        ours = OF_RESPONSES[name](full)
        return [turn async for turn in ours(None, context=context)]

    with pytest.raises(ValueError, match="exceeds"):
        asyncio.run(drained(set()))
    assert asyncio.run(drained({"python"})) == [context]
    assert context.finish_reason == "length"
    assert "except" not in inspect.getsource(stock_of(OpenAIServingResponses, name))


def test_vllm_still_has_other_items_for_calls_of_tools():
    (call,) = context_of(CODE + "<|call|>", "stop").messages
    (item,) = stock_of(responses_serving, "harmony_to_response_output")(call, frozenset())
    assert item.type == "reasoning"
    search = call.model_copy(update={"recipient": "browser.search"})
    server = SimpleNamespace(has_tool=lambda name: True)
    with pytest.raises(json.JSONDecodeError):
        stock_of(responses_serving, "emit_tool_action_events")(search, StreamingState(), server)
    segment = Segment("analysis", "browser.search", '{"query":')
    added = stock_of(responses_serving, "emit_content_delta_events")(segment, StreamingState(), frozenset())[0]
    assert added.item.type == "mcp_call"
    text = Message.from_role_and_content(Role.ASSISTANT, "【0†L1】").with_channel("final")
    state = StreamingState(sent_output_item_added=True)
    done = stock_of(responses_serving, "emit_previous_item_done_events")(text, state, frozenset())
    assert done[-1].item.content[0].annotations == []
