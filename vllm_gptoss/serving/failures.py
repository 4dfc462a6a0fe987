"""Answers of Responses that fail in their middle: the client of a stream is told, and a background response is over.

vLLM has no event for it: its streams break off, and one in the background stays open for ever.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from openai.types.responses import ResponseFailedEvent
from pydantic import ValidationError
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest, ResponsesResponse
from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses
from vllm.exceptions import GenerationError, VLLMClientError
from vllm.logger import init_logger

from vllm_gptoss.serving.store import UNDER_WAY

logger = init_logger(__name__)

FAILED = "response.failed"
CLIENTS_FAULT, OURS = "invalid_prompt", "server_error"
"""Published codes: clients try again for the second, and for the first they do not."""


class FailedEvent(ResponseFailedEvent):
    response: ResponsesResponse


async def ending_in_words(
    server: OpenAIServingResponses, request: ResponsesRequest, events: AsyncIterator[Any]
) -> AsyncIterator[Any]:
    """The events of a stream; where they end in an error, the last one says that the response has failed, and why."""
    response, items, number = None, [], -1
    try:
        async for event in events:
            number = getattr(event, "sequence_number", number)
            response = getattr(event, "response", response)
            if event.type == "response.output_item.done":
                items.append(event.item)
            yield event
    except Exception as error:
        if response is None:
            raise
        failure = _failure(server, request, error)
        await _keep(server, request, failure)
        failed = response.model_copy(update={"status": "failed", "output": items, "error": failure})
        yield FailedEvent(type=FAILED, sequence_number=number + 1, response=failed)


def background_events(stock: Callable) -> Callable:
    """A failed response has no events to wait for."""

    async def responses_background_stream_generator(self, *args, **kwargs) -> AsyncIterator[Any]:
        async with aclosing(stock(self, *args, **kwargs)) as events:
            async for event in events:
                yield event
                if getattr(event, "type", None) == FAILED:
                    return

    return responses_background_stream_generator


def run_background_request(stock: Callable) -> Callable:
    """A response that fails is kept as such."""

    async def _run_background_request(self, request: ResponsesRequest, *args, **kwargs) -> None:
        try:
            await stock(self, request, *args, **kwargs)
        except Exception as error:
            await _keep(self, request, _failure(self, request, error))

    return _run_background_request


def _failure(server: OpenAIServingResponses, request: ResponsesRequest, error: Exception) -> dict[str, str]:
    """What a client reads as `response.error`."""
    if isinstance(error, ValidationError):
        error = GenerationError()  # that of the engine, of which vLLM fails to make an event
    is_clients = isinstance(error, VLLMClientError)
    if not is_clients:
        logger.error("The response %s failed", request.request_id, exc_info=error)
    message = server.create_error_response(error).error.message
    return {"code": CLIENTS_FAULT if is_clients else OURS, "message": message}


async def _keep(server: OpenAIServingResponses, request: ResponsesRequest, failure: dict[str, str]) -> None:
    """One in the background is in the store from its beginning."""
    async with server.response_store_lock:
        kept = server.response_store.get(request.request_id)
        if kept is not None and kept.status in UNDER_WAY:
            update = {"status": "failed", "error": failure}
            server.response_store[request.request_id] = kept.model_copy(update=update)
