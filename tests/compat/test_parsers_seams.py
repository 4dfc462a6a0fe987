"""Seams where answers are parsed: each works, and the second kind of test fails once vLLM has its own."""

import asyncio
import functools
import inspect
from types import SimpleNamespace

import pytest
from seams_in_place import HARMONY, compose
from transformers import AutoTokenizer
from vllm import SamplingParams
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest, ChatMessage
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.parser.harmony import HarmonyParser as StockHarmonyParser
from vllm.parser.parser_manager import ParserManager
from vllm.tool_parsers.gptoss_tool_parser import GptOssToolParser
from vllm.v1.engine.detokenizer import IncrementalDetokenizer

from vllm_gptoss import plugin
from vllm_gptoss.parsers.serving import STOPS_IN_FINAL, HarmonyParser
from vllm_gptoss.seam import stock_of


def test_each_configuration_has_a_parser_class_of_its_own():
    first, second = compose(), compose(tool_parser_name="openai", enable_auto_tools=True)
    assert first is not second
    assert first.tool_parser_cls is second.tool_parser_cls is GptOssToolParser


def test_vllm_still_shares_one_class():
    plugin.register()
    options = {"reasoning_parser_name": "openai_gptoss", "model_name": None, "tool_strict_level": "auto"}
    stock = functools.partial(stock_of(ParserManager, "_compose_parser"), is_harmony=True, tokenizer=None, **options)
    first = stock(tool_parser_name="openai", enable_auto_tools=True)
    assert first.tool_parser_cls is GptOssToolParser
    second = stock(tool_parser_name=None, enable_auto_tools=False)
    assert first is second
    assert first.tool_parser_cls is None


def test_other_models_keep_their_parsers():
    plugin.register()
    names = {"tool_parser_name": "hermes", "reasoning_parser_name": None, "enable_auto_tools": True}
    parser = ParserManager.get_parser(**names, model_name=None, is_harmony=False)
    assert not issubclass(parser, HarmonyParser)
    assert parser.tool_parser_cls.__name__ == "Hermes2ProToolParser"


def test_the_flag_for_calls_is_still_needed():
    """Without it vLLM's unstreamed chat has no branch for calls: its first condition takes the answer away."""
    compose()
    source = inspect.getsource(stock_of(OpenAIServingChat, "chat_completion_full_generator"))
    assert "not self.enable_auto_tools or not tool_parser_cls" in source


def full_answer(stock: bool, finish: str, text: str, **fields) -> object:
    """What the unstreamed chat makes of one output, by vLLM's method or by ours around it."""
    parser_cls = compose()
    owner = stock_of(OpenAIServingChat, "chat_completion_full_generator") if stock else None
    method = owner or OpenAIServingChat.chat_completion_full_generator
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    request = ChatCompletionRequest(messages=[{"role": "user", "content": "?"}], tools=[tool], **fields)
    tokens = HARMONY.encode(text, allowed_special="all")
    output = CompletionOutput(0, "", tokens, None, None, finish_reason=finish)
    result = RequestOutput("id", None, [], None, [output], finished=True)

    async def results():
        yield result

    serving = SimpleNamespace(
        parser_cls=parser_cls,
        enable_auto_tools=True,
        _include_reasoning_tokens_details=True,
        enable_prompt_tokens_details=False,
        enable_per_request_metrics=False,
        enable_log_outputs=False,
        request_logger=None,
        system_fingerprint=None,
        get_chat_request_role=lambda request: "assistant",
        _raise_if_error=lambda *_: None,
        _create_chat_message=lambda **fields: ChatMessage(**fields),
        _finalize_response_message=lambda message, parser: message,
    )
    parser = parser_cls(None, request.tools)
    metadata = SimpleNamespace(final_usage_info=None)
    answer = asyncio.run(method(serving, request, results(), "id", "m", [], None, metadata, parser))
    return answer.choices[0]


CUT_CALL = '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a'


NO_CALL = "<|channel|>final<|message|>No.<|return|>"


@pytest.mark.parametrize(
    ("finish", "text", "fields", "reason"),
    [("length", CUT_CALL, {}, "length"), ("stop", NO_CALL, {"tool_choice": "required"}, "stop")],
    ids=["cut call", "no call where one was required"],
)
def test_the_finish_reason_is_what_happened_and_vllm_says_otherwise(finish, text, fields, reason):
    assert full_answer(False, finish, text, **fields).finish_reason == reason
    assert full_answer(True, finish, text, **fields).finish_reason == "tool_calls"


def test_responses_still_keeps_the_request_from_its_parser():
    assert list(inspect.signature(StockHarmonyParser.process_chunk).parameters) == ["self", "token_ids"]


@pytest.mark.parametrize(("text", "hit"), [("STOP", True), ("<|channel|>analysis<|message|>STOP", False)])
def test_stop_strings_count_in_the_answer_and_in_vllm_everywhere(text, hit, tiny_checkpoint):
    compose()
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    sampling = SamplingParams(stop=["STOP"], extra_args={STOPS_IN_FINAL: 1})
    request = SimpleNamespace(sampling_params=sampling, prompt_token_ids=[200006], request_id="0")
    tokens = HARMONY.encode("<|channel|>final<|message|>" + text if hit else text, allowed_special="all")
    assert IncrementalDetokenizer.from_new_request(tokenizer, request).update(tokens, False) == (
        "STOP" if hit else None
    )
    stock = stock_of(IncrementalDetokenizer, "from_new_request")
    assert stock(tokenizer, request).update(tokens, False) == "STOP"
