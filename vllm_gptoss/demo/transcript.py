"""Prints what happens while it happens: lines of plain text, for a terminal, a pipe or a file."""

import contextlib
import sys
import time
from collections.abc import Iterator


class Transcript:
    """Stages with the time that each took; within one, labelled lines that grow piece by piece."""

    def __init__(self) -> None:
        self._label: str | None = None

    def show(self, label: str, piece: str) -> None:
        """Continue the open line when it has the same label, else begin another."""
        if label != self._label:
            self.end_line()
            print(f"  {label:<10} ", end="")
            self._label = label
        print(piece.replace("\n", "\n" + " " * 13), end="", flush=True)

    def end_line(self) -> None:
        if self._label is not None:
            print(flush=True)
            self._label = None

    @contextlib.contextmanager
    def stage(self, title: str) -> Iterator[None]:
        """`title` before the block and the seconds that it took after it."""
        self.end_line()
        print(f"{title}", flush=True)
        start = time.monotonic()
        yield
        self.show("took", f"{time.monotonic() - start:.1f} s")
        self.end_line()

    def failed(self, reason: str) -> None:
        self.end_line()
        print(f"vllm-gptoss demo failed: {reason}", file=sys.stderr)
