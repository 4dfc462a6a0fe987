"""vLLM's `OnlineRenderer` with prompts of this package: what stands in place of its methods for Harmony."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from openai_harmony import Message
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.parser.harmony_utils import BUILTIN_TOOL_TO_MCP_SERVER_LABEL
from vllm.entrypoints.openai.responses.harmony import construct_harmony_previous_input_messages
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.entrypoints.openai.responses.utils import extract_tool_types
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.tokenize.protocol import TokenizeChatRequest
from vllm.inputs import EngineInput, tokens_input
from vllm.logger import init_logger
from vllm.renderers import TokenizeParams
from vllm.renderers.online_renderer import OnlineRenderer, ResponsesRenderResult
from vllm.tool_parsers.utils import get_function_tools

from vllm_gptoss.rendering.serving import ASKED_FORMAT, plain
from vllm_gptoss.serving.prompts import chat_prompt, prompt_ids, responses_conversation

logger = init_logger(f"vllm.{__name__}")


def adjust_harmony_request(stock: Callable) -> Callable:
    """vLLM turns the format of the answer into a grammar and takes it out of the request, before the prompt is made."""

    def adjust_harmony_request(self: OnlineRenderer, request: ChatCompletionRequest | ResponsesRequest) -> None:
        asked = request.text if isinstance(request, ResponsesRequest) else request.response_format
        setattr(request, ASKED_FORMAT, asked)
        stock(self, request)

    return adjust_harmony_request


def make_request_with_harmony(stock: Callable) -> Callable:
    def _make_request_with_harmony(self: OnlineRenderer, request: ChatCompletionRequest, should_include_tools=True):
        if isinstance(request.kv_transfer_params, dict) and request.kv_transfer_params.get("prompt_token_ids"):
            return stock(self, request, should_include_tools)
        messages, ids = chat_prompt(
            request,
            should_include_tools,
            self.default_chat_template_kwargs,
            request.build_tok_params(self.model_config),
        )
        return messages, [tokens_input(ids, cache_salt=request.cache_salt)]

    return _make_request_with_harmony


def preprocess_chat(stock: Callable) -> Callable:
    """The messages of `/tokenize`, which vLLM renders by the checkpoint's template."""

    async def preprocess_chat(self: OnlineRenderer, request: Any, *args, **kwargs):
        if not (self.use_harmony and isinstance(request, TokenizeChatRequest)):
            return await stock(self, request, *args, **kwargs)
        # Fields of Chat Completions that the route does not know are in the request as they came.
        said = {name: plain(getattr(request, name)) for name in request.model_fields_set}
        chat = ChatCompletionRequest.model_validate(said)
        hides_tools = chat.tool_choice == "none" and self.exclude_tools_when_tool_choice_none
        limits = chat.build_tok_params(self.model_config) if chat.truncate_prompt_tokens is not None else None
        messages, ids = chat_prompt(chat, not hides_tools, self.default_chat_template_kwargs, limits)
        return messages, [tokens_input(ids)]

    return preprocess_chat


def render_responses_with_harmony(stock: Callable) -> Callable:
    def _render_responses_with_harmony(
        self: OnlineRenderer,
        request: ResponsesRequest,
        *,
        previous_messages: Sequence[Message] | None,
        previous_response_outputs: Sequence[Any] | None,
        tool_server: Any,
    ) -> ResponsesRenderResult | ErrorResponse:
        self.adjust_harmony_request(request)
        try:
            messages = _conversation(self, request, previous_messages, previous_response_outputs or (), tool_server)
            limits = request.build_tok_params(self.model_config)
            engine_input = self.render_responses_harmony_messages(
                messages, cache_salt=request.cache_salt, tok_params=limits
            )
        except ValueError as error:
            return self.create_error_response(str(error), err_type="invalid_request_error", param="input")
        return ResponsesRenderResult(messages=messages, engine_input=engine_input)

    return _render_responses_with_harmony


def render_responses_harmony_messages(stock: Callable) -> Callable:
    """Also the prompt behind the answer of a built-in tool."""

    def render_responses_harmony_messages(
        self: OnlineRenderer,
        messages: Sequence[Message],
        *,
        cache_salt: str | None,
        tok_params: TokenizeParams | None = None,
    ) -> EngineInput:
        arrival = time.time()
        engine_input = tokens_input(prompt_ids(messages, tok_params), cache_salt=cache_salt)
        engine_input["arrival_time"] = arrival
        return engine_input

    return render_responses_harmony_messages


def _conversation(
    renderer: OnlineRenderer,
    request: ResponsesRequest,
    previous: Sequence[Message] | None,
    outputs: Sequence[Any],
    tool_server: Any,
) -> list[Message]:
    if previous is None:
        previous = _previous_input(request)
        if previous and request.input == "":
            request.input = []
    builtin_tools = renderer._get_harmony_builtin_tool_descriptions(
        request.tools, extract_tool_types(request.tools), tool_server
    )
    if missing := sorted({tool.type for tool in request.tools if not _is_served(tool, builtin_tools)}):
        logger.warning_once("Left out of prompts, since this server runs no such tools: %s", ", ".join(missing))
    with_tools = request.tool_choice != "none" or not renderer.exclude_tools_when_tool_choice_none
    return responses_conversation(
        request, with_tools, previous, outputs, builtin_tools, renderer.default_chat_template_kwargs
    ).messages


def _previous_input(request: ResponsesRequest) -> list[Message]:
    """Raises: ValueError for what are no messages; vLLM reads them as they come."""
    try:
        return construct_harmony_previous_input_messages(request)
    except (AttributeError, TypeError, KeyError) as error:
        raise ValueError(f"previous_input_messages are no messages of harmony or of a chat: {error}") from error


def _is_served(tool: Any, builtin_tools: Mapping[str, Any]) -> bool:
    """The model is told of the tool: it is a function, or one that the server runs."""
    if get_function_tools([tool]):
        return True
    kind = tool.server_label if tool.type == "mcp" else tool.type
    return any(
        config is not None and BUILTIN_TOOL_TO_MCP_SERVER_LABEL.get(config.name) == kind
        for config in builtin_tools.values()
    )
