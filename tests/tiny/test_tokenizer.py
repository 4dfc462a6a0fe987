"""`tokenizer.json` gives the ids of the harmony library for any text."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai_harmony import HarmonyEncodingName, load_harmony_encoding
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from vllm_gptoss.tiny.tokenizer import FIRST_CONTROL, VOCABULARY, write_tokenizer

HARMONY = load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)

TEXTS = {
    "empty": "",
    "english": "It's 14:30 in Paris, isn't it? We'LL see; they'Ve gone, I'd say. HTTPServer's camelCase_names",
    "code": "def f(x):\n\treturn {'a': [1, 2.5e-3]}  # TODO\r\n\r\n\nif x!=y && (z<<=2) // 3:\n        pass\n",
    "numbers": "1 12 123 1234 12345 3.14159 2026-11-20 ٣٤٥ Ⅷ ½ 1,000,000",
    "spaces": " a  b   c    \t\t d \n\n  e \u00a0 f\u2003g   ",
    "long runs": "=" * 130 + " " * 99 + "a" * 300 + "-" * 77 + "\n" * 40,
    "emoji": "👍🏽 👩‍👩‍👧‍👦 🇫🇷 ❤️ 🤷🏻‍♀️ x😀y",
    "chinese": "我能吞下玻璃而不伤身体。繁體字,測試!",
    "japanese": "こんにちは、世界。カタカナ ﾊﾝｶｸ 漢字かな交じり文",
    "korean": "안녕하세요 세계",
    "arabic": "السَّلامُ عَلَيْكُم، كيف الحال؟ ١٢٣",
    "hindi, thai": "नमस्ते दुनिया สวัสดีชาวโลก",
    "russian, greek": "Съешь же ещё этих мягких французских булок. Ξεσκεπάζω τὴν ψυχοφθόρα βδελυγμία",
    "combining": "e\u0301 n\u0303 Å\u030a \u200bx\u200d \ufeff",
    "odd": "<|start <| \x00\x01\x7f\x85 \ud7ff \ue000 \U0010ffff \ufffd",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def bare(folder):
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_encodes_like_harmony(text, tokenizer):
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert ids == HARMONY.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode(text) == ids, "nothing is added in front or behind"


PIECES = [" ", "  ", "\n", "\t", "\r\n", "a", "aa", "aba", "ab", "B", "é", "ß", "'s", "'LL", "0", "12", "_", "=", "/"]
PIECES += ["日", "本語", "ال", "ع", "👍", "🏽", "\u200d", "ि", "न", "ไ", "Ж", "\u0301", "...", "://"]
ANY_TEXT = st.text(max_size=60).filter(lambda text: "<|" not in text)
"""The library refuses the names of control tokens, which hypothesis finds in this package's source."""


@settings(max_examples=400, deadline=None)
@given(text=st.one_of(ANY_TEXT, st.lists(st.sampled_from(PIECES), max_size=30).map("".join)))
def test_encodes_any_text_like_harmony(text, bare):
    ids = bare.encode(text).ids
    assert ids == HARMONY.encode(text)
    assert bare.decode(ids) == text


def test_every_token_is_the_bytes_of_harmony(bare):
    """A token of text, or a part of a letter, at each id."""
    for token in range(FIRST_CONTROL):
        text = HARMONY.decode([token])
        assert bare.decode([token]) == text
    assert bare.get_vocab_size() == VOCABULARY


def test_control_tokens(tokenizer):
    names = {name: HARMONY.encode(name, allowed_special="all") for name in HARMONY.special_tokens_set}
    names = {name: ids[0] for name, ids in names.items() if len(ids) == 1 and ids[0] < VOCABULARY}
    assert len(names) == VOCABULARY - FIRST_CONTROL
    assert tokenizer.convert_tokens_to_ids(list(names)) == list(names.values())
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (199998, 200002, 199999)
    text = "<|start|>assistant<|channel|>final<|message|>Hi<|return|>"
    ids = HARMONY.encode(text, allowed_special="all")
    assert tokenizer.encode(text) == ids
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids, skip_special_tokens=True) == "assistantfinalHi"


def test_names_of_control_tokens_stand_in_the_published_places(folder):
    added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    known = {"<|startoftext|>": 199998, "<|endoftext|>": 199999, "<|return|>": 200002, "<|constrain|>": 200003}
    known |= {"<|channel|>": 200005, "<|start|>": 200006, "<|end|>": 200007, "<|message|>": 200008}
    known |= {"<|call|>": 200012, "<|reserved_201087|>": 201087}
    assert known.items() <= {token["content"]: token["id"] for token in added}.items()
