"""Prompts of vLLM's server: what its `OnlineRenderer` makes of a request, by this package's rendering.

Whatever is wrong with a request is a `ValueError` here, with a text for whoever sent it.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from openai_harmony import Message, ToolNamespaceConfig
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.logger import init_logger
from vllm.renderers import TokenizeParams
from vllm.tool_parsers.utils import get_function_tools

from vllm_gptoss.parsers.header import ANALYSIS, FINAL
from vllm_gptoss.rendering.chat import MessageError
from vllm_gptoss.rendering.fit import fitting
from vllm_gptoss.rendering.prompt import Ending, render_prompt
from vllm_gptoss.rendering.responses import CLIENT_CALLS, called_function
from vllm_gptoss.rendering.serving import NO_SETTINGS, Rendered, Settings, chat_conversation, chat_ending, plain
from vllm_gptoss.rendering.serving import responses_conversation as conversation_of
from vllm_gptoss.rendering.tools import Function, namespace_section

logger = init_logger(f"vllm.{__name__}")

NO_TOOLS: Mapping[str, ToolNamespaceConfig | None] = MappingProxyType({})


def chat_prompt(
    request: ChatCompletionRequest,
    with_tools: bool,
    defaults: Settings = NO_SETTINGS,
    limits: TokenizeParams | None = None,
) -> tuple[list[Message], list[int]]:
    """Messages and prompt of a request to Chat Completions.

    Raises: ValueError.
    """
    request.messages = [plain(message) for message in request.messages]  # pydantic's iterators can be read once
    messages = chat_conversation(request, with_tools, defaults)
    ending = chat_ending(request)
    if ending is Ending.OPEN and messages[-1].channel not in (ANALYSIS, FINAL):
        raise MessageError("continue_final_message needs a last message of the assistant that has no calls")
    return messages, prompt_ids(messages, limits, ending)


def responses_conversation(
    request: ResponsesRequest,
    with_tools: bool,
    previous: Sequence[Message] = (),
    outputs: Sequence[Any] = (),
    builtin_tools: Mapping[str, ToolNamespaceConfig | None] = NO_TOOLS,
    defaults: Settings = NO_SETTINGS,
) -> Rendered:
    """The messages of a request to Responses, behind those of the one that it goes on from and what that gave out.

    Raises: ValueError.
    """
    functions = [Function(tool.name, tool.description, tool.parameters) for tool in get_function_tools(request.tools)]
    calls = {}
    for item in map(plain, outputs):
        if item.get("type") in CLIENT_CALLS and item.get("call_id"):
            calls[item["call_id"]] = called_function(item)
    sections = [_builtin_section(config) for config in builtin_tools.values() if config is not None]
    rendered = conversation_of(
        request, functions if with_tools else [], sections, previous, calls=calls, defaults=defaults
    )
    if rendered.left_out:
        logger.warning_once(
            "Left out of the prompt, since gpt-oss has no form for it: %s", ", ".join(rendered.left_out)
        )
    return rendered


def prompt_ids(
    messages: Sequence[Message], limits: TokenizeParams | None, ending: Ending = Ending.ASSISTANT
) -> list[int]:
    """The prompt, without its oldest steps where the request asks to truncate it.

    Raises: ValueError when it is too long for the model, or for what is asked.
    """
    if limits is None:
        return render_prompt(messages, ending)
    limit = limits.truncate_prompt_tokens
    if limit is None:
        ids = render_prompt(messages, ending)
    elif limits.truncation_side == "right":
        raise MessageError("truncation_side 'right' would cut off the last message; 'left' leaves out the oldest")
    else:
        ids = fitting(messages, limits.max_truncation_tokens if limit < 0 else limit, ending)
    # Raises where it is longer than the model takes.
    return limits.apply_post_tokenization(None, {"prompt_token_ids": ids})["prompt_token_ids"]


def _builtin_section(config: ToolNamespaceConfig) -> str:
    functions = [Function(tool.name, tool.description, tool.parameters) for tool in config.tools]
    return namespace_section(config.name, config.description, functions)
