"""The parts of an answer: which recipients are calls, what their arguments are, and what counts as reasoning."""

import pytest
from spelling import THOUGHT as T
from spelling import spell

from vllm_gptoss.parsers.answer import Answer, Done, Kind, Offer, Part, Piece

OFFER = Offer(frozenset(("f", "get_weather", "tojson")), frozenset(("python", "browser")))


def read(stream: str | list[int], offer: Offer = OFFER) -> tuple[list[Part], Answer]:
    """The parts that are done."""
    answer = Answer(offer)
    pieces = [*answer.feed(spell(stream) if isinstance(stream, str) else stream), *answer.finish()]
    return [piece.part for piece in pieces if isinstance(piece, Done)], answer


def call(body: str, header: str = "<|channel|>commentary to=functions.f <|constrain|>json") -> tuple[Part, list[str]]:
    (part,), answer = read(f"{header}<|message|>{body}")
    return part, answer.repairs


@pytest.mark.parametrize(
    ("recipient", "resolved"),
    [
        ("functions.f", "functions.f"),
        ("f", "functions.f"),
        ("functions.fjson", "functions.f"),
        ("fcode", "functions.f"),
        ("functions.tojson", "functions.tojson"),
        ("functions.to", None),
        ("functions.g", None),
        ("functions.F", None),
        ("functions.", None),
        ("f.f", None),
        ("get_weathe", None),
        ("get_weatherr", None),
        ("python", "python"),
        ("browser.search", "browser.search"),
        ("browserx.search", None),
        ("container.exec", None),
        ("functions.python", None),
    ],
)
def test_resolve(recipient, resolved):
    assert OFFER.resolve(recipient) == resolved


def test_nothing_is_offered():
    assert Offer().resolve("functions.f") is None
    assert Offer().resolve("python") is None


@pytest.mark.parametrize("body", ["<|call|>", " <|call|>", "\n\t <|call|>", "<|end|>", "<|start|>assistant"])
def test_no_arguments(body):
    part, _ = call(body)
    assert part.text == "{}"


@pytest.mark.parametrize("body", ["", " ", "\n"])
def test_no_arguments_yet(body):
    """A call that is cut here has none: `{}` would be made up."""
    part, repairs = call(body)
    assert part.text == ""
    assert part.cut
    assert repairs == []


def test_space_in_front_of_arguments_is_kept():
    """It comes with what follows; only when nothing does, it is nothing."""
    part, repairs = call(' \n {"a": 1} <|call|>')
    assert part.text == ' \n {"a": 1} '
    assert repairs == []


def test_a_call_is_announced_with_its_header():
    """A client sees the name before the first letter of the arguments."""
    answer = Answer(OFFER)
    (piece,) = answer.feed(spell("<|channel|>commentary to=functions.f <|constrain|>json<|message|>"))
    assert isinstance(piece, Piece)
    assert (piece.part.function, piece.text) == ("f", "")


@pytest.mark.parametrize(
    ("content_type", "is_counted"),
    [(" <|constrain|>json", True), (" json", True), ("", True), (" code", False), (" <|constrain|>lark", False)],
)
def test_arguments_that_are_not_json_are_counted(content_type, is_counted):
    """Where JSON is what was to come; without a type it is."""
    part, repairs = call("print(1)<|call|>", f"<|channel|>commentary to=functions.f{content_type}")
    assert part.text == "print(1)"
    assert repairs == ["invalid_json"] * is_counted


@pytest.mark.parametrize("body", ['{"a": 1}', '{"a": 1e400}', "[]", '"x"', "{}"])
def test_json_is_not_counted(body):
    part, repairs = call(f"{body}<|call|>")
    assert part.text == body
    assert repairs == []


def test_arguments_nested_too_deep_to_check():
    """Python's reader gives up; the text is passed on."""
    part, _ = call("[" * 5_000 + "<|call|>")
    assert part.text == "[" * 5_000


@pytest.mark.parametrize("body", ["", '{"a"', '{"a": 1}'])
def test_a_cut_call_is_cut_and_not_checked(body):
    part, repairs = call(body)
    assert part.kind is Kind.CALL
    assert part.cut
    assert repairs == []


def test_a_call_that_is_closed_is_not_cut():
    for end in ("<|call|>", "<|end|>", "<|return|>", "<|start|>assistant"):
        part, _ = call('{"a": 1}' + end)
        assert not part.cut


def test_messages_without_text_are_none():
    stream = "<|channel|>analysis<|message|><|end|><|start|>assistant<|channel|>final<|message|><|return|>"
    assert read(stream)[0] == []


def test_the_kinds():
    stream = (
        f"{T}<|channel|>commentary<|message|>I look.<|end|>"
        "<|start|>assistant<|channel|>commentary to=f<|message|>{}<|call|>"
        "<|start|>assistant<|channel|>analysis to=browser.search code<|message|>{}<|call|>"
        "<|start|>assistant<|channel|>analysis to=container.exec<|message|>ls<|call|>"
        "<|start|>assistant<|channel|>final<|message|>Hi<|return|>"
    )
    parts, _ = read(stream)
    assert [(part.kind, part.channel, part.recipient, part.text, part.is_final) for part in parts] == [
        (Kind.REASONING, "analysis", None, "t", False),
        (Kind.CONTENT, "commentary", None, "I look.", False),
        (Kind.CALL, "commentary", "functions.f", "{}", False),
        (Kind.CALL, "analysis", "browser.search", "{}", False),
        (Kind.CONTENT, "final", None, "ls", False),
        (Kind.CONTENT, "final", None, "Hi", True),
    ]
    assert [part.function for part in parts] == [None, None, "f", "browser.search", None, None]


THINKS = "Let me think 🌧️ about it"


@pytest.mark.parametrize(
    ("stream", "count"),
    [
        (f"<|channel|>analysis<|message|>{THINKS}<|end|>", len(spell(THINKS))),
        (f"<|channel|>analysis<|message|>{THINKS}", len(spell(THINKS))),
        (f"<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>analysis<|message|>{THINKS}", None),
        (f"<|channel|>commentary<|message|>{THINKS}<|end|>", 0),
        (f"<|channel|>final<|message|>{THINKS}<|end|>", 0),
        (f"<|channel|>commentary to=functions.f<|message|>{THINKS}<|call|>", 0),
        (f"<|channel|>analysis to=functions.f<|message|>{THINKS}<|call|>", 0),
        (f"<|channel|>analysis to=python code<|message|>{THINKS}<|call|>", 0),
        (f"<|channel|>analysis to=container.exec<|message|>{THINKS}<|call|>", 0),
        ("<|channel|>analysis<|message|><|end|><|start|>assistant<|channel|>final<|message|>Hi", 0),
        ("<|channel|>analysis<|message|>a<|message|><|constrain|>b<|end|>", 2),
    ],
)
def test_reasoning_tokens_are_those_of_its_bodies(stream, count):
    """No header, no control token, no call."""
    count = len(spell(THINKS)) + 1 if count is None else count
    assert read(stream)[1].reasoning_tokens == count


@pytest.mark.parametrize("token", [-1, 200014, 201089])
def test_ids_without_a_meaning_are_no_reasoning(token):
    tokens = [*spell("<|channel|>analysis<|message|>a"), token, *spell("b<|end|>")]
    assert read(tokens)[1].reasoning_tokens == 2


def test_all_tokens_are_counted():
    tokens = spell(f"{T}<|channel|>final<|message|>Hi<|return|>")
    assert read(tokens)[1].tokens == len(tokens)


def test_half_a_letter_at_the_end_of_a_message_stays_in_it():
    """Its bytes must not wait for those of the next message."""
    tokens = [*spell("<|channel|>analysis<|message|>a"), 9552, *spell("<|end|><|start|>assistant")]
    tokens += [*spell("<|channel|>final<|message|>"), 244, *spell("b")]
    assert [part.text for part in read(tokens)[0]] == ["a \ufffd", "\ufffdb"]
