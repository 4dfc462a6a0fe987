"""Each seam of `compat.py` works, and is still needed: the second kind of test fails once vLLM has its own."""

import asyncio
import functools
import inspect
import json
import shutil
from types import SimpleNamespace

import pytest
from openai_harmony import HarmonyEncodingName, load_harmony_encoding
from transformers import AutoTokenizer
from vllm import SamplingParams
from vllm.config import ModelConfig
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest, ChatMessage
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.model_executor.models import config as vllm_checks
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.parser.harmony import HarmonyParser as StockHarmonyParser
from vllm.parser.parser_manager import ParserManager
from vllm.tool_parsers.gptoss_tool_parser import GptOssToolParser
from vllm.v1.engine.detokenizer import IncrementalDetokenizer

from vllm_gptoss import plugin
from vllm_gptoss.compat import stock_of
from vllm_gptoss.model.config import END_TOKENS
from vllm_gptoss.parsers.serving import STOPS_IN_FINAL, HarmonyParser

HARMONY = load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)


@pytest.fixture
def without_generation_config(tiny_checkpoint, tmp_path):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "bare")
    (folder / "generation_config.json").unlink()
    return folder


def end_tokens(config: dict) -> set[int]:
    ids = config.get("eos_token_id") or []
    return {ids} if isinstance(ids, int) else set(ids)


def model_config(folder) -> ModelConfig:
    plugin.register()
    return ModelConfig(model=str(folder), skip_tokenizer_init=True)


def test_end_tokens_hold_without_the_file(without_generation_config):
    assert end_tokens(model_config(without_generation_config).try_get_generation_config()) == set(END_TOKENS)


def test_end_tokens_hold_where_the_file_forgets_one(tiny_checkpoint, tmp_path):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "forgetful")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [200002], "top_k": 7}))
    config = model_config(folder).try_get_generation_config()
    assert end_tokens(config) == set(END_TOKENS)
    assert config["top_k"] == 7


def test_end_tokens_are_still_needed(without_generation_config):
    config = model_config(without_generation_config)
    assert 200012 not in end_tokens(stock_of(ModelConfig, "try_get_generation_config")(config))


def test_a_call_ends_the_turn_without_the_file(without_generation_config, engine):
    """The token is forced: what counts is that the engine stops on it."""
    with engine(without_generation_config, max_model_len=256) as llm:
        sampling = SamplingParams(max_tokens=8, logit_bias={200012: 100.0}, detokenize=False)
        (output,) = llm.generate({"prompt_token_ids": [200006]}, sampling, use_tqdm=False)
        assert list(output.outputs[0].token_ids) == [200012]
        assert output.outputs[0].finish_reason == "stop"


def test_vllm_calls_our_checks():
    plugin.register()
    assert vllm_checks.MODELS_CONFIG_MAP["GptOssForCausalLM"].__module__ == "vllm_gptoss.model.verify"


def test_the_table_of_checks_still_has_no_registration():
    assert not [name for name in vars(vllm_checks) if name.startswith("register")]


def compose(**options):
    plugin.register()
    names = {"tool_parser_name": None, "reasoning_parser_name": "openai_gptoss", "enable_auto_tools": False}
    return ParserManager.get_parser(**names | options, model_name=None, is_harmony=True)


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
