"""Log probabilities of texts on Responses are those of their tokens; on Chat Completions those of all tokens."""

import itertools

import pytest
from openai import BadRequestError
from openai_harmony import HarmonyEncodingName, load_harmony_encoding
from vllm.entrypoints.openai.responses.context import HarmonyContext
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.logprobs import Logprob as SampleLogprob
from vllm.outputs import CompletionOutput, RequestOutput

from vllm_gptoss.parsers.harmony import token_bytes
from vllm_gptoss.serving.admission import LOGPROBS
from vllm_gptoss.serving.logprobs import RECORD, Record
from vllm_gptoss.tiny import dialogues
from vllm_gptoss.tiny.requests import Talk, chat_request, responses_request

MODEL = "tiny"
HARMONY = load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)
HELLO, PARIS = dialogues.PLAIN[0], dialogues.WEATHER[0]
FINAL = "<|channel|>final<|message|>"
START = "<|start|>assistant"
THOUGHT = "<|channel|>analysis<|message|>Hello there.<|end|>"
CALL = '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a":1}<|call|>'
HALF_LETTER, HALF_TOKEN = "~", 28823
"""The token of a part of an emoji, and what stands for it."""

GENERATED = {
    "thought, answer": (f"{THOUGHT}{START}{FINAL}Hello there.<|return|>", ["Hello there."], {}),
    "preamble, call": (
        f"{THOUGHT}{START}<|channel|>commentary<|message|>One moment.<|end|>{START}{CALL}",
        ["One moment."],
        {},
    ),
    "two texts": (f"{FINAL}One.<|end|>{START}{FINAL}Two.<|return|>", ["One.", "Two."], {}),
    "letters of several tokens": (FINAL + "a 🫠🧿 中文 é 🏴‍☠️<|return|>", ["a 🫠🧿 中文 é 🏴‍☠️"], {}),
    "no message token": ("<|channel|>final I'm sorry, but no.<|return|>", ["I'm sorry, but no."], {}),
    "no header": (f"{THOUGHT}Hi there.<|return|>", ["Hi there."], {}),
    "cut": (f"{FINAL}Hi the", ["Hi the"], {}),
    "a stop string that does not come": (f"{FINAL}aa aab<|return|>", ["aa aab"], {"stop": ["aaa", "aab!"]}),
    "no thought is shown": (f"{THOUGHT}{START}{FINAL}Hi.<|return|>", ["Hi."], {"include_reasoning": False}),
    "half a letter": (f"{FINAL}a{HALF_LETTER}<|return|>", ["a\ufffd"], {}),
    "half a letter within": (f"{FINAL}a{HALF_LETTER}c d<|return|>", ["a\ufffdc d"], {}),
}


def recorded(text: str, sizes: list[int], renderer, **fields) -> tuple[list, list[tuple], list]:
    """What is recorded of texts and of pieces, and the pieces, where tokens come in chunks of these sizes."""
    tool = {"type": "function", "name": "f", "parameters": None}
    request = ResponsesRequest(input="?", tools=[tool], **fields)
    record = Record(lambda tokens, logprobs: [*zip(tokens, logprobs, strict=True)])
    setattr(request, RECORD, record)
    parser = renderer.parser(None, request.tools)
    parser.take_request(request)
    context = HarmonyContext([], [], frozenset({"f"}), response_parser=parser, request=request)
    first, *rest = [HARMONY.encode(piece, allowed_special="all") for piece in text.split(HALF_LETTER)]
    tokens = [*first, *itertools.chain(*([HALF_TOKEN, *piece] for piece in rest))]
    pieces, done = [], 0
    while done < len(tokens):
        chunk = tokens[done : done + sizes[0]]
        logprobs = [{token: SampleLogprob(-float(done + i))} for i, token in enumerate(chunk)]
        done, sizes = done + len(chunk), [*sizes[1:], sizes[0]]
        finish = "stop" if done == len(tokens) else None
        output = CompletionOutput(0, "", chunk, None, logprobs, finish_reason=finish)
        context.append_output(RequestOutput("id", None, [1], None, [output], finished=finish is not None))
        pieces += [
            segment.delta
            for segment in context.last_append_segments
            if segment.delta and segment.recipient is None and segment.channel != "analysis"
        ]
    return record.texts, [*record.pieces], pieces


@pytest.mark.parametrize("sizes", [[1], [3, 1, 4], [1000]], ids=str)
@pytest.mark.parametrize(("text", "shown", "fields"), GENERATED.values(), ids=GENERATED)
def test_each_text_has_its_tokens(text, shown, fields, sizes, online_renderer):
    texts, logprobs, pieces = recorded(text, sizes, online_renderer, **fields)
    assert len(logprobs) == len(pieces)
    assert "".join(pieces) == "".join(shown)
    assert [*itertools.chain(*logprobs)] == [*itertools.chain(*texts)]
    said = [b"".join(token_bytes(token) for token, _ in tokens).decode(errors="replace") for tokens in texts]
    assert [text.strip() for text in said] == [text.strip() for text in shown]
    places = [-known[token].logprob for token, known in itertools.chain(*texts)]
    assert places == sorted(set(places))


def test_no_client_can_set_what_is_recorded(seams):
    assert not hasattr(ResponsesRequest(input="?", **{RECORD: 5}), RECORD)


def responses(client, talk: Talk, **options):
    return client.responses.create(model=MODEL, temperature=0, **responses_request(talk), **options)


def chat(client, talk: Talk, **options):
    return client.chat.completions.create(
        model=MODEL, temperature=0, logprobs=True, top_logprobs=2, **chat_request(talk), **options
    )


def part_of(response):
    (message,) = [item for item in response.output if item.type == "message"]
    return message.content[0]


def spelt(logprobs) -> str:
    return b"".join(bytes(each.bytes) for each in logprobs).decode()


def plain(logprobs) -> list[dict]:
    """Less what this API has besides, and rounded: two runs may differ in their last bits."""
    return [
        {
            "token": each.token,
            "bytes": each.bytes,
            "logprob": pytest.approx(each.logprob, abs=1e-3),
            "top": [top.token for top in each.top_logprobs],
        }
        for each in logprobs
    ]


@pytest.mark.parametrize("dialogue", [HELLO, PARIS], ids=["answer", "preamble"])
def test_a_text_has_the_logprobs_of_its_tokens(dialogue, client):
    part = part_of(responses(client, Talk.of(dialogue), include=[LOGPROBS], top_logprobs=2))
    assert part.text == (dialogue.turns[0].answer or dialogue.turns[0].preamble)
    assert spelt(part.logprobs) == part.text
    assert len(part.logprobs) == len(HARMONY.encode(part.text))
    for each in part.logprobs:
        best, second = each.top_logprobs
        assert best.token == each.token
        assert second.logprob <= each.logprob == best.logprob <= 0
    generated = plain(chat(client, Talk.of(dialogue)).choices[0].logprobs.content)
    size = len(part.logprobs)
    assert plain(part.logprobs) in [generated[i : i + size] for i in range(len(generated))]


@pytest.mark.parametrize("dialogue", [HELLO, PARIS], ids=["answer", "preamble"])
def test_a_stream_has_them_too(dialogue, client):
    events = [*responses(client, Talk.of(dialogue), include=[LOGPROBS], top_logprobs=2, stream=True)]
    part = part_of(events[-1].response)
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert all(spelt(delta.logprobs) == delta.delta for delta in deltas)
    (done,) = [event for event in events if event.type == "response.output_text.done"]
    parts = [event.part for event in events if event.type == "response.content_part.done"]
    items = [event.item for event in events if event.type == "response.output_item.done"]
    (closed,) = [part for part in parts if part.type == "output_text"]
    (item,) = [item for item in items if item.type == "message"]
    whole = plain(part.logprobs)
    assert whole
    assert plain([each for delta in deltas for each in delta.logprobs]) == whole
    for logprobs in (done.logprobs, item.content[0].logprobs, closed.logprobs):
        assert plain(logprobs) == whole


def test_without_alternatives(client):
    part = part_of(responses(client, Talk.of(HELLO), include=[LOGPROBS]))
    assert spelt(part.logprobs) == part.text
    assert {len(each.top_logprobs) for each in part.logprobs} == {0}


def test_none_where_they_are_not_asked_for(client):
    assert part_of(responses(client, Talk.of(HELLO), top_logprobs=2)).logprobs == []
    events = [*responses(client, Talk.of(HELLO), stream=True)]
    assert part_of(events[-1].response).logprobs == []
    assert {len(event.logprobs) for event in events if event.type.startswith("response.output_text")} == {0}


def test_too_many_alternatives_are_a_clients_error(client):
    with pytest.raises(BadRequestError, match="21"):
        responses(client, Talk.of(HELLO), include=[LOGPROBS], top_logprobs=21)


@pytest.mark.parametrize("dialogue", [HELLO, PARIS], ids=["answer", "call"])
def test_chat_has_those_of_all_tokens(dialogue, client):
    """vLLM's own: reasoning, headers and calls are among them, whatever of it is shown."""
    talk = Talk.of(dialogue)
    whole = chat(client, talk, extra_body={"return_token_ids": True})
    choice = whole.choices[0]
    logprobs = choice.logprobs.content
    tokens = choice.model_extra["token_ids"]
    assert [each.token for each in logprobs] == [HARMONY.decode_utf8([token]) for token in tokens]
    assert len(logprobs) == whole.usage.completion_tokens
    assert choice.message.reasoning in spelt(logprobs)
    assert {len(each.top_logprobs) for each in logprobs} == {2}
    streamed = [
        each
        for chunk in chat(client, talk, stream=True)
        for part in chunk.choices
        if part.logprobs
        for each in part.logprobs.content
    ]
    assert plain(streamed) == plain(logprobs)
