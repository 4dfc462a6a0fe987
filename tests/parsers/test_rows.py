"""Malformed output as models write it: what is generated, and what the user gets; sections 1 and 2 of the table.

Each row stands for a class, so each test has a row and its relatives. `T` is a message of reasoning that reads `t`
and the `<|start|>assistant` behind it.
"""

import re

import pytest
from spelling import THOUGHT as T
from spelling import in_letters, spell, spell_plain
from views import (
    Said,
    Turn,
    chat_request,
    everywhere,
    parsed,
    parts_of,
    responses_request,
    said,
    streamed,
)

from vllm_gptoss.parsers.answer import Kind, Offer

FUNCTIONS = ("f", "g", "get_weather", "web-browsing")
OFFER = Offer(frozenset(FUNCTIONS))
END, RETURN, CALL = "<|end|>", "<|return|>", "<|call|>"
ENDS = ("<|return|>", "<|end|>", "<|call|>", "<|endoftext|>", "")
NEXT = "<|start|>assistant<|channel|>final<|message|>More<|return|>"
ONE = '{"a":1}'


def check(stream: str | list[int], turn: Turn, *, repaired: bool = True) -> None:
    """All surfaces show `turn`, no control token is in it, and an operator sees that there was a repair."""
    tokens = spell(stream) if isinstance(stream, str) else stream
    assert everywhere(tokens, *FUNCTIONS) == turn
    assert bool(parts_of(tokens, OFFER)[1]) == repaired
    for length in range(len(tokens)):
        check_cut(tokens[:length], turn)


def check_cut(tokens: list[int], turn: Turn) -> None:
    """What max_tokens leaves of a turn: clean, and of reasoning and calls the beginning."""
    request = chat_request(*FUNCTIONS)
    cut = parsed(tokens, request)
    assert streamed(tokens, request) == cut
    assert "<|" not in repr(cut)
    assert (turn.reasoning or "").startswith(cut.reasoning or "")
    for (name, arguments), (cut_name, cut_arguments) in zip(turn.calls, cut.calls, strict=False):
        assert name == cut_name
        assert arguments.startswith(cut_arguments.rstrip("\ufffd"))  # half a letter


def streams(*pairs: str | tuple):
    return pytest.mark.parametrize("stream", pairs)


def thought_and(content: str | None = None, *calls: tuple[str, str]) -> Turn:
    return Turn("t", content, calls)


HI = thought_and("Hi")


# Section 1: nothing visible is lost, no control token is shown


@pytest.mark.parametrize("end", ENDS)
def test_no_channel(end):
    check(f"{T}<|message|>I'm sorry{end}", thought_and("I'm sorry"))


@streams("<|message|>Hi<|return|>", " <|message|>Hi<|return|>", "<|start|>assistant<|message|>Hi<|return|>")
def test_no_channel_in_the_first_message(stream):
    check(stream, Turn(content="Hi"))


@streams(
    f"{T} to=functions.f<|message|>{ONE}<|call|>",
    f"{T} to=functions.f <|constrain|>json<|message|>{ONE}<|call|>",
    f"{T} to=f<|message|>{ONE}<|call|>",
)
def test_no_channel_but_a_recipient(stream):
    check(stream, thought_and(None, ("f", ONE)))


@streams(
    "<|end|><|channel|>final<|message|>Hi<|return|>",
    "<|end|>assistant<|channel|>final<|message|>Hi<|return|>",
    "<|end|>\n<|channel|>final<|message|>Hi<|return|>",
    "<|end|><|channel|>commentary<|message|>Hi<|return|>",
    "<|end|><|message|>Hi<|return|>",
    "<|return|><|channel|>final<|message|>Hi<|return|>",
    "<|call|><|channel|>final<|message|>Hi<|return|>",
)
def test_no_start(stream):
    check(f"<|channel|>analysis<|message|>t{stream}", HI)


@streams("Hi", " Hi", "\nHi", "assistantHi", "assistant Hi", "assistantfinalHi", "assistant\nfinal\nHi")
@pytest.mark.parametrize("end", ENDS)
def test_text_behind_an_end(stream, end):
    shown = re.sub("assistant|final", "", stream).strip()
    check(f"<|channel|>analysis<|message|>t<|end|>{stream}{end}", thought_and(shown))


@streams("Hi <|message|>there", "So, Hi<|message|> there", "tell me: <|message|>more")
def test_words_among_the_header_are_text(stream):
    """Only a lone word can be a misspelt one."""
    turn = everywhere(spell(f"{T}<|channel|>final Well, {stream}<|return|>"), *FUNCTIONS)
    assert turn.content.startswith("Well, ")
    assert turn.content.split() == ["Well,", *stream.replace("<|message|>", "").split()]


@streams("user input is needed", "system and user agree", "tool use is hard", "developer time is short")
def test_text_behind_an_end_that_begins_like_a_role(stream):
    """Nothing says that a header begins here, so the word is one of the sentence."""
    check(f"<|channel|>analysis<|message|>t<|end|>{stream}<|return|>", thought_and(stream))


@streams(
    "<|start|>assistant<|channel|>final",
    "<|start|><|start|>assistant<|channel|>final",
    "<|start|>assistant<|start|>assistant<|start|>assistant<|channel|>final",
    "assistant<|channel|>final",
    " assistant<|channel|>final",
    "assistantassistant<|channel|>final",
    "<|channel|>final<|channel|>final",
    "<|channel|>finalfinal",
    "<|channel|>assistant<|channel|>final",
    "final<|channel|>final",
)
def test_doubled_start_role_or_channel(stream):
    check(f"{T}{stream}<|message|>Hi<|return|>", HI)
    check(f"{stream}<|message|>Hi<|return|>", Turn(content="Hi"))


@streams("<|channel|>analysis<|channel|>final", "<|channel|>analysisfinal", "<|channel|>commentary<|channel|>final")
def test_of_two_channels_the_later(stream):
    """That is where the model went on."""
    check(f"{T}{stream}<|message|>Hi<|return|>", HI)


MISSPELT = ("comment", "commentary?", "", " ", "Final", "FINAL", "finale", "final:", "fin", "reply", "answer", "...")


@pytest.mark.parametrize("channel", MISSPELT)
def test_unknown_missing_or_misspelt_channel(channel):
    check(f"{T}<|channel|>{channel}<|message|>Hi<|return|>", HI)
    check(f"<|channel|>{channel}<|message|>Hi<|return|>", Turn(content="Hi"))


@streams(" final", "\nfinal", "final ", "final\n")
def test_space_around_the_channel(stream):
    """Nothing has to be repaired: the library takes no offence at the space behind it either."""
    tokens = spell(f"{T}<|channel|>{stream}<|message|>Hi<|return|>")
    assert everywhere(tokens) == HI


@pytest.mark.parametrize("channel", ["analys", "analysiss", "Analysis", "analysis?"])
def test_misspelt_analysis_is_kept(channel):
    """Whether as reasoning or as content is a guess; it is not lost, and not shown twice."""
    turn = everywhere(spell(f"<|channel|>{channel}<|message|>Hi<|end|>{NEXT}"))
    assert (turn.reasoning or "").count("Hi") + turn.content.count("Hi") == 1


@pytest.mark.parametrize("channel", ["comment", "commentary?", "answer", "", "tool"])
def test_misspelt_channel_of_a_call(channel):
    check(f"{T}<|channel|>{channel} to=functions.f<|message|>{ONE}<|call|>", thought_and(None, ("f", ONE)))


@streams(
    " to=functions.f<|channel|>commentary to=functions.f <|constrain|>json",
    " to=functions.f to=functions.f<|channel|>commentary json",
    "<|channel|>commentary to=functions.f to=functions.f",
    "<|channel|>commentary to=functions.f<|channel|>commentary to=functions.f",
    "<|channel|>commentary to=functions.f <|constrain|>json to=functions.f",
    " to=functions.f<|channel|>commentary to=functions.f to=functions.f",
    " to=functions.f<|channel|>commentary to=functions.g",
    "<|channel|>commentary to=functions.f to=g code",
)
def test_doubled_recipient_is_the_first(stream):
    check(f"{T}{stream}<|message|>{ONE}<|call|>", thought_and(None, ("f", ONE)))


@streams(
    "<|channel|>commentary json to=functions.web-browsing",
    "<|channel|>commentary code to=functions.web-browsing",
    "<|channel|>analysis json to=functions.web-browsing",
    "<|channel|>commentary json to=web-browsing",
    "<|channel|>commentaryjson to=functions.web-browsing",
    "<|channel|>commentary <|constrain|>json to=functions.web-browsing",
    " json to=functions.web-browsing<|channel|>commentary",
)
def test_content_type_in_front_of_the_recipient(stream):
    """vllm-project/vllm#51977"""
    check(f"{T}{stream}<|message|>{ONE}<|call|>", thought_and(None, ("web-browsing", ONE)))


@streams(
    "<|channel|>commentary to=functions.fjson",
    "<|channel|>commentary to=functions.fcode",
    "<|channel|>commentary to=fjson",
    "<|channel|>commentaryto=functions.f json",
    "commentary to=functions.f<|channel|>commentary",
    " to=functions.f<|channel|>commentary<|channel|>json",
)
def test_glued_words(stream):
    check(f"{T}{stream}<|message|>{ONE}<|call|>", thought_and(None, ("f", ONE)))


@pytest.mark.parametrize("behind", [" json", " code", "<|constrain|>json", " <|constrain|>json", ""])
def test_content_type_in_its_place(behind):
    stream = f"<|channel|>commentary to=functions.f{behind}<|message|>{ONE}<|call|>"
    check(T + stream, thought_and(None, ("f", ONE)), repaired=False)


@pytest.mark.parametrize("name", ["f_json", "jsonf", "to_json"])
def test_names_that_contain_a_content_type(name):
    """Only what is glued to an offered name is cut off."""
    tokens = spell(f"<|channel|>commentary to=functions.{name}<|message|>{ONE}<|call|>")
    assert everywhere(tokens, name, "f") == Turn(calls=((name, ONE),))


@streams(
    "<|channel|>commentary to=functions.g",
    "assistant<|channel|>commentary to=functions.g",
    "assistant to=functions.g<|channel|>commentary",
    " to=functions.g<|channel|>commentary",
    "to=functions.g<|channel|>commentary json",
    " to=functions.g",
    "<|channel|>commentary<|channel|>commentary to=functions.g",
)
def test_second_call_without_a_start(stream):
    first = f"<|channel|>commentary to=functions.f<|message|>{ONE}<|call|>"
    second = f"{stream}<|message|>{{}}<|call|>"
    check(T + first + second, thought_and(None, ("f", ONE), ("g", "{}")))


def test_three_calls_without_starts_keep_their_order():
    calls = "".join(f'<|channel|>commentary to=functions.g<|message|>{{"n":{n}}}<|call|>' for n in range(3))
    check(calls, Turn(calls=tuple(("g", f'{{"n":{n}}}') for n in range(3))))


SORRY = "I'm sorry, but I can't help with that."


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(
    ("header", "turn"),
    [
        ("<|channel|>final ", thought_and(SORRY)),
        ("<|channel|>final\n", thought_and(SORRY)),
        ("<|channel|>final", thought_and(SORRY)),
        ("<|channel|>commentary ", thought_and(SORRY)),
        ("<|channel|>analysis ", Turn(f"t\n{SORRY}")),
        ("<|channel|>", thought_and(SORRY)),
        (" ", thought_and(SORRY)),
    ],
)
def test_no_message_token(header, turn, end):
    """The refusal of 120b: the header runs on into the answer."""
    check(f"{T}{header}{SORRY}{end}", turn)


@streams(NEXT, "<|channel|>final<|message|>More<|return|>", f"<|end|>{NEXT}", f"<|return|>{NEXT}")
def test_no_message_token_and_another_message(stream):
    check(f"{T}<|channel|>final {SORRY}{stream}", thought_and(f"{SORRY}\nMore"))
    check(f"<|channel|>analysis I think{stream}", Turn("I think", "More"))


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("words", ["I'm sorry, no", "Hello", "Hi there you", "no way"])
def test_no_message_token_behind_a_content_type(words, end):
    check(f"{T}<|channel|>final <|constrain|>json {words}{end}", thought_and(words))


@pytest.mark.parametrize(
    "text",
    [
        "json is a format",
        "code: print(1)",
        "text me later",
        "to be or not to be",
        "users ask, tools answer",
        "user input is needed",
        "Final answer: 5",
        "finally done",
        "analyses differ",
        "functions are first class",
        "assistants help",
    ],
)
def test_no_message_token_and_text_like_a_header(text):
    check(f"{T}<|channel|>final {text}<|return|>", thought_and(text))


@pytest.mark.parametrize("end", ENDS)
@streams(
    "<|channel|>commentary to=functions.f ",
    "<|channel|>commentary to=functions.f",
    "<|channel|>commentary to=functions.f json",
    "<|channel|>commentary to=functions.f code ",
    "<|channel|>commentary to=functions.f <|constrain|>json",
    "<|channel|>commentary to=functions.f <|constrain|>json ",
    " to=functions.f<|channel|>commentary",
    " to=functions.f<|channel|>commentary json",
    " to=functions.f",
)
def test_no_message_token_in_a_call(stream, end):
    check(f"{T}{stream}{ONE}{end}", thought_and(None, ("f", ONE)))


def test_a_long_text_without_a_message_token():
    """It is shown as it comes once it is longer than a header can be."""
    text = " ".join(f"w{number}" for number in range(100, 300))
    check(f"{T}<|channel|>final {text}<|return|>", thought_and(text))
    tokens = spell(f"{T}<|channel|>final {text}")
    assert len(streamed(tokens, chat_request()).content) > 500
    machine_words = parts_of(tokens[:-100], Offer())[0][-1].text.split()
    assert text.split()[: len(machine_words)] == machine_words


HEADERS = (
    "<|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json",
    "<|start|>assistant to=functions.get_weather<|channel|>commentary <|constrain|>json",
    "<|start|>assistant<|channel|>analysis to=functions.get_weather code",
    "<|start|>assistant<|channel|>final",
    "<|channel|>commentary to=functions.get_weather json",
    " to=functions.get_weather<|channel|>commentary json",
)


def places(header: str) -> list[str]:
    """The header cut behind every letter, but not within a control token."""
    whole = set().union(*(range(found.start() + 1, found.end()) for found in re.finditer(r"<\|\w+\|>", header)))
    return [header[:end] for end in range(len(header) + 1) if end not in whole]


@pytest.mark.parametrize("header", HEADERS)
def test_cut_inside_a_header(header):
    """Nothing of it is shown; the finish reason, which is the engine's, says `length`."""
    chat, responses = chat_request(*FUNCTIONS), responses_request(*FUNCTIONS)
    for cut in places(header):
        tokens = spell(f"<|channel|>analysis<|message|>t<|end|>{cut}")
        assert parsed(tokens, chat) == Turn("t"), cut
        assert streamed(tokens, chat) == Turn("t"), cut
        assert said(tokens, responses) == [Said("analysis", None, "t")], cut


@streams(
    "<|start|>assistant<|channel|>final<|message|>",
    "<|start|><|channel|>final<|message|>",
    "<|channel|>final<|message|>",
    "<|channel|>commentary<|message|>",
    "<|start|>assistant<|message|>",
    "<|start|>assistant<|channel|><|message|>",
    "<|start|>assistant<|channel|>final ",
)
def test_no_end_between_reasoning_and_answer(stream):
    check(f"<|channel|>analysis<|message|>t{stream}Hi<|return|>", HI)


def test_no_end_between_reasoning_and_call():
    stream = f"<|channel|>analysis<|message|>t<|start|>assistant<|channel|>commentary to=functions.f<|message|>{ONE}"
    check(stream, thought_and(None, ("f", ONE)))
    stream = f"<|channel|>analysis<|message|>t<|channel|>commentary to=functions.f<|message|>{ONE}<|call|>"
    check(stream, thought_and(None, ("f", ONE)))


@streams(
    "H<|message|>i",
    "Hi<|constrain|>",
    "Hi<|end|><|end|>",
    "Hi<|return|><|return|>",
    "<|message|>Hi",
    "Hi<|reserved_200014|>",
    "Hi<|end|><|constrain|>",
)
def test_a_control_token_where_it_does_nothing(stream):
    check(f"{T}<|channel|>final<|message|>{stream}<|return|>", HI)


@pytest.mark.parametrize("token", [-1, 199998, 201088, 201089, 10**9])
@pytest.mark.parametrize("place", range(9))
def test_an_id_without_a_meaning(token, place):
    tokens = spell("<|channel|>analysis<|message|>t<|end|><|start|>assistant<|channel|>final<|message|>Hi<|return|>")
    tokens.insert(place, token)
    assert everywhere(tokens) == HI
    assert parts_of(tokens, OFFER)[1] == ["stray"]


def test_control_tokens_as_plain_text_stay():
    """A user may ask for them, and models quote them."""
    tokens = [*spell("<|channel|>final<|message|>Write "), *spell_plain("<|end|> and <|start|>"), *spell("<|return|>")]
    assert everywhere(tokens) == Turn(content="Write <|end|> and <|start|>")


IN_LETTERS = (
    ("<|constrain|>",),
    ("<|message|>",),
    ("<|channel|>",),
    ("<|constrain|>", "<|message|>"),
    ("<|channel|>", "<|constrain|>", "<|message|>"),
)


@pytest.mark.parametrize("spelt", IN_LETTERS)
@streams(
    "<|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>",
    "<|start|>assistant to=functions.f<|channel|>commentary <|constrain|>json<|message|>",
)
def test_control_tokens_of_a_header_in_letters(stream, spelt):
    """A grammar that names a control token lets a model write it so."""
    tokens = spell("<|channel|>analysis<|message|>t<|end|>") + in_letters(stream, *spelt)
    assert everywhere([*tokens, *spell(f"{ONE}<|call|>")], *FUNCTIONS) == thought_and(None, ("f", ONE))
    assert "spelt" in parts_of(tokens, OFFER)[1]


def test_cut_inside_a_control_token_in_letters():
    """Nothing of the header is shown."""
    letters = " <|constrain|>json<|message|>"
    for end in range(1, len(letters)):
        header = spell("<|channel|>commentary to=functions.f") + spell_plain(letters[:end])
        assert parsed(header, chat_request(*FUNCTIONS)) == Turn(), letters[:end]


def test_control_tokens_in_letters_in_a_body_stay():
    for text in ("<|message|>", "a <|channel|>b", "<|constrain|>json<|message|>"):
        tokens = [*spell("<|channel|>final<|message|>"), *spell_plain(text), *spell("<|return|>")]
        assert everywhere(tokens) == Turn(content=text)


@pytest.mark.parametrize("role", ["user", "system", "developer"])
def test_another_role_is_shown(role):
    """A model that plays the user: what it says is not lost, and counted."""
    check(f"{T}<|channel|>final<|message|>Hi<|end|><|start|>{role}<|message|>Go on<|end|>", thought_and("Hi\nGo on"))


def test_a_message_to_the_assistant_itself():
    """It has a channel, and that says what it is."""
    check(" to=assistant<|channel|>analysis<|message|>t<|end|><|start|>assistant<|channel|>final<|message|>Hi", HI)
    check(f"{T} to=assistant<|channel|>final<|message|>Hi<|return|>", HI)
    check("<|channel|>analysis to=assistant<|message|>t<|end|><|start|>assistant<|channel|>final<|message|>Hi", HI)


# Section 2: calls are real calls


@streams(
    " final<|message|>Hi",
    "final<|message|>Hi",
    "<|channel|>final to=user<|message|>Hi",
    "<|channel|>final to=assistant<|message|>Hi",
    "<|channel|>final to=final<|message|>Hi",
    "<|channel|>commentary to=user<|message|>Hi",
    "<|channel|>commentary to=all<|message|>Hi",
    "<|channel|>final to=json<|message|>Hi",
    "<|channel|>final to=none<|message|>Hi",
    " to=user<|channel|>final<|message|>Hi",
)
@pytest.mark.parametrize("end", ENDS)
def test_a_message_to_the_user_is_content(stream, end):
    check(f"{T}{stream}{end}", HI)
    assert "not_offered" not in parts_of(spell(stream), OFFER)[1], "it calls nothing"


@streams("<|channel|>final json<|message|>{}", "<|channel|>final <|constrain|>json<|message|>{}")
def test_an_answer_in_json_is_content(stream):
    check(f"{T}{stream}<|return|>", thought_and("{}"), repaired=False)


@streams(
    "<|channel|>commentary to=functions.f <|constrain|>json<|message|>",
    "<|channel|>commentary to=functions.f<|message|>",
    "<|channel|>commentary to=functions.f<|message|> ",
    "<|channel|>commentary to=functions.f<|message|>\n\n",
)
def test_no_arguments(stream):
    check(f"{T}{stream}<|call|>", thought_and(None, ("f", "{}")), repaired=False)


@streams(
    "<|channel|>commentary to=functions.f",
    "<|channel|>commentary to=functions.f <|constrain|>json",
    " to=functions.f<|channel|>commentary json",
    " to=functions.f",
)
def test_no_arguments_and_no_message_token(stream):
    check(f"{T}{stream}<|call|>", thought_and(None, ("f", "{}")))


ARGUMENTS = (
    '{"big": 1e400, "small": 1e-400}',
    '{"n": 12345678901234567890123}',
    '{"x": 1.10, "y": 1E5, "z": -0}',
    '{"s": "Köln 🌧️ \\u00e9 \\/ \\n"}',
    '{"a": 1, "a": 2}',
    '{ "a" :\n  [1,2 , 3] }\n',
    ' \n{"a": 1}',
    '"text"',
    "null",
    "[1]",
)


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_arguments_are_the_models_own_text(arguments):
    check(
        f"{T}<|channel|>commentary to=functions.f <|constrain|>json<|message|>{arguments}<|call|>",
        thought_and(None, ("f", arguments)),
        repaired=False,
    )


@pytest.mark.parametrize(
    "arguments", ['{"a": 1', "{'a': 1}", '{"a": 1}}', "a=1", '{"a": NaN}', '{"a": -Infinity}', "x" * 500]
)
def test_arguments_that_are_not_json_are_passed_on_and_counted(arguments):
    stream = f"{T}<|channel|>commentary to=functions.f <|constrain|>json<|message|>{arguments}<|call|>"
    check(stream, thought_and(None, ("f", arguments)))
    assert parts_of(spell(stream), OFFER)[1] == ["invalid_json"]


UNOFFERED = ("functions.get_wether", "get_wether", "python", "browser.search", "container.exec", "server.tool.sub", "F")


@pytest.mark.parametrize("recipient", UNOFFERED)
@pytest.mark.parametrize("channel", ["commentary", "analysis", "final"])
def test_a_call_of_what_is_not_offered(recipient, channel):
    """Its text is the answer, so an answer is never empty (vllm-project/vllm#27385)."""
    for header in (f"<|channel|>{channel} to={recipient} code", f" to={recipient}<|channel|>{channel} code"):
        stream = f"{T}{header}<|message|>print(1)<|call|>"
        check(stream, thought_and("print(1)"))
        assert "not_offered" in parts_of(spell(stream), OFFER)[1]


@pytest.mark.parametrize("recipient", ["functions.f", "f", "python"])
def test_a_call_when_no_tool_is_offered(recipient):
    tokens = spell(f"{T}<|channel|>commentary to={recipient}<|message|>{ONE}<|call|>")
    assert everywhere(tokens) == thought_and(ONE)


@pytest.mark.parametrize("recipient", ["functions.get_wether", "python"])
def test_an_unoffered_call_without_arguments_is_no_empty_answer(recipient):
    turn = everywhere(spell(f"<|channel|>commentary to={recipient}<|message|><|call|>"), *FUNCTIONS)
    assert turn.content
    assert not turn.calls


def test_a_call_beside_an_unoffered_one():
    stream = (
        f"{T}<|channel|>commentary to=functions.get_wether<|message|>{{}}<|call|>"
        f"<|start|>assistant<|channel|>commentary to=functions.get_weather<|message|>{ONE}<|call|>"
    )
    check(stream, thought_and("{}", ("get_weather", ONE)))


@pytest.mark.parametrize(
    ("recipient", "tool"),
    [
        ("python", {"type": "code_interpreter", "container": {"type": "auto"}}),
        ("browser.search", {"type": "web_search_preview"}),
        ("browser.open", {"type": "web_search_preview"}),
    ],
)
def test_a_tool_of_the_server_is_called_when_responses_offers_it(recipient, tool):
    tokens = spell(f"<|channel|>analysis to={recipient} code<|message|>{ONE}<|call|>")
    assert said(tokens, responses_request(builtin=[tool])) == [Said("analysis", recipient, ONE)]
    assert said(tokens, responses_request("f")) == [Said("final", None, ONE)]


@streams(
    "<|start|>functions.f to=assistant<|channel|>commentary<|message|>",
    "<|start|>functions.f<|channel|>commentary to=assistant<|message|>",
    "<|start|>f to=assistant<|channel|>commentary<|message|>",
)
def test_a_made_up_result_of_a_tool_is_no_call(stream):
    """The second form is the one that the library renders into prompts."""
    call = f"<|channel|>commentary to=functions.f<|message|>{ONE}<|call|>"
    check(f"{T}{call}{stream}sunny<|end|>", thought_and("sunny", ("f", ONE)))


@pytest.mark.parametrize("length", range(len(ONE) + 1))
def test_arguments_cut_by_max_tokens(length):
    """Half of the JSON, the same on all surfaces; the part says that it is cut."""
    tokens = spell(f"<|channel|>commentary to=functions.f <|constrain|>json<|message|>{ONE[:length]}")
    assert everywhere(tokens, *FUNCTIONS) == Turn(calls=(("f", ONE[:length]),))
    (part,), repairs = parts_of(tokens, OFFER)
    assert part.kind is Kind.CALL
    assert part.cut
    assert repairs == []


def test_a_call_without_any_flag():
    """A bare `vllm serve`: no parser is named, and vLLM does not say that tools are on."""
    turn = parsed(spell(f"{T}<|channel|>commentary to=functions.f<|message|>{ONE}<|call|>"), chat_request("f"))
    assert turn == thought_and(None, ("f", ONE))
