"""The compiler of grammars with token ids: what is kept, and what must not get mixed up."""

import json

import xgrammar
from matching import VOCABULARY, allowed, compiler, ids

from vllm_gptoss.grammar import turn
from vllm_gptoss.grammar.compiler import HarmonyCompiler, vocabulary
from vllm_gptoss.model.config import END_TOKENS


def tag(*elements: turn.Format) -> str:
    return json.dumps({"type": "structural_tag", "format": turn.sequence(*elements)})


def test_grammars_that_differ_in_a_token_alone():
    """xgrammar's own memory gives the second the masks of the first."""
    for token in (200005, 200008):
        compiled = compiler().compile_structural_tag(tag(turn.text("a"), turn.token(token)))
        state = xgrammar.GrammarMatcher(compiled)
        assert state.accept_token(*ids("a"))
        assert allowed(state).nonzero()[0].tolist() == [token]


def test_a_grammar_is_compiled_once():
    again = tag(turn.text("once"), turn.TEXT)
    assert compiler().compile_structural_tag(again) is compiler().compile_structural_tag(again)


def test_the_oldest_grammar_goes_first():
    first, second, third = (tag(turn.text(str(number)), turn.TEXT) for number in range(3))
    size = compiler().compile_structural_tag(first).memory_size_bytes + len(first)
    bounded = HarmonyCompiler(VOCABULARY, list(END_TOKENS), int(size * 2.5))
    kept = {name: bounded.compile_structural_tag(name) for name in (first, second)}
    assert bounded.compile_structural_tag(first) is kept[first]
    bounded.compile_structural_tag(third)
    assert bounded.compile_structural_tag(first) is kept[first]
    assert bounded.compile_structural_tag(second) is not kept[second]


def test_a_grammar_larger_than_the_room_is_compiled_all_the_same():
    bounded = HarmonyCompiler(VOCABULARY, list(END_TOKENS), 1)
    assert bounded.compile_structural_tag(tag(turn.TEXT))
    assert bounded.compile_structural_tag(tag(turn.TEXT))


def test_tokens_of_text_have_their_bytes_and_the_others_none_of_utf8():
    words = vocabulary(VOCABULARY)
    assert len(words) == VOCABULARY
    assert b"".join(words[token] for token in ids("Köln 🌧️")).decode() == "Köln 🌧️"
    assert {word[:1] for word in words[199998:]} == {b"\xff"}
    assert len({*words[199998:]}) == VOCABULARY - 199998


def test_a_small_vocabulary_has_text_alone():
    assert len(vocabulary(2048)) == 2048
