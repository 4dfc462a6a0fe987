"""Stop strings, matched in text that comes in pieces."""

from collections.abc import Sequence


class StopStrings:
    """Lets text through up to the first stop string, and holds back what may become one.

    A match counts once more than `min_tokens` tokens are out; `keep` leaves the matched string in the text.
    """

    def __init__(self, strings: Sequence[str], *, keep: bool = False, min_tokens: int = 0) -> None:
        self.strings = [string for string in strings if string]
        self.keep = keep
        self.min_tokens = min_tokens
        self.hit: str | None = None
        self._held = ""
        self._longest = max(map(len, self.strings), default=1)

    def feed(self, text: str, tokens: int) -> str:
        """What may be shown of `text`, which the token number `tokens` has completed."""
        if self.hit is not None:
            return ""
        self._held, seen = self._held + text, len(self._held)
        if tokens > self.min_tokens and (match := self._first(seen)) is not None:
            start, self.hit = match
            shown = self._held[: start + len(self.hit) * self.keep]
            self._held = ""
            return shown
        return self._release(self._longest - 1)

    def flush(self) -> str:
        """What was held back: no more text comes."""
        return self._release(0)

    def _first(self, seen: int) -> tuple[int, str] | None:
        """The match that is complete first, among those that end beyond `seen`; vLLM stops the engine there."""
        starts = [(self._held.find(string, max(0, seen - len(string) + 1)), string) for string in self.strings]
        found = [match for match in starts if match[0] >= 0]
        return min(found, key=lambda match: match[0] + len(match[1]), default=None)

    def _release(self, keep: int) -> str:
        cut = max(0, len(self._held) - keep)
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown
