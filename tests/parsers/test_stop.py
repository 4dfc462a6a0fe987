"""Stop strings: found in the final answer alone, in pieces of any size, just as vLLM finds them in plain text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spelling import THOUGHT as T
from spelling import encoding, spell
from vllm.sampling_params import SamplingParams
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.detokenizer import BaseIncrementalDetokenizer

from vllm_gptoss.parsers.answer import Answer, Offer, Piece
from vllm_gptoss.parsers.stop import StopStrings


def fed(stop: StopStrings, *pieces: str) -> list[str]:
    """What is let through at each piece, and at the end."""
    return [stop.feed(piece, number) for number, piece in enumerate(pieces, 1)] + [stop.flush()]


def test_over_many_pieces():
    stop = StopStrings(["STOP"])
    assert fed(stop, "a S", "T", "O", "P b", "c") == ["", "a", " ", "", "", ""]
    assert stop.hit == "STOP"


def test_within_one_piece():
    assert fed(StopStrings(["STOP"]), "a STOP b", "c") == ["a ", "", ""]


def test_nothing_is_lost_where_none_matches():
    assert "".join(fed(StopStrings(["STOP", "\n\n"]), "STO", "\n", "ST", "OX")) == "STO\nSTOX"


def test_no_more_is_held_back_than_a_match_may_need():
    stop = StopStrings(["abcd", "xy"])
    assert stop.feed("123456", 1) == "123"
    assert StopStrings(["a"]).feed("123", 1) == "123"


def test_nothing_comes_behind_a_match():
    stop = StopStrings(["."])
    assert fed(stop, "a.", "b", ".") == ["a", "", "", ""]


def test_the_one_that_is_complete_first():
    """It need not be the one that begins first."""
    stop = StopStrings(["abc", "b"])
    assert fed(stop, "xabc") == ["xa", ""]
    assert stop.hit == "b"


def test_of_two_that_end_together_the_first_in_the_list():
    assert fed(StopStrings(["bc", "abc"]), "xabc") == ["xa", ""]
    assert fed(StopStrings(["abc", "bc"]), "xabc") == ["x", ""]


def test_an_early_piece_decides():
    """A longer string that would begin earlier comes too late."""
    stop = StopStrings(["abcd", "bc"])
    assert "".join(fed(stop, "ab", "c", "d")) == "a"


def test_keep():
    stop = StopStrings(["STOP"], keep=True)
    assert "".join(fed(stop, "a ST", "OP b")) == "a STOP"


@pytest.mark.parametrize(("min_tokens", "shown"), [(0, "a"), (1, "a.b"), (2, "a.b.c"), (3, "a.b.c.d"), (9, "a.b.c.d")])
def test_min_tokens(min_tokens, shown):
    """A match that such a token completes does not count, nor does it later."""
    assert "".join(fed(StopStrings(["."], min_tokens=min_tokens), "a.", "b.", "c.", "d")) == shown


def test_min_tokens_end_within_a_match():
    """What counts is the token that completes it."""
    assert "".join(fed(StopStrings(["STOP"], min_tokens=1), "a ST", "OP b")) == "a "
    assert "".join(fed(StopStrings(["STOP"], min_tokens=2), "a ST", "OP b")) == "a STOP b"


def test_empty_strings_are_none():
    assert "".join(fed(StopStrings(["", "."]), "a", "b.c")) == "ab"
    assert "".join(fed(StopStrings([""]), "a", "b")) == "ab"


class PlainText(BaseIncrementalDetokenizer):
    """vLLM's own search, over tokens whose text is given."""

    def __init__(self, pieces: list[str], params: SamplingParams) -> None:
        super().__init__(EngineCoreRequest("", [1], None, params, None, 0.0, None, None, None))
        self.pieces = pieces

    def decode_next(self, next_token_id: int) -> str:
        return self.pieces[next_token_id]


@settings(max_examples=500, deadline=None, database=None)
@given(
    st.lists(st.text("ab\n", max_size=3), max_size=8),
    st.lists(st.text("ab\n", min_size=1, max_size=4), min_size=1, max_size=3),
    st.booleans(),
    st.integers(0, 3),
)
def test_the_same_as_vllm(pieces, strings, keep, min_tokens):
    params = SamplingParams(
        stop=strings, include_stop_str_in_output=keep, min_tokens=min_tokens, max_tokens=99, detokenize=True
    )
    theirs = PlainText(pieces, params)
    hit = None
    for token in range(len(pieces)):
        if (hit := theirs.update([token], False)) is not None:
            break
    ours = StopStrings(strings, keep=keep, min_tokens=min_tokens)
    assert "".join(fed(ours, *pieces)) == theirs.output_text
    assert ours.hit == hit


# In an answer


def shown(stream: str, stop: StopStrings, *, functions: tuple[str, ...] = ()) -> list[str]:
    answer = Answer(Offer(frozenset(functions)), stop)
    texts: dict[int, list[str]] = {}
    for piece in [*answer.feed(spell(stream)), *answer.finish()]:
        if isinstance(piece, Piece):
            texts.setdefault(id(piece.part), []).append(piece.text)
    return ["".join(pieces) for pieces in texts.values()]


def test_the_answer_ends():
    stop = StopStrings(["STOP"])
    assert shown(f"{T}<|channel|>final<|message|>One STOP two<|end|>{NEXT}", stop) == ["t", "One "]


NEXT = "<|start|>assistant<|channel|>final<|message|>more<|return|>"


@pytest.mark.parametrize(
    "message",
    [
        "<|channel|>analysis<|message|>a STOP b<|end|>",
        "<|channel|>commentary<|message|>a STOP b<|end|>",
        "<|channel|>commentary to=functions.f<|message|>a STOP b<|call|>",
        "<|channel|>final to=functions.f<|message|>a STOP b<|call|>",
        "<|channel|>analysis to=python code<|message|>a STOP b<|call|>",
    ],
)
def test_only_the_answer_is_searched(message):
    stop = StopStrings(["STOP"])
    stream = f"{message}<|start|>assistant<|channel|>final<|message|>Hi STOP there"
    assert shown(stream, stop, functions=("f",)) == ["a STOP b", "Hi "]


def test_an_answer_without_a_channel_is_searched():
    assert shown(f"{T}<|message|>Hi STOP there", StopStrings(["STOP"])) == ["t", "Hi "]


@pytest.mark.parametrize("end", ["<|return|>", "<|end|>", "", NEXT])
def test_an_answer_without_a_message_token_is_searched(end):
    """Its text comes all at once, with the end of the message."""
    assert shown(f"{T}<|channel|>final Hi STOP there{end}", StopStrings(["STOP"])) == ["t", "Hi "]


def test_what_is_held_back_comes_with_the_end():
    """Whether that is there, is missing, or is cut."""
    for end in ("<|return|>", NEXT, ""):
        assert shown(f"<|channel|>final<|message|>Hi ST{end}", StopStrings(["STOP"]))[0] == "Hi ST"


def test_a_match_does_not_reach_over_two_messages():
    stream = "<|channel|>final<|message|>a ST<|end|><|start|>assistant<|channel|>final<|message|>OP b<|return|>"
    assert shown(stream, StopStrings(["STOP"])) == ["a ST", "OP b"]


def test_an_answer_that_stopped_is_complete():
    """It is not cut, whatever the engine generates until it is told to end."""
    answer = Answer(Offer(), StopStrings(["STOP"]))
    (*_, done) = answer.feed(spell("<|channel|>final<|message|>Hi STOP the"))
    assert done.part.text == "Hi "
    assert not done.part.cut
    assert answer.feed(spell("re<|end|><|start|>assistant<|channel|>analysis<|message|>t")) == []
    assert answer.finish() == []
    assert answer.reasoning_tokens == 0
    assert answer.repairs == []


def test_min_tokens_count_all_tokens():
    """Reasoning and headers too, as the engine counts."""
    stream = "<|channel|>final<|message|>a.b.c."
    assert [encoding().decode([token]) for token in spell(stream)[3:]] == ["a", ".b", ".c", "."]
    assert shown(stream, StopStrings(["."], min_tokens=5)) == ["a.b"]
    assert shown(stream, StopStrings(["."], min_tokens=4)) == ["a"]
