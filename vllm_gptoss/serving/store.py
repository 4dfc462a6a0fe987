"""The responses that vLLM keeps, to be asked for or gone on from: as many as fit, the least recently used go first.

vLLM has three dictionaries by response id, of responses, messages and events, and never takes anything out of them.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from openai_harmony import TextContent
from vllm.entrypoints.openai.responses.protocol import ResponsesResponse

ENTRIES, BYTES = 1000, 256 << 20
UNDER_WAY = ("queued", "in_progress")


class Limits(NamedTuple):
    entries: int = ENTRIES
    bytes: int = BYTES
    """Of text in messages, and in responses and events as JSON."""

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Limits":
        """From vLLM's `--additional-config`.

        Raises: ValueError for what is no number of at least one.
        """
        found = []
        for name, default in (("gptoss_store_entries", ENTRIES), ("gptoss_store_bytes", BYTES)):
            value = settings.get(name, default)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} in --additional-config is a whole number of at least 1, not {value!r}")
            found.append(value)
        return cls(*found)


class Store:
    """Three shelves that share their entries: what leaves one leaves them all."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._sizes: dict[str, int] = {}
        """By id, the least recently used first."""
        self._bytes = 0
        self.responses, self.messages, self.events = Shelf(self), Shelf(self), Shelf(self)

    def touch(self, key: str) -> None:
        if key in self._sizes:
            self._sizes[key] = self._sizes.pop(key)

    def measure(self, key: str) -> None:
        """An entry is new or has changed."""
        size = sum(_size(shelf.peek(key)) for shelf in self._shelves)
        self._bytes += size - self._sizes.pop(key, 0)
        self._sizes[key] = size
        for oldest in self._leaving(key):
            self.drop(oldest)

    def drop(self, key: str) -> None:
        self._bytes -= self._sizes.pop(key, 0)
        for shelf in self._shelves:
            dict.pop(shelf, key, None)

    def _leaving(self, newest: str) -> Iterator[str]:
        """The oldest, as long as there are too many; the newest stays, and so does what is still being made."""
        for key in list(self._sizes):
            if len(self._sizes) <= self.limits.entries and self._bytes <= self.limits.bytes:
                return
            response = self.responses.peek(key)
            if key != newest and (response is None or response.status not in UNDER_WAY):
                yield key

    @property
    def _shelves(self) -> "tuple[Shelf, Shelf, Shelf]":
        return self.responses, self.messages, self.events


class Shelf(dict):
    """One of the dictionaries: reading makes an entry the most recently used."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store

    def peek(self, key: str) -> Any:
        return super().get(key)

    def get(self, key: str, default: Any = None) -> Any:
        self._store.touch(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self._store.touch(key)
        return super().__getitem__(key)

    def __setitem__(self, key: str, value: Any) -> None:
        if isinstance(value, ResponsesResponse) and key not in self._store.messages:
            return  # Its messages had to go while it was made: nothing can go on from it.
        super().__setitem__(key, value)
        self._store.measure(key)


def init(stock: Callable) -> Callable:
    """Of a server of Responses, with the three dictionaries of a store."""

    def init(self, *args, **kwargs) -> None:
        stock(self, *args, **kwargs)
        if self.use_harmony:
            store = Store(Limits.of(self.engine_client.vllm_config.additional_config))
            self.response_store, self.msg_store, self.event_store = store.responses, store.messages, store.events

    return init


def _size(kept: Any) -> int:
    """Bytes, about."""
    if isinstance(kept, ResponsesResponse):
        return len(kept.model_dump_json())
    if isinstance(kept, list):
        return sum(len(part.text) for message in kept for part in message.content if isinstance(part, TextContent))
    if isinstance(kept, tuple):  # of events and a signal
        return sum(len(event.model_dump_json()) for event in kept[0])
    return 0
