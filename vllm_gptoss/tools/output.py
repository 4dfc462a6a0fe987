"""What code prints, kept within a limit however much it is."""

import codecs
from collections import deque

MOST_BYTES_OF_A_LETTER = 4


class Output:
    """Keeps the first and the last half of `limit` bytes, and counts the rest."""

    def __init__(self, limit: int) -> None:
        self.size = 0
        """Bytes that were written."""
        self._half = limit // 2
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_size = 0

    def write(self, data: bytes) -> None:
        self.size += len(data)
        room = self._half - len(self._head)
        self._head += data[:room]
        if data := data[room:]:
            self._tail.append(data)
            self._tail_size += len(data)
            while self._tail_size - len(self._tail[0]) >= self._half:
                self._tail_size -= len(self._tail.popleft())

    @property
    def text(self) -> str:
        """UTF-8, with a replacement for what is none; a note stands where something was cut."""
        tail = b"".join(self._tail)
        cut = self.size - len(self._head) - min(len(tail), self._half)
        if not cut:
            return (self._head + tail).decode(errors="replace")
        note = f"[... {cut:,} of {self.size:,} bytes of output cut here ...]"
        return f"{_decoded(self._head)}\n{note}\n{_decoded(tail[-self._half :])}"


def _decoded(part: bytes) -> str:
    """Without the letters at its ends that the cut went through."""
    start = next((at for at, byte in enumerate(part[:MOST_BYTES_OF_A_LETTER]) if byte & 0xC0 != 0x80), 0)
    return codecs.getincrementaldecoder("utf-8")("replace").decode(part[start:])
