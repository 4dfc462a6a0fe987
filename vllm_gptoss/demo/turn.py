"""What the model said in one turn, whichever API carried it."""

from collections.abc import Callable
from dataclasses import dataclass, field

Show = Callable[[str, str], None]
"""Takes a label (`user`, `reasoning`, `call`, …) and the next piece of text under it."""


class DemoError(RuntimeError):
    """The demo did not go as it must; the message says what was wrong."""


@dataclass
class Call:
    id: str
    name: str
    arguments: str = ""


@dataclass
class Turn:
    reasoning: str = ""
    calls: list[Call] = field(default_factory=list)
    text: str = ""
    """The answer, or beside a call what the model tells the user before it."""
