"""Repairs, counted for the server's `/metrics` and logged now and then.

vllm_gptoss_harmony_repairs_total{kind="channel"} 3
"""

import functools
import logging
import time
from collections import Counter as Tally
from collections.abc import Iterable

from prometheus_client import Counter

LOG_EVERY = 60.0
"""Seconds between two lines in the log, at least."""

KINDS = {
    "start": "a message began without <|start|>",
    "end": "a message ended without <|end|>",
    "message": "a header had no <|message|>",
    "stray": "a control token, or an id without a meaning, where it does nothing",
    "spelt": "a control token of a header was written in letters",
    "doubled": "a part of a header came twice",
    "misplaced": "a part of a header stood where it does not belong, or was glued to another",
    "role": "a role that is none, or that a model must not take",
    "channel": "a channel that is missing, unknown or misspelt",
    "recipient": "a recipient that is no tool",
    "text_in_header": "text among the header",
    "not_offered": "a call of what the request does not offer",
    "invalid_json": "arguments that are not JSON",
}


class RepairLog:
    """Counts each repair at once, and sums up in one line at a limited rate."""

    def __init__(self, counter: Counter, logger: logging.Logger) -> None:
        self._children = {kind: counter.labels(kind) for kind in KINDS}
        self._logger = logger
        self._pending: Tally[str] = Tally()
        self._next_line = 0.0

    def count(self, kinds: Iterable[str]) -> None:
        for kind in kinds:
            self._children[kind].inc()
            self._pending[kind] += 1
        if self._pending and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LOG_EVERY
            summary = ", ".join(f"{count} x {kind} ({KINDS[kind]})" for kind, count in self._pending.most_common())
            self._logger.warning("Malformed Harmony output was repaired: %s", summary)
            self._pending.clear()


@functools.cache
def repair_log() -> RepairLog:
    """The one of this process, made with the first parser: a process that does not parse has no metric."""
    from vllm.logger import init_logger

    counter = Counter("vllm_gptoss_harmony_repairs", "Repairs of malformed Harmony output.", ["kind"])
    return RepairLog(counter, init_logger("vllm.vllm_gptoss.parsers"))
