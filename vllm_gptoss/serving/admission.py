"""Requests to Responses before they are rendered: tools that are missing, items by their ids, log probabilities."""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from vllm.entrypoints.openai.responses.protocol import ResponsesRequest, ResponsesResponse
from vllm.entrypoints.serve.engine.protocol import ErrorResponse

from vllm_gptoss.rendering.responses import is_reference
from vllm_gptoss.rendering.serving import plain
from vllm_gptoss.serving.logprobs import RECORD, Record
from vllm_gptoss.serving.server_tools import leave_out_missing

LOGPROBS = "message.output_text.logprobs"
"""In a request's `include`."""


def validate_create_responses_input(stock: Callable) -> Callable:
    """The request is changed; vLLM checks the rest of it."""

    def _validate_create_responses_input(self, request: ResponsesRequest) -> ErrorResponse | None:
        if not self.use_harmony:
            return stock(self, request)
        if (problem := leave_out_missing(request, self.tool_server)) is not None:
            return self.create_error_response(problem, err_type="invalid_request_error", param="tool_choice")
        if isinstance(request.input, list):
            request.input = with_items(request.input, self.response_store.values())
        if not request.is_include_output_logprobs():
            return stock(self, request)
        spelt = functools.partial(
            self._create_response_logprobs,
            tokenizer=self.renderer.get_tokenizer(),
            top_logprobs=request.top_logprobs,
        )
        setattr(request, RECORD, Record(spelt))
        rest = [each for each in request.include if each != LOGPROBS]
        return stock(self, request.model_copy(update={"include": rest}))

    return _validate_create_responses_input


def with_items(items: list[Any], stored: Iterable[ResponsesResponse]) -> list[Any]:
    """Items of an input, those that were given out for references to them; a reference to nothing stays."""
    if not any(isinstance(item, Mapping) and is_reference(item) for item in items):
        return items
    known = {item.id: item for response in stored for item in response.output if getattr(item, "id", None)}

    def resolved(item: Any) -> Any:
        named = item.get("id") if isinstance(item, Mapping) and is_reference(item) else None
        return plain(known[named]) if isinstance(named, str) and named in known else item

    return [resolved(item) for item in items]
