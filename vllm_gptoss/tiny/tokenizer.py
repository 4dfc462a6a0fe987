"""The tokenizer of gpt-oss, `o200k_harmony`, as a Hugging Face `tokenizer.json`.

The vocabulary comes out of the harmony library, which embeds it: nothing is downloaded or shipped here.
A byte-level BPE over tiktoken ranks joins, in each piece of text, the neighbours whose concatenation has the
lowest rank. `tokenizer.json` wants the joins one by one, so every split of a token into two tokens becomes a
merge, in the order of the rank of the result. A piece that is a token as a whole is taken as it stands
(`ignore_merges`), as tiktoken does.

Source: tiktoken's byte pair encoding, and the pattern published with `o200k_base`.
"""

import json
from pathlib import Path
from typing import Any

from openai_harmony import HarmonyEncodingName, load_harmony_encoding

FIRST_CONTROL = 199998
"""`<|startoftext|>`: ranks of text stand below, control tokens from here to the end."""

VOCABULARY = 201088

BOS, EOS, PAD = "<|startoftext|>", "<|return|>", "<|endoftext|>"

_SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
PATTERN = "|".join(
    (
        rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_SUFFIX}",
        rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_SUFFIX}",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
"""Pieces of text that no token crosses: words in mixed case, up to three digits, signs, white space."""


def write_tokenizer(folder: Path) -> None:
    """Write `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json`, `chat_template.jinja`."""
    special = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 131072,
        "clean_up_tokenization_spaces": False,
        **special,
    }
    _write_json(folder / "tokenizer.json", tokenizer_json())
    _write_json(folder / "tokenizer_config.json", settings)
    _write_json(folder / "special_tokens_map.json", special)
    template = Path(__file__).parent / "data" / "chat_template.jinja"
    (folder / "chat_template.jinja").write_bytes(template.read_bytes())


def tokenizer_json() -> dict[str, Any]:
    """The content of `tokenizer.json`: 199998 byte-level tokens and 1090 control tokens."""
    tokens, controls = _vocabulary()
    letters = _byte_letters()
    names = [token.decode("latin-1").translate(letters) for token in tokens]
    return {
        "version": "1.0",
        "added_tokens": [_control(FIRST_CONTROL + i, name) for i, name in enumerate(controls)],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False},
                _byte_level(),
            ],
        },
        "post_processor": None,
        "decoder": _byte_level(),
        "model": {
            "type": "BPE",
            "ignore_merges": True,
            "vocab": {name: rank for rank, name in enumerate(names)},
            "merges": _merges(names),
        },
    }


def _vocabulary() -> tuple[list[bytes], list[str]]:
    # The public `decode` replaces bytes that are not UTF-8 by themselves; many tokens are parts of a letter.
    decode = load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)._inner.decode_bytes
    tokens = [bytes(decode([rank])) for rank in range(FIRST_CONTROL)]
    controls = [bytes(decode([token])).decode() for token in range(FIRST_CONTROL, VOCABULARY)]
    return tokens, controls


def _merges(names: list[str]) -> list[list[str]]:
    known = set(names)
    merges = []
    for name in names:
        for cut in range(1, len(name)):
            left, right = name[:cut], name[cut:]
            if left in known and right in known:
                merges.append([left, right])
    return merges


def _byte_letters() -> dict[int, str]:
    """A printable letter for each byte: itself where Latin-1 prints it, else the next from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(0x100 + i) for i, byte in enumerate(others)}


def _control(token: int, name: str) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": token, "content": name, **flags}


def _byte_level() -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
