"""The two tools in vLLM's server: what `--tool-server demo` offers, and how a response calls it.

The model calls `browser.<function>` or `python`; a request of Responses offers them as tools of the types `web_search`
(or `web_search_preview`) and `code_interpreter`. Each response has a browser and an interpreter of its own, from its
first call to its end, however that comes.
"""

import contextlib
import functools
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING

from openai_harmony import Message, Role
from vllm.entrypoints.mcp.tool import Tool
from vllm.entrypoints.mcp.tool_server import DemoToolServer
from vllm.entrypoints.openai.responses.context import HarmonyContext
from vllm.exceptions import VLLMValidationError

from vllm_gptoss.tools.backend import Backend
from vllm_gptoss.tools.browser import Browser, Called
from vllm_gptoss.tools.messages import answer, text_of
from vllm_gptoss.tools.offer import offer
from vllm_gptoss.tools.page import one_line
from vllm_gptoss.tools.python import Python
from vllm_gptoss.tools.visit import Visit

if TYPE_CHECKING:
    from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses

logger = logging.getLogger(__name__)

SHOWN_ERROR = 300

CONTEXT: ContextVar[HarmonyContext | None] = ContextVar("vllm_gptoss_context", default=None)
"""Of the response that is being made in this task: vLLM's functions that make items and events are not told."""


class BuiltinTool(Tool):
    """A tool of ours in one response."""

    async def get_result(self, context: HarmonyContext) -> list[Message]:
        raise NotImplementedError

    async def get_result_parsable_context(self, context: object) -> list[Message]:
        raise NotImplementedError("the built-in tools speak harmony, which this model does not")


class BrowserTool(BuiltinTool):
    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._browser: Browser | None = None
        self._called: list[tuple[Message, Called]] = []

    @property
    def visits(self) -> Mapping[int, Visit]:
        return self._browser.visits if self._browser is not None else {}

    def called(self, context: HarmonyContext, call: Message) -> Called:
        """What a call asks for, where the browser stood when this was asked first."""
        for message, called in self._called:
            if message is call:
                return called
        called = self._of(context).called((call.recipient or "").partition(".")[2], text_of(call))
        self._called.append((call, called))
        return called

    async def get_result(self, context: HarmonyContext) -> list[Message]:
        call = context.messages[-1]
        self.called(context, call)
        return await self._of(context).process(call)

    def _of(self, context: HarmonyContext) -> Browser:
        """Its cursors go on from those that the model has seen in earlier responses."""
        if self._browser is None:
            shown = sum(_is_result(message, "browser") for message in context.messages[: context.num_init_messages])
            self._browser = Browser(self._backend, first_cursor=shown)
        return self._browser


class PythonTool(BuiltinTool):
    def __init__(self, python: Python) -> None:
        self._python = python

    async def get_result(self, context: HarmonyContext) -> list[Message]:
        return await self._python.process(context.messages[-1])


async def start(server: DemoToolServer) -> None:
    """Raises: ValueError where the environment says what can't be; see `offer.py`."""
    server.offer = await offer(os.environ)
    server.tools = {"browser": server.offer.backend, "python": server.offer.interpreters}
    server.tools = {name: tool for name, tool in server.tools.items() if tool is not None}
    logger.info("Built-in tools: %s", ", ".join(server.tools) or "none")


@contextlib.asynccontextmanager
async def session(server: DemoToolServer, name: str) -> AsyncIterator[BuiltinTool]:
    """The tool for one response. Raises: KeyError for one that is not offered."""
    tool = server.tools[name]
    if name == "browser":
        yield BrowserTool(tool)
        return
    async with tool.session() as python:
        yield PythonTool(python)


async def generate(stock, responses: "OpenAIServingResponses", *args, context: object, **options) -> AsyncIterator:
    """The turns of a response; it ends incomplete where what its tools said leaves no room for a next one."""
    CONTEXT.set(context if isinstance(context, HarmonyContext) else None)
    async with contextlib.aclosing(stock(responses, *args, context=context, **options)) as generated:
        try:
            async for turn in generated:
                yield turn
        except (ValueError, VLLMValidationError) as error:
            if CONTEXT.get() is None or not (context.called_tools and context.first_tok_of_message):
                raise
            logger.warning("A response ends behind a call of a tool: %s", error)
            context.finish_reason = "length"


def own_tool(context: HarmonyContext | None, recipient: str | None) -> BuiltinTool | None:
    """Our tool in this response that a message is for."""
    if context is None or recipient is None:
        return None
    tool = context._tool_sessions.get(recipient.partition(".")[0])
    return tool if isinstance(tool, BuiltinTool) else None


def is_cut(context: HarmonyContext, message: Message) -> bool:
    """The output has ended within this message."""
    return context.last_append_flush_status and context.messages[-1] is message


def needs_tool(stock: Callable[[HarmonyContext], bool], context: HarmonyContext) -> bool:
    """Whether the last message is a call that is to be made: one that was cut is not."""
    call = context.messages[-1]
    if is_cut(context, call):
        return False
    return own_tool(context, call.recipient) is not None or stock(context)


async def call_tool(
    stock: Callable[[HarmonyContext], Awaitable[list[Message]]], context: HarmonyContext
) -> list[Message]:
    """What the tool of the last message says, or in words for the model why it says nothing."""
    call = context.messages[-1]
    most = context.request.max_tool_calls if context.request is not None else None
    made = sum(message.author.role == Role.TOOL for message in context.messages[context.num_init_messages :])
    if most is not None and made >= most:
        return [answer(call, f"No tool can be called any more: this answer may make {most} calls. Go on without.")]
    try:
        if (tool := own_tool(context, call.recipient)) is not None:
            context.called_tools.add(call.recipient.partition(".")[0])
            return await tool.get_result(context)
        return await stock(context)
    except Exception as error:
        logger.exception("The tool %s failed", call.recipient)
        reason = one_line(str(error), SHOWN_ERROR) or type(error).__name__
        return [answer(call, f"The tool {call.recipient} failed: {reason}. Go on without it, or call it again.")]


def _is_result(message: Message, tool: str) -> bool:
    return message.author.role == Role.TOOL and (message.author.name or "").partition(".")[0] == tool


def in_place(ours: Callable) -> Callable[[Callable], Callable]:
    """What makes of a stock method the one in its place: `ours`, with the stock one as its first argument."""

    @functools.wraps(ours)
    def wrapper_of(stock: Callable) -> Callable:
        return lambda *args, **options: ours(stock, *args, **options)

    return wrapper_of


OF_RESPONSES = {"_generate_with_builtin_tools": in_place(generate)}
OF_CONTEXTS = {"need_builtin_tool_call": in_place(needs_tool), "call_tool": in_place(call_tool)}
"""Methods of vLLM's classes by name."""
