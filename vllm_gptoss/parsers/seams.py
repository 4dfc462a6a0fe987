"""Where vLLM's server meets the parser beside its hooks: what stands in place of its methods."""

from collections.abc import AsyncIterator, Callable
from typing import Any

from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.outputs import RequestOutput
from vllm.v1.engine import EngineCoreRequest

from vllm_gptoss.parsers.serving import FinalTextDetokenizer


def init(stock: Callable) -> Callable:
    """A server of Chat Completions gives out calls."""

    def init(self, *args, **kwargs) -> None:
        stock(self, *args, **kwargs)
        if self.model_config.hf_config.model_type == "gpt_oss":
            self.enable_auto_tools = True

    return init


def chat_completion_full_generator(stock: Callable) -> Callable:
    """The finish reason is the engine's where calls were cut, or none was made."""

    async def chat_completion_full_generator(
        self, request: ChatCompletionRequest, result_generator: AsyncIterator[RequestOutput], *args, **kwargs
    ):
        reasons = {}

        async def watched() -> AsyncIterator[RequestOutput]:
            async for result in result_generator:
                reasons.update({output.index: output.finish_reason for output in result.outputs})
                yield result

        response = await stock(self, request, watched(), *args, **kwargs)
        for choice in getattr(response, "choices", ()):
            reason = reasons.get(choice.index) or "stop"
            if choice.finish_reason == "tool_calls" and (reason != "stop" or not choice.message.tool_calls):
                choice.finish_reason = reason
        return response

    return chat_completion_full_generator


def make_response_parser(stock: Callable) -> Callable:
    """The parser is given the request."""

    def _make_response_parser(self, request: ResponsesRequest, *args, **kwargs):
        parser = stock(self, request, *args, **kwargs)
        if hasattr(parser, "take_request"):
            parser.take_request(request)
        return parser

    return _make_response_parser


def from_new_request(stock: Callable) -> Callable:
    """Stop strings of Harmony count in the final answer."""

    def from_new_request(cls, tokenizer: Any, request: EngineCoreRequest):
        if tokenizer is not None and FinalTextDetokenizer.is_for(request):
            return FinalTextDetokenizer(request)
        return stock(tokenizer, request)

    return from_new_request
