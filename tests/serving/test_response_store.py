"""The store of responses: bounded in entries and in bytes, and whole entries or none."""

from collections import deque

import pytest
from openai_harmony import Message, Role
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest, ResponsesResponse
from vllm.sampling_params import SamplingParams

from vllm_gptoss.rendering.serving import History
from vllm_gptoss.serving.store import BYTES, ENTRIES, Limits, Store

SAMPLING = SamplingParams(temperature=1, max_tokens=9)


def response(name: str, status: str = "completed") -> ResponsesResponse:
    request = ResponsesRequest(input="Hi", request_id=name)
    return ResponsesResponse.from_request(request, SAMPLING, "m", 0, output=[], status=status)


def said(text: str) -> History:
    return History([Message.from_role_and_content(Role.USER, text)])


def keep(store: Store, name: str, text: str = "Hi", status: str = "completed") -> None:
    """In the order in which vLLM keeps them."""
    store.messages[name] = said(text)
    store.responses[name] = response(name, status)


def kept(store: Store) -> list[str]:
    assert store.messages.keys() == store.responses.keys()
    return sorted(store.responses)


def test_the_least_recently_used_goes():
    store = Store(Limits(entries=2))
    keep(store, "a")
    keep(store, "b")
    assert store.responses.get("a").id == "a"
    keep(store, "c")
    assert kept(store) == ["a", "c"]
    assert store.responses.get("b") is None
    assert store.messages["a"] == said("Hi")
    keep(store, "d")
    assert kept(store) == ["a", "d"]


def test_bytes_count_too():
    store = Store(Limits(entries=100, bytes=50_000))
    for name in "abcde":
        keep(store, name, "x" * 15_000)
    assert kept(store) == ["c", "d", "e"]
    keep(store, "f", "x" * 60_000)
    assert kept(store) == ["f"]
    keep(store, "g")
    assert kept(store) == ["g"]


def test_what_is_generated_counts():
    store = Store(Limits(entries=100, bytes=50_000))
    keep(store, "a")
    store.messages["b"] = said("Hi")
    store.messages["b"].extend(said("x" * 60_000))
    store.responses["b"] = response("b")
    assert kept(store) == ["b"]


def test_events_go_with_their_response():
    store = Store(Limits(entries=1))
    store.messages["a"] = said("Hi")
    store.responses["a"] = response("a")
    store.events["a"] = (deque([response("a")] * 3), None)
    assert "a" in store.events
    keep(store, "b")
    assert "a" not in store.events


def test_what_is_under_way_stays():
    store = Store(Limits(entries=1))
    keep(store, "a", status="queued")
    keep(store, "b")
    keep(store, "c")
    assert kept(store) == ["a", "c"]
    store.responses["a"] = response("a")
    keep(store, "d")
    assert kept(store) == ["d"]


def test_a_response_without_its_messages_is_not_kept():
    """They had to go while it was made: vLLM would fail on a request that goes on from it."""
    store = Store(Limits(entries=1))
    store.messages["a"] = said("Hi")
    keep(store, "b")
    store.responses["a"] = response("a")
    assert kept(store) == ["b"]


def test_limits_come_from_the_servers_configuration():
    assert Limits.of({}) == (ENTRIES, BYTES)
    assert Limits.of({"gptoss_store_entries": 5, "gptoss_store_bytes": 6}) == (5, 6)
    for wrong in (0, "5", 1.5, True):
        with pytest.raises(ValueError, match="gptoss_store_entries in --additional-config is a whole number"):
            Limits.of({"gptoss_store_entries": wrong})
