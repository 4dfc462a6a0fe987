"""The events of a machine as a list of messages, as the harmony library has them."""

from collections.abc import Iterable

from vllm_gptoss.parsers.harmony import Closed, Event, Opened, Text


def messages(events: Iterable[Event]) -> list[dict]:
    """Each with its header and its text; all of them are closed."""
    found, is_open = [], False
    for event in events:
        if isinstance(event, Opened):
            found.append({**event.header._asdict(), "text": ""})
            is_open = True
        elif isinstance(event, Text):
            found[-1]["text"] += event.text
        elif isinstance(event, Closed):
            is_open = False
    assert not is_open
    return found
