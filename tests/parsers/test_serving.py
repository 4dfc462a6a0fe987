"""The parser class as vLLM's server uses it: one class a configuration, one parser a choice, several turns a parser."""

import pytest
from openai_harmony import Message, Role
from spelling import THOUGHT as T
from spelling import spell
from views import (
    TOKENIZER,
    Said,
    Turn,
    chat_parser,
    chat_request,
    chunks,
    parsed,
    responses_parser,
    responses_request,
    said,
    streamed,
)
from vllm.parser.harmony import ChunkResult, Segment
from vllm.parser.harmony import HarmonyParser as StockHarmonyParser
from vllm.parser.parser_manager import ParserManager
from vllm.reasoning.gptoss_reasoning_parser import GptOssReasoningParser
from vllm.sampling_params import SamplingParams
from vllm.tool_parsers.gptoss_tool_parser import GptOssToolParser
from vllm.tool_parsers.tool_strict_level import ToolStrictLevel
from vllm.v1.engine import EngineCoreRequest

from vllm_gptoss import compat
from vllm_gptoss.parsers.serving import FinalTextDetokenizer, HarmonyParser, harmony_parser

ONE = '{"a":1}'
TWO_CALLS = (
    f"{T}<|channel|>commentary to=functions.f <|constrain|>json<|message|>{ONE}<|call|>"
    "<|start|>assistant<|channel|>commentary to=functions.g <|constrain|>json<|message|>{}<|call|>"
)
EVERYTHING = (
    "<|channel|>analysis<|message|>I think.<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|>"
    f"<|start|>assistant<|channel|>commentary to=functions.f<|message|>{ONE}<|call|>"
    "<|start|>assistant<|channel|>analysis<|message|>I see.<|end|>"
    "<|start|>assistant<|channel|>final<|message|>It is 🌧️.<|return|>"
)


# The class


def configured(**options) -> type[HarmonyParser]:
    compat.install()
    names = {"tool_parser_name": None, "reasoning_parser_name": "openai_gptoss", "enable_auto_tools": False}
    return ParserManager.get_parser(**names | options, is_harmony=True)


def test_two_configurations_do_not_change_each_other():
    """vLLM's own class is one for all, and the second configuration would overwrite the first."""
    strict = configured(tool_strict_level="function")
    bare = configured()
    assert strict is not bare
    assert strict.tool_strict_level is ToolStrictLevel.FUNCTION
    assert bare.tool_strict_level is ToolStrictLevel.AUTO
    assert StockHarmonyParser.tool_parser_cls is None
    assert HarmonyParser.tool_parser_cls is None


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reasoning_parser_name": None},
        {"tool_parser_name": "openai", "enable_auto_tools": True},
        {"tool_parser_name": "openai", "enable_auto_tools": True, "reasoning_parser_name": None},
    ],
)
def test_both_parsers_are_there_with_and_without_flags(options):
    parser = configured(**options)(TOKENIZER)
    assert isinstance(parser, HarmonyParser)
    assert isinstance(parser, StockHarmonyParser), "Responses insists on it"
    assert isinstance(parser.reasoning_parser, GptOssReasoningParser)
    assert isinstance(parser.tool_parser, GptOssToolParser)


@pytest.mark.parametrize(
    "options", [{"tool_parser_name": "hermes", "enable_auto_tools": True}, {"reasoning_parser_name": "deepseek_r1"}]
)
def test_parsers_of_other_models_are_refused_at_the_start(options):
    """As vLLM does: when it tries the class with the tokenizer."""
    with pytest.raises(TypeError, match="cannot be used"):
        configured(tokenizer=VocabularyOfOthers(), **options)


class VocabularyOfOthers:
    """Has every token that the parser of another model may ask for."""

    def get_vocab(self) -> dict[str, int]:
        return {"<think>": 1, "</think>": 2, "<tool_call>": 3, "</tool_call>": 4}

    def encode(self, text: str, **options) -> list[int]:
        return [1]


@pytest.mark.parametrize("options", [{"tool_parser_name": "no_such"}, {"reasoning_parser_name": "no_such"}])
def test_unknown_parsers_are_refused(options):
    with pytest.raises((TypeError, KeyError)):
        configured(**options | {"enable_auto_tools": True})


def test_the_names_of_stock_mean_the_same():
    named, bare = (
        harmony_parser(*names, ToolStrictLevel.AUTO) for names in (("openai_gptoss", "openai"), (None, None))
    )
    assert named.reasoning_parser_cls is bare.reasoning_parser_cls is GptOssReasoningParser
    assert named.tool_parser_cls is bare.tool_parser_cls is GptOssToolParser


# Chat


def deltas(stream: str, request, parser=None, cuts=None) -> list:
    parser = parser or chat_parser(request)
    pieces = chunks(spell(stream), cuts)
    return [
        parser.parse_delta("", piece, request, finished=number == len(pieces)) for number, piece in enumerate(pieces, 1)
    ]


def call_deltas(stream: str, request, parser=None, cuts=None) -> list:
    return [call for delta in deltas(stream, request, parser, cuts) if delta for call in delta.tool_calls]


def test_all_at_once_and_token_by_token():
    request = chat_request("f")
    whole = Turn("I think.\nI see.", "I look.\nIt is 🌧️.", (("f", ONE),))
    assert parsed(spell(EVERYTHING), request) == whole
    assert streamed(spell(EVERYTHING), request) == whole


def test_nothing_is_none():
    """vLLM leaves out a field that is None, and shows an empty one."""
    request = chat_request("f")
    assert chat_parser(request).parse("", request) == (None, None, None)
    parser = chat_parser(request)
    assert parser.parse_delta("", [], request, finished=False) is None
    assert parser.parse_delta("", spell("<|channel|>final"), request, finished=False) is None
    assert parser.parse_delta("", [], request, finished=True) is None


def test_a_delta_has_only_what_is_new():
    first, *_ = [delta for delta in deltas(EVERYTHING, chat_request("f")) if delta]
    assert first.model_dump(exclude_unset=True) == {"reasoning": "I"}


def test_parallel_calls_keep_their_order_and_index():
    calls = call_deltas(TWO_CALLS, chat_request("f", "g"))
    assert [call.index for call in calls] == sorted(call.index for call in calls)
    heads = [call for call in calls if call.id]
    assert [(call.index, call.type, call.function.name) for call in heads] == [
        (0, "function", "f"),
        (1, "function", "g"),
    ]
    for index, arguments in enumerate((ONE, "{}")):
        own = [call for call in calls if call.index == index]
        assert own[0] is heads[index], "the name comes first"
        assert "".join(call.function.arguments for call in own) == arguments


def test_only_the_first_delta_of_a_call_names_it():
    """A client would take another name or id for another call."""
    for call in call_deltas(TWO_CALLS, chat_request("f", "g")):
        assert (call.id is None) == (call.type is None) == (call.function.name is None)


def test_two_calls_in_one_piece():
    calls = call_deltas(TWO_CALLS, chat_request("f", "g"), cuts=[])
    assert [(call.index, call.function.name, call.function.arguments) for call in calls] == [
        (0, "f", ONE),
        (1, "g", "{}"),
    ]


def test_ids_of_calls_are_unique():
    """Within a turn, over turns, and over the choices of a request."""
    request = chat_request("f", "g")
    parser = chat_parser(request)
    ids = [call.id for _ in range(3) for call in call_deltas(TWO_CALLS, request, parser) if call.id]
    ids += [call.id for call in call_deltas(TWO_CALLS, request) if call.id]
    assert len(set(ids)) == len(ids) == 8


def test_calls_of_a_next_turn_begin_at_zero():
    request = chat_request("f", "g")
    parser = chat_parser(request)
    for _ in range(2):
        assert [call.index for call in call_deltas(TWO_CALLS, request, parser) if call.id] == [0, 1]


def test_parsers_do_not_know_each_other():
    """n = 3: their tokens come in turns."""
    request = chat_request("f", "g")
    streams = [spell(stream) for stream in (TWO_CALLS, EVERYTHING, f"{T}<|channel|>final<|message|>Hi<|return|>")]
    parsers = [chat_parser(request) for _ in streams]
    contents = ["", "", ""]
    for place in range(max(map(len, streams))):
        for number, (parser, stream) in enumerate(zip(parsers, streams, strict=True)):
            if place < len(stream):
                delta = parser.parse_delta("", [stream[place]], request, finished=place == len(stream) - 1)
                contents[number] += (delta and delta.content) or ""
    assert contents == [parsed(stream, request).content or "" for stream in streams] == ["", "I look.\nIt is 🌧️.", "Hi"]


def test_include_reasoning_false_leaves_no_trace():
    request = chat_request("f", include_reasoning=False)
    assert streamed(spell(EVERYTHING), request) == Turn(None, "I look.\nIt is 🌧️.", (("f", ONE),))
    for delta in deltas(EVERYTHING, request):
        assert delta is None or "reasoning" not in delta.model_dump(exclude_unset=True)


def test_tool_choice_none():
    """What would be a call is text of the answer."""
    request = chat_request("f", "g", tool_choice="none")
    assert parsed(spell(TWO_CALLS), request) == Turn("t", f"{ONE}\n{{}}")
    assert streamed(spell(TWO_CALLS), request) == Turn("t", f"{ONE}\n{{}}")


@pytest.mark.parametrize("choice", ["auto", "required", {"type": "function", "function": {"name": "f"}}])
def test_other_tool_choices(choice):
    request = chat_request("f", "g", tool_choice=choice)
    assert parsed(spell(TWO_CALLS), request).calls == (("f", ONE), ("g", "{}"))


def test_stop_strings():
    stream = spell("<|channel|>analysis<|message|>a, b.<|end|><|start|>assistant<|channel|>final<|message|>Hi, you. No")
    for fields, content in (
        ({"stop": "you"}, "Hi, "),
        ({"stop": ["No", ", "]}, "Hi"),
        ({"stop": [", y", "you."], "include_stop_str_in_output": True}, "Hi, y"),
        ({"stop": [","], "min_tokens": 15}, "Hi, you. No"),
        ({"stop": []}, "Hi, you. No"),
        ({}, "Hi, you. No"),
    ):
        request = chat_request(**fields)
        assert parsed(stream, request) == Turn("a, b.", content)
        assert streamed(stream, request) == Turn("a, b.", content)


def test_stop_strings_of_responses():
    stream = spell("<|channel|>analysis<|message|>a, b.<|end|><|start|>assistant<|channel|>final<|message|>Hi, you. No")
    for fields, content in (
        ({"stop": "you"}, "Hi, "),
        ({"stop": [", y"], "include_stop_str_in_output": True}, "Hi, y"),
        ({}, "Hi, you. No"),
    ):
        assert said(stream, responses_request(**fields)) == [
            Said("analysis", None, "a, b."),
            Said("final", None, content),
        ]


def test_reasoning_tokens():
    """Asked for after `parse`, after each piece of a stream, and for ids that were not parsed."""
    tokens, request = spell(EVERYTHING), chat_request("f")
    count = len(spell("I think.")) + len(spell("I see."))
    parser = chat_parser(request)
    assert parser.count_reasoning_tokens(tokens) == count
    parsed(tokens, request, parser)
    assert parser.count_reasoning_tokens(tokens) == count
    parser = chat_parser(request)
    for length, token in enumerate(tokens, 1):
        parser.parse_delta("", [token], request, finished=length == len(tokens))
        assert parser.count_reasoning_tokens(tuple(tokens[:length])) == chat_parser(request).count_reasoning_tokens(
            tokens[:length]
        )
    assert parser.count_reasoning_tokens(tokens) == count
    assert parser.count_reasoning_tokens([]) == 0


# Responses


def segments(stream: str, request=None, parser=None, cuts=None) -> list[Segment]:
    parser = parser or responses_parser(request or responses_request("f", "g"))
    found = [segment for piece in chunks(spell(stream), cuts) for segment in parser.process_chunk(piece).segments]
    return found + parser.flush()


def test_messages_of_responses():
    assert said(spell(EVERYTHING), responses_request("f")) == [
        Said("analysis", None, "I think."),
        Said("commentary", None, "I look."),
        Said("commentary", "functions.f", ONE),
        Said("analysis", None, "I see."),
        Said("final", None, "It is 🌧️."),
    ]


@pytest.mark.parametrize("cuts", [None, []])
def test_messages_are_those_of_the_library(cuts):
    """vLLM stores them as the history, and renders the next prompt from it."""
    messages = [segment.completed_message for segment in segments(EVERYTHING, cuts=cuts) if segment.completed_message]
    assert len(messages) == len({id(message) for message in messages}) == 5
    for message in messages:
        assert type(message) is Message
        assert message.author.role is Role.ASSISTANT
        assert len(message.content) == 1


def test_the_content_type_stays_in_the_message():
    *_, last = segments(TWO_CALLS)
    assert last.completed_message.content_type == "<|constrain|>json"
    *_, last = segments(EVERYTHING)
    assert last.completed_message.content_type is None


def test_a_segment_is_a_delta_or_a_message():
    for segment in segments(EVERYTHING, cuts=[]):
        assert bool(segment.delta) != bool(segment.completed_message)
        if segment.completed_message:
            assert segment[:2] == (segment.completed_message.channel, segment.completed_message.recipient)


def test_deltas_of_a_message_are_its_text():
    text, texts = "", []
    for segment in segments(EVERYTHING):
        text += segment.delta
        if segment.completed_message:
            texts.append((text, segment.completed_message.content[0].text))
            text = ""
    assert not text
    assert all(streamed == whole for streamed, whole in texts)
    assert len(texts) == 5


def test_the_chunk_result_is_vllms():
    """vLLM extends the list of segments, and sums up the counts."""
    parser = responses_parser(responses_request("f"))
    result = parser.process_chunk(spell(EVERYTHING))
    assert isinstance(result, ChunkResult)
    assert isinstance(result.segments, list)
    assert result.reasoning_token_count == len(spell("I think.")) + len(spell("I see."))
    assert parser.process_chunk([]) == ChunkResult([], 0)


@pytest.mark.parametrize(
    ("stream", "is_open"),
    [
        ("", False),
        (f"{T}<|channel|>final<|message|>Hi<|return|>", False),
        (f"{T}<|channel|>final<|message|>Hi", True),
        ("<|channel|>analysis<|message|>t", True),
        (f"<|channel|>commentary to=functions.f<|message|>{ONE}", True),
        (f"<|channel|>commentary to=functions.f<|message|>{ONE}<|call|>", False),
        (f"{T}<|channel|>final Hi", True),
        (f"{T}<|channel|>fin", False),
        (f"{T}<|channel|>final<|message|>", False),
    ],
)
def test_flush_is_empty_when_nothing_is_open(stream, is_open):
    """vLLM takes anything else for an item that is incomplete."""
    parser = responses_parser(responses_request("f"))
    parser.process_chunk(spell(stream))
    assert bool(parser.flush()) == is_open
    assert parser.flush() == []


def test_a_parser_lives_through_the_turns_with_tools():
    """Each turn begins behind `<|start|>assistant`, wherever the last one was cut."""
    request = responses_request("f", "g")
    parser = responses_parser(request)
    for stream in (TWO_CALLS, f"{T}<|channel|>comm", f"{T}<|channel|>final<|message|>Hi", EVERYTHING, TWO_CALLS):
        assert said(spell(stream), request, parser=parser) == said(spell(stream), request)


def test_counts_begin_anew_with_each_turn():
    parser = responses_parser(responses_request("f"))
    for _ in range(2):
        assert parser.process_chunk(spell(T)).reasoning_token_count == 1
        parser.flush()


def test_include_reasoning_false_in_responses():
    request = responses_request("f", include_reasoning=False)
    assert [message.channel for message in said(spell(EVERYTHING), request)] == ["commentary", "commentary", "final"]
    parser = responses_parser(request)
    assert parser.process_chunk(spell(EVERYTHING)).reasoning_token_count > 0, "usage is not what was asked to be hidden"


def test_tool_choice_none_in_responses():
    request = responses_request("f", "g", tool_choice="none")
    assert said(spell(TWO_CALLS), request) == [
        Said("analysis", None, "t"),
        Said("final", None, ONE),
        Said("final", None, "{}"),
    ]


def test_responses_without_the_request():
    """What is offered is known from the tools alone."""
    parser = harmony_parser(None, None, ToolStrictLevel.AUTO)(TOKENIZER, responses_request("f", "g").tools)
    assert [message.recipient for message in said(spell(TWO_CALLS), None, parser=parser)] == [
        None,
        "functions.f",
        "functions.g",
    ]


# Stop strings in the engine's detokenizer


def detokenizer(stop: list[str], **fields) -> FinalTextDetokenizer:
    params = SamplingParams(stop=stop, detokenize=True, max_tokens=99, **fields)
    return FinalTextDetokenizer(EngineCoreRequest("", [1], None, params, None, 0.0, None, None, None))


@pytest.mark.parametrize(
    "message",
    [
        "<|channel|>analysis<|message|>a STOP b<|end|>",
        "<|channel|>commentary<|message|>a STOP b<|end|>",
        "<|channel|>commentary to=functions.f<|message|>a STOP b<|call|>",
    ],
)
def test_the_engine_stops_in_the_answer_alone(message):
    finder = detokenizer(["STOP"])
    stream = spell(f"{message}<|start|>assistant<|channel|>final<|message|>Hi ST")
    assert [finder.update([token], False) for token in stream] == [None] * len(stream)
    assert finder.update(spell("OP"), False) == "STOP"


def test_tokens_behind_the_stop_string_are_dropped():
    """Several come at once with speculative decoding."""
    finder = detokenizer(["."])
    first, rest = spell(f"{T}<|channel|>final<|message|>Hi."), spell(" No.<|return|>")
    assert finder.update([*first, *rest], False) == "."
    assert finder.output_token_ids == first


def test_the_engine_keeps_the_stop_token_that_ends_a_turn():
    finder = detokenizer(["STOP"])
    tokens = spell(f"{T}<|channel|>final<|message|>Hi<|return|>")
    assert finder.update(tokens, True) is None
    assert finder.output_token_ids == tokens


@pytest.mark.parametrize("stop", [["."], ["lo w", "o"], [" wor", "ld"], ["none"], ["!", "\n"], ["🌧️"]])
@pytest.mark.parametrize("fields", [{}, {"include_stop_str_in_output": True}, {"min_tokens": 12}])
def test_the_parser_trims_where_the_engine_stops(stop, fields):
    """Of the tokens that are left when the engine has stopped, the user gets what vLLM shows of plain text."""
    stream = spell(
        "<|channel|>analysis<|message|>o. ld<|end|><|start|>assistant<|channel|>final<|message|>Hello world. 🌧️!"
    )
    for size in (1, 3, len(stream)):
        finder = detokenizer(stop, **fields)
        for start in range(0, len(stream), size):
            if finder.update(stream[start : start + size], False) is not None:
                break
        request = chat_request(stop=stop, **fields)
        assert parsed(finder.output_token_ids, request).content == (finder.output_text or None)


def test_a_stop_string_does_not_reach_over_two_messages_of_the_answer():
    """The parser would not find it, and the engine must not end there."""
    finder = detokenizer(["STOP"])
    stream = "<|channel|>final<|message|>a ST<|end|><|start|>assistant<|channel|>final<|message|>OP b<|return|>"
    assert [hit for token in spell(stream) if (hit := finder.update([token], False))] == []


def test_an_answer_without_a_message_token_is_searched_too():
    finder = detokenizer(["STOP"])
    tokens = spell(f"{T}<|channel|>final Hi STOP there<|end|>")
    assert [hit for token in tokens if (hit := finder.update([token], False))] == ["STOP"]
