"""What the browser shows of pages, search results and matches, at all edges."""

import re

import pytest
from browsing import PAGES, Pages, Session, lines_of
from openai_harmony import HarmonyEncodingName, ToolNamespaceConfig, load_harmony_encoding

from vllm_gptoss.tools import browser as module
from vllm_gptoss.tools.browser import ASKED_WINDOW, PARAMETERS, WINDOW, Browser
from vllm_gptoss.tools.page import WIDTH


@pytest.fixture
def session():
    return Session()


def test_the_functions_are_those_of_the_description():
    config = Browser(Pages()).config
    assert config == ToolNamespaceConfig.browser()
    assert {tool.name: tuple(tool.parameters["properties"]) for tool in config.tools} == PARAMETERS


def test_search(session):
    assert session.search("of a") == (
        "[0] of a\n**viewing lines [0 - 4] of 4**\n\n"
        "L0: \nL1: URL: \nL2: # Search Results\nL3: \nL4:   * 【0†Title 0†a.test】 summary 〖x〗 0"
    )
    assert session.search("a", topn=3).count("【") == 3
    assert session.browser.visits[1].page.links == tuple(url for url, text in PAGES.items() if "a" in text)[:3]


@pytest.mark.parametrize(("topn", "asked"), [(1, 1), (0, 1), (-5, 1), (1000, 20), (3.0, 3), ("4", 4), (None, 10)])
def test_topn(session, topn, asked):
    session.search("word", topn=topn)
    assert session.backend.asked == [f"word {asked}"]


def test_open_by_address_and_by_link(session):
    assert session.open(id="https://a.test/") == (
        "[0] Home (https://a.test/)\n**viewing lines [0 - 2] of 2**\n\n"
        "L0: \nL1: URL: https://a.test/\nL2: Welcome. See 【0†the long page】 or 【1†B†b.test】."
    )
    assert session.open(id=1).startswith("[1] B (https://b.test/)\n")
    assert session.open(id=0, cursor=0).startswith("[2] a.test (https://a.test/long)\n")
    assert session.open(id="0", cursor=0).startswith("[3] a.test (https://a.test/long)\n")


def test_a_link_uses_what_was_opened_and_an_address_does_not(session):
    session.open(id="https://a.test/")
    for _ in range(2):
        session.open(id=1, cursor=0)
    assert session.backend.asked == ["https://a.test/", "https://b.test/"]
    session.open(id="https://b.test/")
    assert session.backend.asked[2:] == ["https://b.test/"]


def test_open_a_result(session):
    session.search("word")
    assert session.open(id=0).startswith("[1] B (https://b.test/)\n")
    assert session.open(id=0, cursor=0, loc=2).startswith("[2] B (https://b.test/)\n**viewing lines [2 - ")


def test_the_window_is_of_tokens(session):
    encoding = load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)
    shown = session.open(id="https://a.test/long")
    body = shown.partition("\n\n")[2]
    assert WINDOW - 30 < len(encoding.encode(body)) <= WINDOW
    assert lines_of(shown) == list(range(len(lines_of(shown))))
    assert f"**viewing lines [0 - {lines_of(shown)[-1]}] of 2001**" in shown


def test_scrolling_shows_each_line_once(session):
    shown = session.open(id="https://a.test/long")
    seen = lines_of(shown)
    while seen[-1] < 2001:
        seen += lines_of(session.open(loc=seen[-1] + 1))
    assert seen == list(range(2002))
    assert session.backend.asked == ["https://a.test/long"]


def test_num_lines(session):
    session.open(id="https://a.test/long")
    assert lines_of(session.open(loc=1990, num_lines=5)) == [1990, 1991, 1992, 1993, 1994]
    assert lines_of(session.open(loc=2000, num_lines=5)) == [2000, 2001]
    assert lines_of(session.open(loc=2001)) == [2001]
    assert lines_of(session.open(num_lines=1)) == [0]
    assert len(lines_of(session.open(num_lines=200))) == 200
    encoding = load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)
    assert ASKED_WINDOW - 30 < len(encoding.encode(session.open(num_lines=10**6))) < ASKED_WINDOW + 60


def test_beyond_the_end(session):
    session.open(id="https://a.test/long")
    assert session.open(loc=2002) == "Line 2002 is beyond the end of `a.test`, whose last line is 2001."
    assert len(session.browser.visits) == 1


def test_an_empty_page_is_a_page(session):
    assert lines_of(session.open(id="https://a.test/empty")) == [0, 1, 2]
    assert session.find("x").endswith("L0: No `find` results for pattern: `x`")


def test_at_least_one_line_is_shown(session, monkeypatch):
    monkeypatch.setattr(module, "WINDOW", 1)
    assert lines_of(session.open(id="https://a.test/long")) == [0]


def test_wrapped_lines(session):
    session.open(id="https://b.test/")
    page = session.browser.visits[0].page
    assert max(map(len, page.lines(0, len(page.starts)))) <= WIDTH


def test_cursors(session):
    session.open(id="https://a.test/")
    session.open(id="https://b.test/")
    assert session.open(cursor=0).startswith("[2] Home")
    assert session.open(cursor=-1).startswith("[3] Home")
    assert session.open(cursor=1.0, id=None).startswith("[4] B")
    assert session.open(cursor=5) == "Cursor 5 does not exist. Cursors go from 0 to 4."
    assert session.open(cursor=-2) == "Cursor -2 does not exist. Cursors go from 0 to 4."


def test_nothing_is_open_yet(session):
    for shown in (session.open(), session.open(id=0), session.find("x"), session.open(cursor=3)):
        assert shown == "No page is open yet. Use `search`, or `open` with a URL as `id`."


def test_links_that_are_not_there(session):
    session.open(id="https://a.test/")
    assert session.open(id=2) == "Link 2 is not on the page `Home`, whose links are 0 to 1."
    session.open(id="https://b.test/")
    assert session.open(id=0) == "Link 0 is not on the page `B`, which has no links."
    assert session.open(id="https://a.test/none") == "`https://a.test/none` answers with status 404."
    assert len(session.browser.visits) == 2


def test_view_source(session):
    session.open(id="https://a.test/")
    shown = session.open(view_source=True)
    assert shown.startswith("[1] Home (view-source:https://a.test/)\n")
    assert "L0: <title>Home</title><p>Welcome. See <a href=/long>the long page</a> or <a " in shown
    assert "<a href=/x>" in session.open(id="https://a.test/marks", view_source=True)
    assert session.find("HREF").startswith("[3] Find results")
    session.search("word")
    assert session.open(view_source=True) == "`word` has no source. Leave `view_source` out."


# find


def test_find(session):
    session.open(id="https://a.test/text")
    assert session.find("needle") == (
        "[1] Find results for text: `needle` in `a.test` (https://a.test/text/find?pattern=needle)\n"
        "**viewing lines [0 - 2] of 2**\n\n"
        "L0: # 【0†match at L2】\nL1: a plain text with a Needle in it, and the needle\nL2: haystack"
    )


def test_a_match_leads_to_its_place(session):
    session.open(id="https://a.test/long")
    session.find("paragraph 1500 of")
    assert session.open(id=0).startswith("[2] a.test (https://a.test/long)\n**viewing lines [1498 - ")
    assert lines_of(session.open(id=0, cursor=1, loc=3, num_lines=1)) == [3]
    session.find("paragraph 1 of", cursor=0)
    assert lines_of(session.open(id=0, num_lines=1)) == [0]
    assert session.backend.asked == ["https://a.test/long"]


def test_find_sees_text_and_not_its_lines_or_links(session):
    session.open(id="https://a.test/marks")
    for pattern in ("the blue whale is large", "  BLUE \n WHALE ", "10 + (2) = 12", "σας", "<|end|>"):
        assert "【0†match at L2】" in session.find(pattern, cursor=0), pattern
    for pattern in ("a.test/x", "0†", "blue.whale", "†"):
        assert "No `find` results" in session.find(pattern, cursor=0), pattern
    session.open(id="https://b.test/")
    assert "match at L2】" in session.find("word word")


def test_matches_are_apart_and_bounded(session):
    session.open(id="https://a.test/long")
    shown = session.find("paragraph")
    assert [int(line) for line in re.findall(r"match at L(\d+)", shown)][:3] == [2, 6, 10]
    results = session.browser.visits[1].page
    assert len(results.links) == 50
    assert results.text.endswith("(There are more matches. A longer pattern has fewer.)")
    session.find("paragraph 199", cursor=0)
    assert "There are more" not in session.browser.visits[2].page.text


def test_find_looks_into_pages_alone(session):
    session.search("word")
    assert session.find("word") == "`find` does not look into lists of results. Open one of their links first."
    session.open(id=0)
    session.find("word")
    assert session.find("word").startswith("`find` does not look")
    assert session.find("word", cursor=1).startswith("[3] Find results")


@pytest.mark.parametrize("pattern", ["", "  \n", None, [], "x" * 501])
def test_patterns_that_are_none(session, pattern):
    session.open(id="https://a.test/text")
    assert "`pattern`" in session.find(pattern)
    assert "`query`" in session.search(pattern)
