"""What holds for every token stream: the properties (a) to (e) of the specification.

HARMONY_EXAMPLES is the number of examples over all tests of this file. Without it they are 20,000, the same each time;
with it, others each time.
"""

import gc
import itertools
import os
import re
import sys
import tracemalloc
from typing import NamedTuple

import pytest
from events import messages
from hypothesis import given, settings
from hypothesis import strategies as st
from make_golden import read
from spelling import encoding, spell
from views import (
    as_turn,
    chat_parser,
    chat_request,
    parsed,
    parts_of,
    responses_parser,
    responses_request,
    said,
    streamed,
    with_arguments,
)

from vllm_gptoss.parsers.answer import Kind, Offer, Part
from vllm_gptoss.parsers.harmony import FIRST_CONTROL, STOPS, HarmonyMachine, Opened, Repaired, Text

EXAMPLES = int(os.environ.get("HARMONY_EXAMPLES", "20000"))


def share(of_hundred: int) -> settings:
    """A part of all examples; they sum to a hundred."""
    return settings(
        max_examples=EXAMPLES * of_hundred // 100 + 1,
        derandomize="HARMONY_EXAMPLES" not in os.environ,
        deadline=None,
        database=None,
    )


OFFER = Offer(frozenset(("f", "get_weather")))
CHAT = {
    "tools": chat_request("f", "get_weather"),
    "no_tools": chat_request(),
    "no_choice": chat_request("f", "get_weather", tool_choice="none"),
    "stops": chat_request("f", "get_weather", stop=["w12", "sorry, w", "\n"], min_tokens=8),
    "kept_stops": chat_request("f", stop=["w", " w13"], include_stop_str_in_output=True),
}
RESPONSES = {
    "tools": responses_request("f", "get_weather"),
    "builtin": responses_request(builtin=[{"type": "code_interpreter", "container": {"type": "auto"}}]),
    "stops": responses_request("f", stop=["w12", "sorry, w"]),
    "no_reasoning": responses_request("f", include_reasoning=False),
}


# Streams

CONTROLS = [199999, 200002, 200003, 200005, 200006, 200007, 200008, 200012]
HALF_LETTERS = [9552, 28823, 102, 244, 101]
WORDS = spell("assistant analysis commentary final to=functions.f json code Hi")

random_ids = st.lists(
    st.one_of(
        st.sampled_from(CONTROLS),
        st.sampled_from(CONTROLS),
        st.sampled_from(WORDS + HALF_LETTERS),
        st.integers(0, 199_997),
        st.integers(199_998, 201_200),
        st.integers(),
    ),
    max_size=24,
)


class Shape(NamedTuple):
    """A kind of message: the text of its header, and what the words of its body stand between."""

    header: str
    before: str = ""
    after: str = ""
    end: str = "<|end|>"


JSON_BODY = ('{"a": "', '"}', "<|call|>")
SHAPES = [
    Shape("<|channel|>analysis"),
    Shape("<|channel|>final", end="<|return|>"),
    Shape("<|channel|>commentary"),
    Shape("<|channel|>commentary to=functions.f <|constrain|>json", *JSON_BODY),
    Shape("<|channel|>commentary to=functions.get_weather", *JSON_BODY),
    Shape(" to=functions.f<|channel|>commentary <|constrain|>json", *JSON_BODY),
    Shape(" to=functions.get_weather<|channel|>commentary json", *JSON_BODY),
    Shape("<|channel|>analysis to=python code", 'print("', '")', "<|call|>"),
]
LOOSE_SHAPES = [
    *SHAPES,
    Shape("<|channel|>final <|constrain|>json"),  # of a recipient for the library
    Shape("<|channel|>commentary to=functions.f <|constrain|>json", end="<|call|>"),  # arguments that are no JSON
    Shape(""),
]
PADDING = {"0": " sorry,", "1": " 🌧️", "2": " I", "3": "\n"}


def written(drawn: list[tuple[Shape, int]]) -> list[int]:
    """A turn; the digits of a number are the words of a body, and most of them `w10`, `w11`, …, each of them once."""
    tokens: list[int] = []
    names = itertools.count(10)
    for shape, number in drawn:
        body = "".join(PADDING.get(digit) or f" w{next(names)}" for digit in str(number))
        tokens += spell("<|start|>assistant") if tokens else []
        tokens += [*spell(f"{shape.header}<|message|>{shape.before}"), *spell(body), *spell(shape.after + shape.end)]
    return tokens


def some(shapes: list[Shape]) -> st.SearchStrategy[list[int]]:
    message = st.tuples(st.sampled_from(shapes), st.integers(0, 9999))
    return st.lists(message, min_size=1, max_size=4).map(written)


CHANGES = ("drop", "double", "swap", "truncate", "glue", "insert")


def mutated(tokens: list[int], changes: list[tuple[str, int]]) -> list[int]:
    """`changes` say what is done, and with a number where: its halves are two places."""
    tokens = list(tokens)
    for change, number in changes:
        if not tokens:
            break
        at, other = number % 251 % len(tokens), number // 251 % len(tokens)
        if change == "drop":
            del tokens[at]
        elif change == "double":
            tokens.insert(at, tokens[at])
        elif change == "swap":
            tokens[at], tokens[other] = tokens[other], tokens[at]
        elif change == "truncate":
            del tokens[max(at, other) :]
        elif change == "glue":
            pair = tokens[at : at + 2]
            if all(token < FIRST_CONTROL for token in pair):
                tokens[at : at + 2] = spell("".join(map(text_of, pair)).replace(" ", ""))
        elif change == "insert":
            tokens.insert(at, CONTROLS[other % len(CONTROLS)])
    return tokens


turns = some(SHAPES)
malformed = st.builds(
    mutated,
    some(LOOSE_SHAPES),
    st.lists(st.tuples(st.sampled_from(CHANGES), st.integers(0, 251**2)), min_size=1, max_size=4),
)
any_tokens = st.one_of(random_ids, malformed, turns)


def text_of(token: int) -> str:
    return encoding().decode([token])


# (a) Every visible word ends up somewhere, once and in order; (b) no control token does

START, CHANNEL, CONSTRAIN, MESSAGE = 200006, 200005, 200003, 200008
SLOT, TYPE, BODY = "\ue000", "\ue001", "\ue002"
"""Where <|channel|>, <|constrain|> and <|message|> stood in the text of a message."""
MARKER = re.compile(r"w\d\d")
TORN_MARKER = re.compile(r"w[\ue000-\ue002]*\d[\ue000-\ue002]*\d")
NO_TEXT = re.compile(r"(?:to=\s*|functions\.)[\w.:/@-]*|[\w.:/@-]+(?=\s+to=)|\ue001\s*[\w/.+-]*")
"""In a header that runs on into text: who is named, and the content type."""


def messages_in(tokens: list[int]) -> list[str]:
    """The text of each message, header and body; only what begins or ends one counts, other ids do nothing."""
    found = []
    text, in_body = b"", False
    for token in [*tokens, START]:
        if 0 <= token < FIRST_CONTROL:
            text += encoding()._inner.decode_bytes([token])
        elif token in (START, *STOPS) or (token == CHANNEL and in_body):
            found.append(text.decode(errors="replace"))
            text, in_body = b"", False
        elif not in_body and token in MARKS:
            text += MARKS[token].encode()
            in_body = token == MESSAGE
    return found


MARKS = {CHANNEL: SLOT, CONSTRAIN: TYPE, MESSAGE: BODY}


def markers(tokens: list[int]) -> list[tuple[str, bool]]:
    """The markers in a stream, and whether each must be shown.

    One in a header that <|message|> ends may be a misspelt word, and one that is no text may be gone.
    """
    found = []
    for text in messages_in(tokens):
        header, is_closed, _ = text.partition(BODY)
        free = set(range(len(header))) if is_closed else set()
        free |= {at for match in NO_TEXT.finditer(header) for at in range(*match.span())}
        for match in TORN_MARKER.finditer(text):
            is_needed = match.start() not in free and MARKER.fullmatch(match[0]) is not None
            found.append((re.sub("[\ue000-\ue002]", "", match[0]), is_needed))
    return found


def is_shown(shown: list[str], wanted: list[tuple[str, bool]]) -> bool:
    """`shown` are the wanted markers in their order, without some of those that may be missing."""
    lengths = {0}
    for marker, is_needed in wanted:
        grown = {length + 1 for length in lengths if length < len(shown) and shown[length] == marker}
        lengths = grown if is_needed else grown | lengths
    return len(shown) in lengths


def all_text(parts: list[Part]) -> str:
    return " | ".join(f"{part.function or ''} {part.text}" for part in parts)


@share(35)
@given(malformed)
def test_every_visible_word_is_shown_once_and_in_order(tokens):
    parts, _ = parts_of(tokens, OFFER)
    shown = all_text(parts)
    assert is_shown(MARKER.findall(shown), markers(tokens)), encoding().decode(tokens)
    assert "<|" not in shown


@share(4)
@given(turns)
def test_every_word_of_a_well_formed_turn_is_in_its_place(tokens):
    """Without mutations, the oracle is the library: by channel and recipient a message is one of three."""
    _, theirs = read(tokens, "assistant")
    parts, repairs = parts_of(tokens, OFFER)
    wanted = []
    for message in theirs:
        name = (message["recipient"] or "").removeprefix("functions.")
        if name in OFFER.functions:
            wanted.append((Kind.CALL, message["text"] or "{}"))
        elif message["text"]:
            is_thought = message["channel"] == "analysis" and not name
            wanted.append((Kind.REASONING if is_thought else Kind.CONTENT, message["text"]))
    assert [(part.kind, part.text) for part in parts] == wanted
    assert set(repairs) <= {"not_offered", "invalid_json"}


@share(10)
@given(random_ids)
def test_no_ids_are_an_error_and_no_control_token_is_shown(tokens):
    """What looks like one came as text."""
    parts, _ = parts_of(tokens, OFFER)
    plain = encoding().decode([token for token in tokens if 0 <= token < FIRST_CONTROL])
    assert all_text(parts).count("<|") <= plain.count("<|")


@share(5)
@given(random_ids, random_ids)
def test_events_are_well_formed_and_the_machine_can_go_on(tokens, more):
    """A message opens, has text and closes; `finish` leaves the machine between messages."""
    machine = HarmonyMachine()
    events = [event for token in tokens for event in machine.feed(token)] + machine.finish()
    is_open = False
    for event in events:
        assert isinstance(event, Repaired) or isinstance(event, Opened) != is_open
        is_open = is_open if isinstance(event, Repaired | Text) else isinstance(event, Opened)
        assert not isinstance(event, Text) or event.text
    assert not is_open
    assert machine.message is None

    fresh = HarmonyMachine(None)
    assert [machine.feed(token) for token in more] == [fresh.feed(token) for token in more]
    assert machine.finish() == fresh.finish()


# (c) The whole is the concatenation of the stream, for every way to cut it

cuts = st.lists(st.integers(0, 60), max_size=8)


def places(tokens: list[int], drawn: list[int]) -> list[int]:
    return [min(place, len(tokens)) for place in drawn]


@share(20)
@given(any_tokens, cuts, st.sampled_from(sorted(CHAT)))
def test_chat_is_the_same_for_every_way_to_cut(tokens, drawn, name):
    request = CHAT[name]
    assert streamed(tokens, request, places(tokens, drawn)) == parsed(tokens, request)


@share(12)
@given(any_tokens, cuts, st.sampled_from(sorted(RESPONSES)))
def test_responses_is_the_same_for_every_way_to_cut(tokens, drawn, name):
    """The reasoning tokens too, and they are those that chat counts."""
    request = RESPONSES[name]
    assert said(tokens, request, places(tokens, drawn)) == said(tokens, request, [])
    parser, whole = responses_parser(request), responses_parser(request)
    counts = [parser.process_chunk([token]).reasoning_token_count for token in tokens]
    assert sum(counts) == whole.process_chunk(tokens).reasoning_token_count == whole.count_reasoning_tokens(tokens)


@share(3)
@given(st.one_of(random_ids, malformed).map(lambda tokens: tokens[:14]))
def test_every_cut_in_two_of_a_short_stream(tokens):
    chat, responses = CHAT["tools"], RESPONSES["tools"]
    whole = parsed(tokens, chat)
    assert as_turn(said(tokens, responses)) == with_arguments(whole)
    for place in range(len(tokens) + 1):
        assert streamed(tokens, chat, [place]) == whole
        assert as_turn(said(tokens, responses, [place])) == with_arguments(whole)


@share(3)
@given(any_tokens)
def test_a_parser_is_as_new_after_each_turn(tokens):
    chat, responses = CHAT["tools"], RESPONSES["tools"]
    parser = chat_parser(chat)
    first = parsed(tokens, chat, parser)
    assert parsed(tokens, chat, parser) == first
    assert streamed(tokens, chat, parser=parser) == first
    assert streamed(tokens, chat, parser=parser) == first
    parser = responses_parser(responses)
    assert said(tokens, responses, parser=parser) == said(tokens, responses, parser=parser)


@share(2)
@given(any_tokens)
def test_hidden_reasoning_leaves_no_trace(tokens):
    chat = chat_request("f", include_reasoning=False)
    shown = parsed(tokens, chat)
    assert streamed(tokens, chat) == shown._replace(reasoning=None)
    assert said(tokens, RESPONSES["no_reasoning"]) == [
        message
        for message in said(tokens, responses_request("f"))
        if message.channel != "analysis" or message.recipient
    ]


# (e) Well-formed output gives exactly what the library gives


@share(6)
@given(turns, st.integers(0, 60))
def test_well_formed_is_what_the_library_gives(tokens, length):
    """Token by token, and cut anywhere."""
    tokens = tokens[: length or None]
    runs, theirs = read(tokens, "assistant")
    machine = HarmonyMachine()
    events = []
    for token, text in (step for _, run in runs for step in run):
        new = machine.feed(token)
        assert "".join(event.text for event in new if isinstance(event, Text)) == (text or "")
        events += new
    events += machine.finish()
    assert messages(events) == theirs
    assert not [event for event in events if isinstance(event, Repaired)]


# (d) Constant memory, and constant work a token

MANY = 50_000
ENDLESS = {
    "body": (spell("<|channel|>analysis<|message|>"), spell(" word")),
    "header": (spell("<|channel|>"), spell(" word")),
    "recipient": (spell("<|channel|>commentary to=functions."), spell("a")),
    "space": (spell("<|channel|>final"), spell(" ")),
    "half_letters": (spell("<|channel|>final<|message|>"), [9552]),
    "starts": ([], spell("<|start|>")),
    "channels": ([], spell("<|channel|>")),
    "constrains": ([], spell("<|constrain|>")),
    "message_tokens": ([], spell("<|message|>")),
    "ends": ([], spell("<|end|>")),
    "meaningless": ([], [-1]),
    "headers": ([], spell("<|start|>assistant<|channel|>analysis")),
    "messages": ([], spell("<|channel|>analysis<|message|>a<|end|><|start|>assistant")),
    "channel_and_constrain": ([], spell("<|channel|>final<|constrain|>json")),
}


def work(function) -> int:
    """How many calls of functions, Python's and others, `function` makes."""
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(None)
    return calls


def text_size(value) -> int:
    """Characters and bytes of all text that the state of a machine holds."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(map(text_size, value.values()))
    return sum(map(text_size, value)) if isinstance(value, list | tuple) else 0


@pytest.mark.parametrize("name", ENDLESS)
def test_memory_and_work_of_a_machine_are_constant_a_token(name):
    """Work as the calls of the first thousand tokens and the last; memory as text held, and as bytes allocated."""
    first, again = ENDLESS[name]
    machine = HarmonyMachine()

    def feed(tokens: list[int]) -> None:
        for token in tokens:
            machine.feed(token)

    def feed_again() -> None:
        feed((again * 1000)[:1000])

    feed(first)
    feed_again()
    early = work(feed_again)
    for _ in range(MANY // 1000):
        feed_again()
        assert text_size(vars(machine)) < 2000
    assert work(feed_again) <= 1.2 * early

    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(10):
            feed_again()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 40_000, "four bytes a token"
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["body", "messages", "header"])
def test_work_of_a_stream_is_constant_a_token(name):
    """With the count of the reasoning tokens after each piece, which vLLM asks for when usage is continuous."""
    first, again = ENDLESS[name]
    request = CHAT["tools"]
    parser = chat_parser(request)
    parser.parse_delta("", first, request, finished=False)
    tokens = list(first)

    def feed() -> None:
        for token in (again * 500)[:500]:
            parser.parse_delta("", [token], request, finished=False)
            tokens.append(token)
            parser.count_reasoning_tokens(tokens)

    feed()
    early = work(feed)
    for _ in range(20):
        feed()
    assert work(feed) <= 1.2 * early


def test_work_of_responses_is_constant_a_token():
    request = RESPONSES["tools"]
    parser = responses_parser(request)
    first, again = ENDLESS["body"]
    parser.process_chunk(first)

    def feed() -> None:
        for token in again * 500:
            parser.process_chunk([token])

    feed()
    early = work(feed)
    for _ in range(20):
        feed()
    assert work(feed) <= 1.2 * early
