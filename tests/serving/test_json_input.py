"""The text of a custom tool's call, while its JSON comes in."""

import json

import pytest

from vllm_gptoss.serving.json_input import InputText

TEXTS = ["", "plain", 'quoted "x" \\ back', "line\nbreak\ttab", "ü 中 😀", "\\u0041", '"}', "a" * 500]


def pieces(arguments: str, size: int) -> list[str]:
    text = InputText()
    return [text.feed(arguments[i : i + size]) for i in range(0, len(arguments), size)]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
@pytest.mark.parametrize("escaped", [True, False])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
def test_pieces_add_up_to_the_input(text, escaped, size):
    arguments = json.dumps({"input": text}, ensure_ascii=escaped)
    assert "".join(pieces(arguments, size)) == text
    spaced = f' {{ "input" : {json.dumps(text, ensure_ascii=escaped)} }}'
    assert "".join(pieces(spaced, size)) == text


def test_text_comes_as_soon_as_it_is_known():
    assert pieces('{"input":"abc"}', 1)[10:13] == ["a", "b", "c"]


def test_a_line_break_that_is_not_escaped_is_one():
    assert "".join(pieces('{"input":"a\nb"}', 4)) == "a\nb"


@pytest.mark.parametrize(
    "arguments", ['{"command":"ls"}', "ls -l", '["input"]', '{"input": 5}', "", '{"input":"\\ud83d, and no more"}']
)
def test_other_arguments_give_nothing(arguments):
    assert "".join(pieces(arguments, 3)) == ""


def test_what_is_broken_ends():
    text = InputText()
    assert text.feed('{"input":"ab\\x') == "ab"
    assert text.feed("cd, and more that is no JSON") == ""
    assert text.feed('e"}') == ""
