"""Calls that can't be made, and what is said of them; calls and answers as harmony messages."""

import asyncio
import json
import logging

import pytest
from browsing import LONG, Pages, Session
from openai_harmony import (
    Author,
    Conversation,
    HarmonyEncodingName,
    Message,
    Role,
    TextContent,
    load_harmony_encoding,
)

from vllm_gptoss.tools import browser as module
from vllm_gptoss.tools.browser import Browser


@pytest.fixture
def session():
    return Session()


@pytest.mark.parametrize(
    ("function", "arguments", "said"),
    [
        ("click", "{}", "`browser.click` is no function. The functions are search, open, find."),
        ("", "{}", "`browser.` is no function"),
        ("search", "{", "The arguments of `search` are not JSON"),
        ("search", "[" * 100_000, "The arguments of `search` are not JSON"),
        ("search", '["x"]', "The arguments of `search` must be a JSON object."),
        ("search", '"x"', "must be a JSON object"),
        ("search", "", "`search` needs `query`"),
        ("search", '{"query": "x", "recency_days": 3}', "`search` does not take recency_days. It takes query, topn"),
        ("search", '{"query": "x", "topn": "many"}', "`topn` must be a whole number."),
        ("search", '{"query": "x", "topn": true}', "`topn` must be a whole number."),
        ("search", '{"query": "x", "topn": NaN}', "`topn` must be a whole number."),
        ("search", '{"query": "x", "topn": Infinity}', "`topn` must be a whole number."),
        ("search", '{"query": "x", "topn": 1.5}', "`topn` must be a whole number."),
        ("search", '{"query": "nowhere"}', "No results for `nowhere`."),
        ("search", '{"query": "broken"}', "The search failed: no network."),
        ("open", '{"id": "a.test"}', "`id` must be the number of a link, or a whole URL"),
        ("open", '{"id": {}}', "`id` must be the number of a link, or a whole URL"),
        ("open", '{"id": "https://a.test/", "view_source": "yes"}', "`view_source` must be true or false."),
        ("open", '{"id": "https://a.test/", "loc": 1e300}', "is beyond the end of `Home`"),
        ("find", "{}", "`find` needs `pattern`"),
    ],
)
def test_what_is_wrong_is_said(session, function, arguments, said):
    assert said in asyncio.run(session.browser.call(function, arguments))
    assert session.browser.visits == {}


def test_a_fault_of_a_backend_is_no_exception(session, caplog):
    with caplog.at_level(logging.ERROR):
        assert session.search("bug").startswith("`search` failed by a fault of the browser.")
    assert "KeyError" in caplog.text


def test_source_is_taken_and_nothing(session):
    assert session.search("word", source="news").startswith("[0] word")
    assert session.open(id="https://a.test/", source="web", loc=-1, num_lines=-1, cursor=-1).startswith("[1] Home")


def test_what_a_response_holds_is_bounded(session, monkeypatch):
    monkeypatch.setattr(module, "MOST_HELD", len(LONG))
    session.open(id="https://a.test/long")
    assert session.open(id="https://b.test/").startswith("Too many pages were opened")
    assert session.open(loc=5).startswith("[1] a.test")


# As harmony messages


def call(recipient: str, text: str, channel: str = "analysis") -> Message:
    message = Message(author=Author(role=Role.ASSISTANT), content=[TextContent(text=text)], channel=channel)
    return message.with_recipient(recipient).with_content_type("<|constrain|>json")


def test_messages(session):
    (found,) = asyncio.run(session.browser.process(call("browser.search", '{"query": "word"}')))
    assert found.author == Author(role=Role.TOOL, name="browser.search")
    assert (found.recipient, found.channel) == ("assistant", "analysis")
    assert found.content[0].text.startswith("[0] word\n")
    (found,) = asyncio.run(session.browser.process(call("browser.open", json.dumps({"id": 0}), "commentary")))
    assert (found.author.name, found.channel) == ("browser.open", "commentary")
    (found,) = asyncio.run(session.browser.process(call("browser", "{}")))
    assert "is no function" in found.content[0].text


def test_a_page_cannot_speak_harmony(session):
    """Control tokens that a page spells are letters to the model."""
    (found,) = asyncio.run(session.browser.process(call("browser.open", '{"id": "https://a.test/marks"}')))
    assert "<|end|>" in found.content[0].text
    encoding = load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)
    ids = encoding.render_conversation(Conversation.from_messages([found]))
    assert ids.count(200007) == 1
    assert ids[-1] == 200007


@pytest.mark.parametrize(
    ("function", "arguments", "called"),
    [
        ("search", '{"query":"x"}', ("search", "x", "")),
        ("open", '{"id":"https://b.test/"}', ("open", "", "https://b.test/")),
        ("open", '{"id":1}', ("open", "", "https://b.test/")),
        ("open", '{"id":"1"}', ("open", "", "https://b.test/")),
        ("open", '{"id":7}', ("open", "", "")),
        ("open", '{"loc":3}', ("open", "", "https://a.test/")),
        ("open", '{"cursor":9}', ("open", '{"cursor":9}', "")),
        ("find", '{"pattern":"x"}', ("find", "x", "https://a.test/")),
        ("find", '{"pattern":', ("find", '{"pattern":', "")),
        ("click", "{}", ("click", "{}", "")),
        ("search", "[" * 100_000, ("search", "[" * 497 + "...", "")),
    ],
)
def test_what_is_called_is_known_before_it_is_called(session, function, arguments, called):
    session.open(id="https://a.test/")
    asked = list(session.backend.asked)
    assert session.browser.called(function, arguments) == called
    assert session.backend.asked == asked


def test_cursors_go_on_from_the_first():
    browser = Browser(Pages(), first_cursor=3)
    assert asyncio.run(browser.call("open", {"id": "https://a.test/"})).startswith("[3] Home")
    assert asyncio.run(browser.call("open", {"cursor": 3, "id": 1})).startswith("[4] B")
    assert asyncio.run(browser.call("open", {"cursor": -1})).startswith("[5] B")
    assert "Cursor 2 does not exist. Cursors go from 3 to 5." in asyncio.run(browser.call("open", {"cursor": 2}))
