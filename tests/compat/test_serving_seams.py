"""Seams of prompts, requests, answers and the store: each works, and fails once vLLM has its own."""

import inspect
from types import SimpleNamespace

import pytest
from openai_harmony import Message, Role
from pydantic import ValidationError
from seams_in_place import HARMONY, compose, model_config
from vllm import SamplingParams
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.models.protocol import BaseModelPath
from vllm.entrypoints.openai.models.serving import OpenAIModelRegistry
from vllm.entrypoints.openai.responses import harmony as responses_harmony
from vllm.entrypoints.openai.responses import serving as responses_serving
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest, ResponsesResponse
from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses
from vllm.renderers.online_renderer import OnlineRenderer

from vllm_gptoss.rendering.serving import ASKED_FORMAT
from vllm_gptoss.seam import stock_of


def online_renderer(folder) -> OnlineRenderer:
    """As the server makes it, of a checkpoint."""
    tokens = SimpleNamespace(tokenizer=None, get_tokenizer=lambda: None)
    options = {"request_logger": None, "chat_template": None, "chat_template_content_format": "auto"}
    return OnlineRenderer(model_config(folder), tokens, **options)


def test_prompts_have_what_vllm_loses(tiny_checkpoint):
    renderer = online_renderer(tiny_checkpoint)
    parameters = {"type": "object", "properties": {"a": {"anyOf": [{"type": "string"}, {"type": "number"}]}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    request = ChatCompletionRequest(messages=[{"role": "user", "content": "?"}], tools=[tool])
    name = "_make_request_with_harmony"
    for method, written in ((stock_of(OnlineRenderer, name), "a?: any"), (getattr(OnlineRenderer, name), "string | n")):
        _, (prompt,) = method(renderer, request)
        assert written in HARMONY.decode_utf8(prompt["prompt_token_ids"])


def test_new_instructions_count_and_in_vllm_the_old_ones(tiny_checkpoint):
    renderer = online_renderer(tiny_checkpoint)
    name, more = "_render_responses_with_harmony", {"previous_response_outputs": None, "tool_server": None}
    stock, ours = stock_of(OnlineRenderer, name), getattr(OnlineRenderer, name)
    first = ours(renderer, ResponsesRequest(input="?", instructions="Old."), previous_messages=None, **more)
    for method, kept in ((stock, "Old."), (ours, "New.")):
        request = ResponsesRequest(input="?", instructions="New.")
        rendered = method(renderer, request, previous_messages=first.messages.copy(), **more)
        text = HARMONY.decode_utf8(rendered.engine_input["prompt_token_ids"])
        assert [said for said in ("Old.", "New.") if said in text] == [kept]


def test_a_call_between_turns_stays_as_it_was_generated_and_in_vllm_it_changes(tiny_checkpoint):
    renderer = online_renderer(tiny_checkpoint)
    call = Message.from_role_and_content(Role.ASSISTANT, "{}").with_channel("commentary").with_content_type("json")
    generated = "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>"
    name = "render_responses_harmony_messages"
    for method, is_same in ((stock_of(OnlineRenderer, name), False), (getattr(OnlineRenderer, name), True)):
        prompt = method(renderer, [call.with_recipient("functions.f")], cache_salt=None)["prompt_token_ids"]
        assert (generated in HARMONY.decode_utf8(prompt)) == is_same


def test_the_format_of_the_answer_is_remembered_and_vllm_takes_it_away(tiny_checkpoint):
    renderer = online_renderer(tiny_checkpoint)
    schema = {"type": "json_schema", "json_schema": {"name": "sky", "schema": {"type": "object"}}}
    request = ChatCompletionRequest(messages=[{"role": "user", "content": "?"}], response_format=schema)
    asked = request.response_format
    renderer.adjust_harmony_request(request)
    assert getattr(request, ASKED_FORMAT) is asked
    assert request.response_format is None


UNKNOWN = {"input": [{"type": "web_search_call", "id": "w"}], "tools": [{"type": "of_the_future"}]}


def test_requests_are_accepted_and_by_vllm_refused(monkeypatch):
    compose()
    assert ResponsesRequest(**UNKNOWN).input == UNKNOWN["input"]
    assert ResponsesRequest(**UNKNOWN).tools == []
    monkeypatch.setattr(
        OnlineRenderer, "_make_request_with_harmony", stock_of(OnlineRenderer, "_make_request_with_harmony")
    )  # as where another model is served
    for field in UNKNOWN:
        with pytest.raises(ValidationError):
            ResponsesRequest(**{"input": "?", field: UNKNOWN[field]})


def test_reasoning_is_completed_and_vllm_leaves_it_open():
    compose()
    request, sampling = ResponsesRequest(input="?"), SamplingParams(temperature=1, max_tokens=9)
    message = Message.from_role_and_content(Role.ASSISTANT, "Hm.").with_channel("analysis")
    stock, ours = stock_of(ResponsesResponse, "from_request"), ResponsesResponse.from_request
    for method, status in ((stock, None), (ours, "completed")):
        items = stock_of(responses_serving, "harmony_to_response_output")(message, frozenset())
        response = method(request, sampling, "m", 0, output=items, status="completed")
        assert response.output[0].status == status


def test_the_stream_of_vllm_still_has_calls_of_functions_alone():
    compose()
    assert "custom" not in inspect.getsource(OpenAIServingResponses._process_harmony_streaming_events)
    assert "custom" not in inspect.getsource(responses_harmony)
    stream = OpenAIServingResponses.responses_stream_generator
    assert stock_of(OpenAIServingResponses, "responses_stream_generator") is not stream


def responses_server(folder, stock: bool, **settings) -> OpenAIServingResponses:
    compose()
    config = model_config(folder)
    engine = SimpleNamespace(
        model_config=config,
        renderer=SimpleNamespace(tokenizer=None),
        input_processor=None,
        vllm_config=SimpleNamespace(additional_config=settings, parallel_config=None),
    )
    server = OpenAIServingResponses.__new__(OpenAIServingResponses)
    init = stock_of(OpenAIServingResponses, "__init__") if stock else OpenAIServingResponses.__init__
    models = SimpleNamespace(model_config=config, renderer=engine.renderer, input_processor=None)
    options = {"request_logger": None, "chat_template": None, "chat_template_content_format": "auto"}
    init(server, engine, models, None, reasoning_parser="openai_gptoss", **options)
    return server


def test_the_store_has_bounds_and_that_of_vllm_has_none(tiny_checkpoint):
    for stock in (False, True):
        server = responses_server(tiny_checkpoint, stock, gptoss_store_entries=3)
        for i in range(9):
            server.msg_store[str(i)] = []
        assert len(server.msg_store) == (9 if stock else 3)
    with pytest.raises(ValueError, match="gptoss_store_entries"):
        responses_server(tiny_checkpoint, False, gptoss_store_entries="many")


def test_the_model_has_both_names_and_in_vllm_one():
    compose()
    registry = OpenAIModelRegistry(None, [BaseModelPath("openai/gpt-oss-20b", "path")])
    assert registry.is_base_model("gpt-oss-20b")
    assert not registry.is_base_model("gpt-oss-120b")
    assert not stock_of(OpenAIModelRegistry, "is_base_model")(registry, "gpt-oss-20b")
