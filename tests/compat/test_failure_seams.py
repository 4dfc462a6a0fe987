"""Seams of answers that fail in their middle: each works, and fails once vLLM says itself what went wrong."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest
from pydantic import TypeAdapter, ValidationError
from seams_in_place import compose
from vllm import SamplingParams
from vllm.entrypoints.openai.responses.protocol import (
    ResponseCreatedEvent,
    ResponsesRequest,
    ResponsesResponse,
    StreamingResponsesResponse,
)
from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses
from vllm.exceptions import GenerationError, VLLMValidationError
from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.structured_output import StructuredOutputManager

from vllm_gptoss.grammar import dead_end
from vllm_gptoss.seam import stock_of
from vllm_gptoss.serving.failures import FAILED, ending_in_words

A, HUGE = 64, 3e38
"""The token of one letter, and a penalty under which a logit is infinite."""
FORBIDDING = {
    "bad_words": {"bad_words": ["a"]},
    "stop_token_ids": {"stop_token_ids": [A]},
    "form": {"structured_outputs": StructuredOutputsParams(grammar='root ::= "a" b\nb ::= b "x"')},
    "repetition_penalty": {"repetition_penalty": HUGE, "logit_bias": {A: -100}},
}


def test_the_engine_says_why_and_that_of_vllm_does_not(engine, tiny_checkpoint, monkeypatch):
    form = {"temperature": 0, "max_tokens": 9, "structured_outputs": StructuredOutputsParams(choice=["a"])}
    asked = [SamplingParams(**form | fields) for fields in FORBIDDING.values()]
    with engine(tiny_checkpoint, max_model_len=256, skip_tokenizer_init=False) as llm:
        ours, stock = StructuredOutputManager.accept_tokens, stock_of(StructuredOutputManager, "accept_tokens")
        for method, causes in ((ours, list(FORBIDDING)), (stock, [None] * len(FORBIDDING))):
            monkeypatch.setattr(StructuredOutputManager, "accept_tokens", method)
            outputs = [result.outputs[0] for result in llm.generate([{"prompt_token_ids": [A]}] * len(asked), asked)]
            assert [output.finish_reason for output in outputs] == [dead_end.ERROR] * len(asked)
            assert [output.stop_reason for output in outputs] == causes


def result(stop_reason: str | None) -> SimpleNamespace:
    return SimpleNamespace(outputs=[SimpleNamespace(finish_reason=dead_end.ERROR, stop_reason=stop_reason)])


@pytest.mark.parametrize("cause", dead_end.CAUSES)
def test_the_server_refuses_what_vllm_hands_on(cause):
    compose()

    async def stock(self) -> AsyncIterator[SimpleNamespace]:
        yield result(None)
        yield result(cause)

    async def results(method) -> list:
        return [each async for each in method(None)]

    assert len(asyncio.run(results(stock))) == 2
    with pytest.raises(VLLMValidationError) as refused:
        asyncio.run(results(dead_end.generate(stock)))
    assert refused.value.parameter == (None if cause == dead_end.FORM else cause)
    assert AsyncLLM.generate is not stock_of(AsyncLLM, "generate")


def response_server(**kept) -> OpenAIServingResponses:
    compose()
    server = OpenAIServingResponses.__new__(OpenAIServingResponses)
    server.response_store, server.response_store_lock, server.event_store = kept, asyncio.Lock(), {}
    return server


REQUEST = ResponsesRequest(input="Hi", request_id="r")


def response(status: str) -> ResponsesResponse:
    sampling = SamplingParams(temperature=1, max_tokens=9)
    return ResponsesResponse.from_request(REQUEST, sampling, "m", 0, output=[], status=status)


def test_vllm_has_no_event_for_an_error():
    error = response_server()._convert_generation_error_to_streaming_response(GenerationError())
    with pytest.raises(ValidationError):
        TypeAdapter(StreamingResponsesResponse).validate_json(error)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (VLLMValidationError("no a"), "invalid_prompt", "no a"),
        (GenerationError(), "server_error", "Internal server error"),
        (RuntimeError("x"), "server_error", "x"),
    ],
    ids=["the client's", "the engine's", "another"],
)
def test_a_stream_ends_in_words_and_the_response_is_over(error, code, message):
    async def events() -> AsyncIterator[ResponseCreatedEvent]:
        yield ResponseCreatedEvent(type="response.created", sequence_number=0, response=response("in_progress"))
        try:
            raise error
        except GenerationError as first:  # as vLLM does
            TypeAdapter(StreamingResponsesResponse).validate_json(f'{{"error": "{first}"}}')

    async def told(server) -> list:
        return [event async for event in ending_in_words(server, REQUEST, events())]

    server = response_server(r=response("queued"))
    _, last = asyncio.run(told(server))
    assert (last.type, last.sequence_number) == (FAILED, 1)
    for failed in (last.response, server.response_store["r"]):
        assert failed.status == "failed"
        assert failed.model_dump()["error"] == {"code": code, "message": message}


def test_an_error_before_the_first_event_is_raised():
    async def events() -> AsyncIterator[ResponseCreatedEvent]:
        raise VLLMValidationError("no a")
        yield

    async def told() -> list:
        return [event async for event in ending_in_words(response_server(), REQUEST, events())]

    with pytest.raises(VLLMValidationError, match="no a"):
        asyncio.run(told())


@pytest.mark.parametrize("stock", [False, True], ids=["ours", "vllm"])
def test_a_failed_response_has_no_more_events_and_in_vllm_one_waits(stock):
    name = "responses_background_stream_generator"

    async def seen(server) -> list:
        server.event_store["r"] = ([SimpleNamespace(type=FAILED)], asyncio.Event())
        method = stock_of(OpenAIServingResponses, name) if stock else getattr(OpenAIServingResponses, name)
        return [event.type async for event in method(server, "r")]

    async def within_a_second(server) -> list:
        return await asyncio.wait_for(seen(server), 1)

    if stock:
        with pytest.raises(TimeoutError):
            asyncio.run(within_a_second(response_server()))
    else:
        assert asyncio.run(within_a_second(response_server())) == [FAILED]


@pytest.mark.parametrize("stock", [False, True], ids=["ours", "vllm"])
def test_a_response_in_the_background_fails_and_in_vllm_it_is_never_over(stock):
    name = "_run_background_request"
    server = response_server(r=response("queued"))

    async def responses_full_generator(request) -> None:
        raise VLLMValidationError("no a")

    server.responses_full_generator = responses_full_generator
    if stock:
        with pytest.raises(VLLMValidationError):
            asyncio.run(stock_of(OpenAIServingResponses, name)(server, REQUEST))
        assert server.response_store["r"].status == "queued"
    else:
        asyncio.run(getattr(OpenAIServingResponses, name)(server, REQUEST))
        assert server.response_store["r"].status == "failed"
