"""Seams of log probabilities, of items by their ids and of `/tokenize`: each works, and fails once vLLM has its own."""

import asyncio
from types import SimpleNamespace

import pytest
from openai_harmony import Message, Role
from seams_in_place import HARMONY, compose, model_config
from transformers import AutoTokenizer
from vllm.config import ModelConfig
from vllm.entrypoints.openai.responses.context import HarmonyContext
from vllm.entrypoints.openai.responses.harmony import harmony_to_response_output, response_input_to_harmony
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses
from vllm.entrypoints.openai.responses.streaming_events import StreamingState, emit_text_delta_events
from vllm.entrypoints.serve.tokenize.protocol import TokenizeChatRequest
from vllm.exceptions import VLLMValidationError
from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.renderers.hf import HfRenderer
from vllm.renderers.online_renderer import OnlineRenderer

from vllm_gptoss.seam import stock_of
from vllm_gptoss.serving.admission import LOGPROBS
from vllm_gptoss.serving.logprobs import RECORD


def admitted(request: ResponsesRequest, stock: bool):
    compose()
    name = "_validate_create_responses_input"
    method = stock_of(OpenAIServingResponses, name) if stock else getattr(OpenAIServingResponses, name)
    serving = SimpleNamespace(
        tool_server=None,
        use_harmony=True,
        enable_store=False,
        response_store={},
        renderer=SimpleNamespace(get_tokenizer=lambda: None),
        create_error_response=OpenAIServingResponses.create_error_response,
        _create_response_logprobs=lambda tokens, logprobs, tokenizer, top_logprobs: list(tokens),
    )
    return method(serving, request)


def test_logprobs_are_given_out_and_by_vllm_refused():
    request = ResponsesRequest(input="?", include=[LOGPROBS])
    assert "not supported with gpt-oss" in admitted(request, stock=True).error.message
    assert admitted(request, stock=False) is None
    assert request.include == [LOGPROBS]


def test_the_rest_of_a_request_with_logprobs_is_checked_by_vllm():
    request = ResponsesRequest(input="?", include=[LOGPROBS], background=True, store=True)
    assert admitted(request, stock=False).error.param == "background"


@pytest.mark.parametrize("stock", [False, True], ids=["ours", "vllm"])
def test_tokens_are_known_by_text_and_vllm_forgets_them(stock):
    request = ResponsesRequest(input="?", include=[LOGPROBS])
    admitted(request, stock=False)
    parser = compose()(None, [])
    context = HarmonyContext([], [], frozenset(), parser, request)
    tokens = HARMONY.encode("<|channel|>final<|message|>Hello<|return|>", allowed_special="all")
    logprobs = [{token: Logprob(-0.5)} for token in tokens]
    output = CompletionOutput(0, "", tokens, None, logprobs, finish_reason="stop")
    append = stock_of(HarmonyContext, "append_output") if stock else HarmonyContext.append_output
    append(context, RequestOutput("id", None, [1], None, [output], finished=True))
    assert getattr(request, RECORD).texts == ([] if stock else [HARMONY.encode("Hello")])
    assert context.response_parser is parser


def test_items_and_events_of_vllm_still_have_none():
    message = Message.from_role_and_content(Role.ASSISTANT, "Hello").with_channel("final")
    (item,) = getattr(harmony_to_response_output, "stock_method_of_vllm", harmony_to_response_output)(message, [])
    assert item.content[0].logprobs is None
    assert emit_text_delta_events("Hello", StreamingState())[-1].logprobs == []


def test_vllm_still_knows_no_references():
    with pytest.raises((VLLMValidationError, ValueError, KeyError), match="item_reference"):
        response_input_to_harmony({"type": "item_reference", "id": "msg_1"}, [])


def test_tokenize_has_the_prompt_of_chat_and_in_vllm_another(tiny_checkpoint):
    config = ModelConfig(model=str(model_config(tiny_checkpoint).model), max_model_len=2048)
    vllm_config = SimpleNamespace(
        model_config=config, observability_config=None, parallel_config=SimpleNamespace(_api_process_rank=0)
    )
    renderer = HfRenderer(vllm_config, AutoTokenizer.from_pretrained(tiny_checkpoint))
    options = {"request_logger": None, "chat_template": None, "chat_template_content_format": "auto"}
    online = OnlineRenderer(config, renderer, **options)
    parameters = {"type": "object", "properties": {"a": {"const": 1}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    request = TokenizeChatRequest(messages=[{"role": "user", "content": "Hello"}], tools=[tool])
    template = {"default_template": None, "default_template_content_format": "auto", "default_template_kwargs": {}}
    template["tool_dicts"] = [tool]
    texts = []
    for method in (stock_of(OnlineRenderer, "preprocess_chat"), OnlineRenderer.preprocess_chat):
        _, (prompt,) = asyncio.run(method(online, request, request.messages, **template))
        texts.append(HARMONY.decode_utf8(prompt["prompt_token_ids"]))
    assert ["a?: 1," in text for text in texts] == [False, True]
    assert texts[1].endswith("<|start|>user<|message|>Hello<|end|><|start|>assistant")
