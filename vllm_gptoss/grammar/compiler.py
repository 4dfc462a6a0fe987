"""Grammars over the vocabulary of gpt-oss in which a control token is no text, and no text is a control token.

xgrammar knows a token by its bytes, `<|end|>` by those seven letters, and so lets a string in JSON contain it, and
the letters stand where the token should. Here the bytes of a control token begin with one that no UTF-8 has: only a
rule that names the id matches it. A token that is marked as special matches no rule at all.

xgrammar 0.2.8 keeps the masks of a rule for other grammars that have the same rule, and takes rules that differ only
in a token id for the same. What it compiles for a structural tag is kept here instead, whole.
"""

import threading
from collections import OrderedDict

import xgrammar

from vllm_gptoss.parsers.harmony import FIRST_CONTROL, token_bytes

THREADS = 8
"""As vLLM's own."""


def vocabulary(size: int) -> list[bytes]:
    """The bytes of each token id, for xgrammar alone."""
    texts = [token_bytes(token) for token in range(min(size, FIRST_CONTROL))]
    return texts + [b"\xff%d" % token for token in range(FIRST_CONTROL, size)]


class HarmonyCompiler(xgrammar.GrammarCompiler):
    """In the place of vLLM's compiler; compiled structural tags take up to `cache_bytes`."""

    def __init__(self, vocab_size: int, stop_tokens: list[int], cache_bytes: int) -> None:
        tokens = xgrammar.TokenizerInfo(vocabulary(vocab_size), vocab_size=vocab_size, stop_token_ids=stop_tokens)
        super().__init__(tokens, max_threads=THREADS, cache_limit_bytes=cache_bytes)
        self._tags = xgrammar.GrammarCompiler(tokens, max_threads=THREADS, cache_enabled=False)
        self._compiled: OrderedDict[str, xgrammar.CompiledGrammar] = OrderedDict()
        self._room = cache_bytes
        self._lock = threading.Lock()

    def compile_structural_tag(self, tag: str, *legacy) -> xgrammar.CompiledGrammar:
        if legacy:  # vLLM's older form has no token ids in it
            return super().compile_structural_tag(tag, *legacy)
        with self._lock:
            if tag in self._compiled:
                self._compiled.move_to_end(tag)
                return self._compiled[tag]
        compiled = self._tags.compile_structural_tag(tag)
        with self._lock:
            self._keep(tag, compiled)
        return compiled

    def _keep(self, tag: str, compiled: xgrammar.CompiledGrammar) -> None:
        if tag in self._compiled:  # by another thread
            return
        self._compiled[tag] = compiled
        self._room -= _size(tag, compiled)
        while self._room < 0:
            self._room += _size(*self._compiled.popitem(last=False))


def _size(tag: str, compiled: xgrammar.CompiledGrammar) -> int:
    return len(tag) + compiled.memory_size_bytes
