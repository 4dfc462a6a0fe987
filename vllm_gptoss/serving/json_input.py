"""The text in `{"input": "…"}`, while the JSON comes in pieces; each character is looked at once."""

import json
import re

OPENING = re.compile(r'\s*\{\s*"input"\s*:\s*"')
COMPLETE = re.compile(
    r'(?:[^"\\]|\\["\\/bfnrt]|\\u(?:[dD][89abAB]..\\u[dD][c-fC-F]..|(?![dD][89a-fA-F])....))*', re.DOTALL
)
"""Characters and escapes that end here; half of a surrogate pair waits for its other half."""
LONGEST_ESCAPE = 12
MOST_BEFORE = 100
"""Characters in front of the text; what has more is another JSON."""


class InputText:
    """Feed it arguments; what it gives back adds up to the input, where the arguments are such JSON."""

    def __init__(self) -> None:
        self._rest = ""
        self._is_open = self._is_over = False

    def feed(self, piece: str) -> str:
        if self._is_over:
            return ""
        self._rest += piece
        if not self._is_open:
            opening = OPENING.match(self._rest)
            if opening is None:
                self._is_over = len(self._rest) > MOST_BEFORE
                return ""
            self._is_open, self._rest = True, self._rest[opening.end() :]
        text = COMPLETE.match(self._rest)[0]
        self._rest = self._rest[len(text) :]
        self._is_over = self._rest.startswith('"') or len(self._rest) > LONGEST_ESCAPE
        try:
            return json.loads(f'"{text}"', strict=False)
        except ValueError:
            self._is_over = True
            return ""
