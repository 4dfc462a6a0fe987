"""Harmony through a bare `vllm serve`: both APIs, streamed and not, say what the model said."""

import re
from dataclasses import dataclass, field

import httpx
import pytest
from openai_harmony import HarmonyEncodingName, load_harmony_encoding

from vllm_gptoss.tiny import dialogues
from vllm_gptoss.tiny.dialogues import Turn
from vllm_gptoss.tiny.requests import Talk, chat_request, responses_request

MODEL = "tiny"
HELLO, PARIS = dialogues.PLAIN[0], dialogues.WEATHER[0]


@dataclass
class Said:
    """One answer of the server, whichever way it came."""

    reasoning: str = ""
    content: str = ""
    calls: list[list[str]] = field(default_factory=list)
    finish: str | None = None

    def is_turn(self, turn: Turn) -> bool:
        calls = [[turn.call.name, turn.call.arguments]] if turn.call else []
        content = turn.answer or turn.preamble or ""
        return (self.reasoning, self.content, self.calls) == (turn.reasoning, content, calls)


def chat(client, talk: Talk, **options) -> Said:
    completion = client.chat.completions.create(model=MODEL, temperature=0, **chat_request(talk), **options)
    choice = completion.choices[0]
    calls = [[call.function.name, call.function.arguments] for call in choice.message.tool_calls or ()]
    return Said(choice.message.reasoning or "", choice.message.content or "", calls, choice.finish_reason)


def chat_streamed(client, talk: Talk, **options) -> Said:
    said = Said()
    request = chat_request(talk)
    for chunk in client.chat.completions.create(model=MODEL, temperature=0, stream=True, **request, **options):
        for choice in chunk.choices:
            said.reasoning += getattr(choice.delta, "reasoning", None) or ""
            said.content += choice.delta.content or ""
            for call in choice.delta.tool_calls or ():
                if call.index == len(said.calls):
                    said.calls.append([call.function.name, ""])
                said.calls[call.index][1] += call.function.arguments or ""
            said.finish = choice.finish_reason or said.finish
    return said


def of_items(output) -> Said:
    said = Said()
    for item in output:
        if item.type == "reasoning":
            said.reasoning += item.content[0].text
        elif item.type == "message":
            said.content += item.content[0].text
        else:
            said.calls.append([item.name, item.arguments])
    return said


def responses(client, talk: Talk, **options) -> Said:
    response = client.responses.create(model=MODEL, temperature=0, **responses_request(talk), **options)
    said = of_items(response.output)
    said.finish = response.status
    return said


def responses_streamed(client, talk: Talk, **options) -> Said:
    """The deltas of the stream, which must add up to the response at its end."""
    said = Said()
    request = responses_request(talk)
    for event in client.responses.create(model=MODEL, temperature=0, stream=True, **request, **options):
        match event.type:
            case "response.reasoning_text.delta":
                said.reasoning += event.delta
            case "response.output_text.delta":
                said.content += event.delta
            case "response.output_item.added" if event.item.type == "function_call":
                said.calls.append([event.item.name, ""])
            case "response.function_call_arguments.delta":
                said.calls[-1][1] += event.delta
            case "response.completed" | "response.incomplete":
                whole = of_items(event.response.output)
                said.finish = event.response.status
    assert (said.reasoning, said.content, said.calls) == (whole.reasoning, whole.content, whole.calls)
    return said


WAYS = {way.__name__: way for way in (chat, chat_streamed, responses, responses_streamed)}
CHAT_WAYS = {name: way for name, way in WAYS.items() if name.startswith("chat")}


@pytest.fixture(params=WAYS.values(), ids=WAYS.keys())
def ask(request, client):
    return lambda talk, **options: request.param(client, talk, **options)


@pytest.fixture(params=CHAT_WAYS.values(), ids=CHAT_WAYS.keys())
def ask_chat(request, client):
    return lambda talk, **options: request.param(client, talk, **options)


@pytest.mark.parametrize("dialogue", [HELLO, PARIS, dialogues.TWO_CALLS[1]], ids=lambda dialogue: dialogue.name)
def test_every_turn_with_no_flags(ask, dialogue):
    for done, turn in enumerate(dialogue.turns):
        said = ask(Talk.of(dialogue, done))
        assert said.is_turn(turn), said
        assert said.finish in ("tool_calls" if turn.call else "stop", "completed")


def tokens_of(client, talk: Talk) -> list[int]:
    completion = client.chat.completions.create(
        model=MODEL, temperature=0, **chat_request(talk), extra_body={"return_token_ids": True}
    )
    return completion.choices[0].model_extra["token_ids"]


def test_a_call_that_is_cut_ends_with_length(client, ask_chat):
    """vllm-project/vllm#58228: half of a call must not look like one to run."""
    talk = Talk.of(PARIS)
    said = ask_chat(talk, max_tokens=len(tokens_of(client, talk)) - 2)
    ((name, arguments),) = said.calls
    assert name == "get_weather"
    assert arguments
    assert PARIS.turns[0].call.arguments.startswith(arguments)
    assert said.finish == "length"


def test_a_cut_anywhere_shows_a_beginning_and_no_header(client, ask_chat):
    talk = Talk.of(PARIS)
    whole = ask_chat(talk)
    for count in range(1, len(tokens_of(client, talk)), 5):
        said = ask_chat(talk, max_tokens=count)
        assert whole.reasoning.startswith(said.reasoning)
        assert whole.content.startswith(said.content)
        assert said.finish == "length"
        assert "<|" not in said.reasoning + said.content


def test_a_call_is_text_where_no_tool_may_be_called(ask):
    """vLLM's answer is empty here, or a call that nobody asked for."""
    said = ask(Talk.of(PARIS), tool_choice="none")
    assert said.calls == []
    assert said.reasoning == PARIS.turns[0].reasoning
    assert said.content
    assert said.finish in ("stop", "completed")


@pytest.mark.parametrize("stop", ["help", ["zebra", "you today", "help you"]], ids=["one", "several"])
def test_stop_strings_trim_the_answer(ask_chat, stop):
    said = ask_chat(Talk.of(HELLO), stop=stop)
    end = HELLO.turns[0].answer.index("help")
    assert said == Said(HELLO.turns[0].reasoning, HELLO.turns[0].answer[:end], [], "stop")


def test_stop_strings_let_the_reasoning_be(ask_chat):
    """vllm-project/vllm#52599."""
    assert "greet" in HELLO.turns[0].reasoning
    said = ask_chat(Talk.of(HELLO), stop=["greet"])
    assert said.is_turn(HELLO.turns[0])


def test_responses_stop_too(client):
    for way in (responses, responses_streamed):
        said = way(client, Talk.of(HELLO), extra_body={"stop": ["help"]})
        assert said.content == "Hello! How can I "
        assert said.reasoning == HELLO.turns[0].reasoning
        assert said.finish == "completed"


def test_reasoning_leaves_no_trace_where_it_is_not_wanted(ask):
    said = ask(Talk.of(HELLO), extra_body={"include_reasoning": False})
    assert said.reasoning == ""
    assert said.content == HELLO.turns[0].answer


def test_choices_do_not_mix(client):
    request = chat_request(Talk.of(PARIS))
    plain = client.chat.completions.create(model=MODEL, temperature=0.1, n=3, **request)
    ids = [choice.message.tool_calls[0].id for choice in plain.choices]
    assert len(set(ids)) == 3
    streams = ["", "", ""]
    for chunk in client.chat.completions.create(model=MODEL, temperature=0.1, n=3, stream=True, **request):
        for choice in chunk.choices:
            streams[choice.index] += getattr(choice.delta, "reasoning", None) or ""
    assert streams == [PARIS.turns[0].reasoning] * 3
    assert [choice.message.reasoning for choice in plain.choices] == streams


def test_reasoning_tokens_are_counted(client):
    reasoning = HELLO.turns[0].reasoning
    completion = client.chat.completions.create(model=MODEL, temperature=0, **chat_request(Talk.of(HELLO)))
    response = client.responses.create(model=MODEL, temperature=0, **responses_request(Talk.of(HELLO)))
    count = len(load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS).encode(reasoning))
    assert completion.usage.completion_tokens_details.reasoning_tokens == count
    assert response.usage.output_tokens_details.reasoning_tokens == count


def repairs(client) -> dict[str, float]:
    text = httpx.get(str(client.base_url).replace("/v1/", "/metrics")).text
    found = re.findall(r'^vllm_gptoss_harmony_repairs_total\{kind="(\w+)"\} (\S+)$', text, flags=re.MULTILINE)
    return {kind: float(value) for kind, value in found}


def test_repairs_stand_in_the_metrics(client):
    chat(client, Talk.of(HELLO))
    before = repairs(client)
    chat(client, Talk.of(PARIS), tool_choice="none")
    after = repairs(client)
    assert after.pop("not_offered") == before.pop("not_offered") + 1
    assert after == before
