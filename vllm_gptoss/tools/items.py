"""Calls of the built-in tools and citations, as items and events of the Responses API.

    browser.search, open, find   web_search_call: what was searched, which address was opened or searched in
    python                       code_interpreter_call; what it printed only where the request asks to include it
    【3†L5-L9】 in a text          an annotation url_citation; the mark stays in the text, and its place is
                                 [start_index, end_index) in characters, so that a client can put a link there

A browser's call is one item and no deltas. The events of a stream come when the model has written a call, before it is
made: what the code printed is in the response at the end alone.
"""

from collections.abc import Iterator

from openai.types.responses import (
    ResponseCodeInterpreterToolCall,
    ResponseContentPartDoneEvent,
    ResponseFunctionWebSearch,
    ResponseOutputItem,
    ResponseOutputItemAddedEvent,
    ResponseOutputItemDoneEvent,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseOutputTextAnnotationAddedEvent,
    ResponseWebSearchCallCompletedEvent,
    ResponseWebSearchCallInProgressEvent,
    ResponseWebSearchCallSearchingEvent,
)
from openai.types.responses.response_code_interpreter_tool_call import OutputLogs
from openai.types.responses.response_function_web_search import ActionFind, ActionOpenPage, ActionSearch
from openai.types.responses.response_output_text import AnnotationURLCitation
from openai_harmony import Message, Role
from vllm.entrypoints.openai.responses.context import HarmonyContext
from vllm.entrypoints.openai.responses.streaming_events import StreamingState
from vllm.utils import random_uuid

from vllm_gptoss.tools.browser import Called
from vllm_gptoss.tools.citations import annotations
from vllm_gptoss.tools.messages import text_of
from vllm_gptoss.tools.serving import CONTEXT, BrowserTool, in_place, is_cut, own_tool

PRINTED = "code_interpreter_call.outputs"
"""In a request's `include`."""
CONTAINER = "auto"
"""What vLLM's stream names the container of code that runs on the server."""


def _call_item(context: HarmonyContext | None, message: Message) -> ResponseOutputItem | None:
    """The item of a call of ours, None for another message."""
    tool = own_tool(context, message.recipient) if message.author.role == Role.ASSISTANT else None
    if tool is None:
        return None
    status = "incomplete" if is_cut(context, message) else "completed"
    if isinstance(tool, BrowserTool):
        action = _action(tool.called(context, message))
        return ResponseFunctionWebSearch(id=f"ws_{random_uuid()}", action=action, status=status, type="web_search_call")
    return ResponseCodeInterpreterToolCall(
        id=f"ci_{random_uuid()}",
        code=text_of(message),
        container_id=CONTAINER,
        outputs=_printed(context, message),
        status=status,
        type="code_interpreter_call",
    )


def output_items(stock, message: Message, *names, **options) -> list[ResponseOutputItem]:
    """Of a message, for the response at its end."""
    context = CONTEXT.get()
    if (item := _call_item(context, message)) is not None:
        return [item]
    return [_cited(context, item) for item in stock(message, *names, **options)]


def _cited(context: HarmonyContext | None, item: ResponseOutputItem) -> ResponseOutputItem:
    """The item, with what its text cites."""
    if isinstance(item, ResponseOutputMessage):
        for part in item.content:
            _cite(context, part)
    return item


def delta_events(stock, segment, state: StreamingState, *names) -> list:
    """Of a piece of a message: none of a browser's call, whose item comes as a whole."""
    tool = own_tool(CONTEXT.get(), segment.recipient)
    if isinstance(tool, BrowserTool):
        return []
    return stock(segment if tool is None else segment._replace(recipient="python"), state, *names)


def done_events(stock, message: Message, state: StreamingState, *names) -> list:
    """Of a message that is complete: what its text cites stands in front of them and in their parts."""
    context = CONTEXT.get()
    if own_tool(context, message.recipient) is not None:
        message = message.model_copy(update={"recipient": message.recipient.partition(".")[0]})
    events = stock(message, state, *names)
    added = []
    for event in events:
        if isinstance(event, ResponseContentPartDoneEvent) and _cite(context, event.part):
            added = list(_annotation_events(event))
        elif isinstance(event, ResponseOutputItemDoneEvent):
            _cited(context, event.item)
    return [*added, *events]


def call_events(stock, message: Message, state: StreamingState, *server) -> list:
    """Of a browser's call that is complete."""
    context = CONTEXT.get()
    if not isinstance(own_tool(context, message.recipient), BrowserTool):
        return stock(message, state, *server)
    item = _call_item(context, message)
    state.current_item_id = item.id
    place = {"sequence_number": -1, "output_index": state.current_output_index}
    begun = item.model_copy(update={"status": "in_progress"})
    kind = "response.web_search_call"
    return [
        ResponseOutputItemAddedEvent(type="response.output_item.added", item=begun, **place),
        ResponseWebSearchCallInProgressEvent(type=f"{kind}.in_progress", item_id=item.id, **place),
        ResponseWebSearchCallSearchingEvent(type=f"{kind}.searching", item_id=item.id, **place),
        ResponseWebSearchCallCompletedEvent(type=f"{kind}.completed", item_id=item.id, **place),
        ResponseOutputItemDoneEvent(type="response.output_item.done", item=item, **place),
    ]


def _action(called: Called) -> ActionSearch | ActionOpenPage | ActionFind:
    if called.function == "open":
        return ActionOpenPage(type="open_page", url=called.url or None)
    if called.function == "find":
        return ActionFind(type="find_in_page", pattern=called.text, url=called.url)
    return ActionSearch(type="search", query=called.text, queries=[called.text])


def _printed(context: HarmonyContext, call: Message) -> list[OutputLogs] | None:
    if context.request is None or PRINTED not in (context.request.include or ()):
        return None
    messages = iter(context.messages)
    following = next((next(messages, None) for message in messages if message is call), None)
    if following is None or following.author.role != Role.TOOL:
        return None
    return [OutputLogs(logs=text_of(following), type="logs")]


def _cite(context: HarmonyContext | None, part: object) -> list[AnnotationURLCitation]:
    tool = own_tool(context, "browser")
    if isinstance(tool, BrowserTool) and isinstance(part, ResponseOutputText):
        part.annotations = [AnnotationURLCitation(**found) for found in annotations(part.text, tool.visits)]
        return part.annotations
    return []


def _annotation_events(event: ResponseContentPartDoneEvent) -> Iterator[ResponseOutputTextAnnotationAddedEvent]:
    for number, annotation in enumerate(event.part.annotations):
        yield ResponseOutputTextAnnotationAddedEvent(
            type="response.output_text.annotation.added",
            annotation=annotation.model_dump(),
            annotation_index=number,
            content_index=event.content_index,
            item_id=event.item_id,
            output_index=event.output_index,
            sequence_number=-1,
        )


OF_ITEMS = {
    "harmony_to_response_output": in_place(output_items),
    "emit_content_delta_events": in_place(delta_events),
    "emit_previous_item_done_events": in_place(done_events),
    "emit_tool_action_events": in_place(call_events),
}
"""Functions of vLLM's `responses.serving` by name."""
