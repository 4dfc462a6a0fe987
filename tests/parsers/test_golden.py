"""Well-formed output gives what the harmony library gives, token by token; `make_golden.py` made the files with it.

Two known exceptions are in the files:
- A message of the assistant without a channel, as some of the library's own tests have it, is for the user: it gets
  the channel `final`, and is counted as a repair.
- Behind bytes that are no letter the library holds text back; here it comes at once, and the message is the same.

And two are not, because the library takes for a recipient what models write as a content type; see
`test_lone_word_behind_the_channel`.
"""

import json
from typing import NamedTuple

import pytest
from conversations import CONVERSATIONS
from events import messages
from make_golden import FOLDER, golden, read
from spelling import spell

from vllm_gptoss.parsers.harmony import HarmonyMachine, Repaired, Text

BROKEN_BYTES = {
    "invalid_utf8",
    "invalid_utf8_split",
    "invalid_utf8_multi_byte",
    "invalid_utf8_no_end",
    "does_not_leak_bytes_between_messages",
    "flushes_partial_bytes_at_the_end",
}
WITHOUT_A_CHANNEL = BROKEN_BYTES | {"tricky_utf8", "waits_for_multi_token_utf8"}


HEAD = ("role", "channel", "recipient", "content_type")


class Step(NamedTuple):
    """Where the stream stands when a token is read, and the text that the token completed."""

    token: int
    head: list | None
    text: str | None


def expected(name: str) -> tuple[str | None, list[Step], list[dict]]:
    file = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    steps = [Step(token, head, text) for head, run in file["runs"] for token, text in run]
    return file["role"], steps, file["messages"]


def run(role: str | None, tokens: list[int]) -> tuple[list[Step], list[dict], set[str]]:
    """What the machine says at each token, its messages, and its repairs."""
    machine = HarmonyMachine(role)
    steps, events = [], []
    for token in tokens:
        new = machine.feed(token)
        head = machine.message and [getattr(machine.message, field) for field in HEAD]
        steps.append(Step(token, head, "".join(event.text for event in new if isinstance(event, Text)) or None))
        events += new
    events += machine.finish()
    return steps, messages(events), {event.kind for event in events if isinstance(event, Repaired)}


def with_channel(channel: str | None, role: str) -> str | None:
    return "final" if channel is None and role == "assistant" else channel


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_the_file_is_what_the_installed_library_gives(name):
    """A new library that reads these differently shows here first."""
    assert (FOLDER / f"{name}.json").read_text(encoding="utf-8") == golden(name)


def test_no_file_is_left_over():
    assert {path.stem for path in FOLDER.glob("*.json")} == set(CONVERSATIONS)


@pytest.mark.parametrize("name", sorted(CONVERSATIONS.keys() - WITHOUT_A_CHANNEL))
def test_the_same_token_by_token(name):
    role, steps, said = expected(name)
    assert run(role, [step.token for step in steps]) == (steps, said, set())


@pytest.mark.parametrize("name", sorted(WITHOUT_A_CHANNEL))
def test_without_a_channel_it_is_final(name):
    role, steps, said = expected(name)
    for message in said:
        message["channel"] = with_channel(message["channel"], message["role"])
    ours = run(role, [step.token for step in steps])
    assert ours[1:] == (said, {"channel"})
    for step, theirs in zip(ours[0], steps, strict=True):
        assert bool(step.head) == bool(theirs.head)
        assert step.text == theirs.text or name in BROKEN_BYTES


@pytest.mark.parametrize("content_type", ["<|constrain|>json", "json", "code"])
@pytest.mark.parametrize("channel", ["final", "commentary"])
def test_lone_word_behind_the_channel(channel, content_type):
    """The library reads it as a recipient; models mean a type, and the answer is for the user."""
    tokens = spell(f"<|channel|>{channel} {content_type}<|message|>{{}}<|return|>")
    _, theirs = read(tokens, "assistant")
    assert [(message["recipient"], message["content_type"]) for message in theirs] == [(content_type, None)]
    _, ours, repairs = run("assistant", tokens)
    assert ours == [theirs[0] | {"recipient": None, "content_type": content_type}]
    assert repairs == set()
