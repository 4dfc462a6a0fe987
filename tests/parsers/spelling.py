"""Token ids of streams that are written as text, control tokens by their names."""

import functools
import re

from openai_harmony import HarmonyEncoding, HarmonyEncodingName, load_harmony_encoding

THOUGHT = "<|channel|>analysis<|message|>t<|end|><|start|>assistant"
"""One message of reasoning, and the start of the next: what stands behind it is not the first message."""


@functools.cache
def encoding() -> HarmonyEncoding:
    return load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)


@functools.cache
def _ids(text: str) -> tuple[int, ...]:
    return tuple(encoding().encode(text, allowed_special="all"))


def spell(text: str) -> list[int]:
    return list(_ids(text))


def spell_plain(text: str) -> list[int]:
    """The same for a text that only looks as if it had control tokens in it."""
    return encoding().encode(text, disallowed_special=())


def in_letters(text: str, *spelt: str) -> list[int]:
    """Token ids of `text`, in which these control tokens are written in letters."""
    pieces = re.split(f"({'|'.join(map(re.escape, spelt))})", text)
    return [token for piece in pieces for token in (spell_plain if piece in spelt else spell)(piece)]
