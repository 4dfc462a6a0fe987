"""Responses as the client that asked expects them: its own tools, its own types of calls, items with a status.

vLLM and the model know functions alone (`client_tools.py`), so their calls become the client's items here, in the
response and in each event of the stream.
"""

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from openai.types.responses import (
    ResponseCustomToolCallInputDeltaEvent,
    ResponseCustomToolCallInputDoneEvent,
    ResponseFunctionToolCall,
    ResponseOutputItem,
    ResponseOutputItemAddedEvent,
)
from openai.types.responses.response import ToolChoice
from openai.types.responses.tool import Tool
from pydantic import BaseModel, TypeAdapter, ValidationError
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest, ResponsesResponse

from vllm_gptoss.rendering.serving import ASKED_FORMAT
from vllm_gptoss.serving.client_tools import ClientTool, client_item
from vllm_gptoss.serving.failures import ending_in_words
from vllm_gptoss.serving.json_input import InputText
from vllm_gptoss.serving.logprobs import RECORD, complete
from vllm_gptoss.serving.requests import ASKED, Asked

NOTHING_ASKED = Asked([], None, {})


def from_request(stock: Callable) -> Callable:
    def from_request(cls, request: ResponsesRequest, *args, **kwargs) -> ResponsesResponse:
        return as_asked(request, stock(request, *args, **kwargs))

    return from_request


def responses_stream_generator(stock: Callable) -> Callable:
    def responses_stream_generator(self, request: ResponsesRequest, *args, **kwargs) -> AsyncIterator[Any]:
        events = events_as_asked(request, stock(self, request, *args, **kwargs))
        return ending_in_words(self, request, events)

    return responses_stream_generator


def as_asked(request: ResponsesRequest, response: ResponsesResponse) -> ResponsesResponse:
    """The response of vLLM, changed."""
    asked = getattr(request, ASKED, NOTHING_ASKED)
    complete(getattr(request, RECORD, None), response.output)
    response.output = [_item(item, asked) for item in response.output]
    for item in response.output:
        if item.type == "reasoning" and item.status is None:
            is_cut = response.status == "incomplete" and item is response.output[-1]
            item.status = "incomplete" if is_cut else "completed"
    response.text = getattr(request, ASKED_FORMAT, None) or response.text
    if response.usage is not None:
        _numbers_alone(response.usage.input_tokens_details)
        _numbers_alone(response.usage.output_tokens_details)
    if asked.tools:
        response.tools = [tool for tool in map(_tool, asked.tools) if tool is not None]
    if isinstance(asked.tool_choice, dict):
        response.tool_choice = _valid(ToolChoice, asked.tool_choice) or response.tool_choice
    return response


def _numbers_alone(details: BaseModel) -> None:
    """Without vLLM's lists of tokens a turn: the Agents SDK for JavaScript refuses a response for them."""
    for name, value in tuple(details):
        if isinstance(value, list):
            delattr(details, name)


def _item(item: ResponseOutputItem, asked: Asked) -> ResponseOutputItem:
    tool = _client_tool(item, asked)
    return item if tool is None else client_item(item, tool)


def _client_tool(item: ResponseOutputItem, asked: Asked) -> ClientTool | None:
    """The tool of a call that is no plain call of a function."""
    if not isinstance(item, ResponseFunctionToolCall):
        return None
    tool = asked.functions.get(item.name)
    return None if tool is None or tool.is_plain else tool


def _tool(tool: Any) -> Tool | None:
    """One that OpenAI's types do not know can't be said back."""
    return _valid(Tool, tool)


def _valid(kind: Any, value: Any) -> Any:
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError:
        return None


@functools.cache
def _adapter(kind: Any) -> TypeAdapter:
    return TypeAdapter(kind)


async def events_as_asked(request: ResponsesRequest, events: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """The events of a stream, numbered anew."""
    stream, record = _Stream(getattr(request, ASKED, NOTHING_ASKED)), getattr(request, RECORD, None)
    number = 0
    async for event in events:
        event = event if record is None else record.event(event)
        for out in stream.take(event):
            if hasattr(out, "sequence_number"):
                out.sequence_number = number
            number += 1
            yield out


class _Stream:
    """A custom tool's input comes as it is written; calls with an action come whole, when they are complete."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._open: tuple[str, ClientTool, InputText] | None = None
        """The id that vLLM gave the item, its tool, and the text in it."""

    def take(self, event: Any) -> Iterator[Any]:
        kind = getattr(event, "type", None)
        if kind == "response.output_item.added":
            tool = _client_tool(event.item, self._asked)
            self._open = None if tool is None else (event.item.id, tool, InputText())
            if tool is None or tool.kind in ("function", "custom"):
                yield event.model_copy(update={"item": _item(event.item, self._asked)})
        elif kind == "response.output_item.done" and (tool := _client_tool(event.item, self._asked)) is not None:
            item = _item(event.item, self._asked)
            if tool.kind not in ("function", "custom"):
                begun = item.model_copy(update={"status": "in_progress"})
                yield ResponseOutputItemAddedEvent(
                    type="response.output_item.added", item=begun, output_index=event.output_index, sequence_number=-1
                )
            self._open = None
            yield event.model_copy(update={"item": item})
        elif self._open is None or getattr(event, "item_id", None) != self._open[0]:
            yield event
        else:
            yield from self._part_of_a_call(event, *self._open)

    def _part_of_a_call(self, event: Any, item_id: str, tool: ClientTool, text: InputText) -> Iterator[Any]:
        if tool.kind == "function":
            yield event if not hasattr(event, "name") else event.model_copy(update={"name": tool.name})
        if tool.kind != "custom":
            return
        place = {"item_id": item_id.replace("fc_", "ctc_", 1), "output_index": event.output_index}
        kind = "response.custom_tool_call_input"
        if event.type == "response.function_call_arguments.delta":
            if delta := text.feed(event.delta):
                yield ResponseCustomToolCallInputDeltaEvent(
                    type=f"{kind}.delta", delta=delta, sequence_number=-1, **place
                )
        elif event.type == "response.function_call_arguments.done":
            call = ResponseFunctionToolCall(
                type="function_call", call_id="", name=tool.name, arguments=event.arguments, id=item_id
            )
            whole = client_item(call, tool).input
            yield ResponseCustomToolCallInputDoneEvent(type=f"{kind}.done", input=whole, sequence_number=-1, **place)
