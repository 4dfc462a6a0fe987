"""Citations: which mark cites what, where it stands, and marks that are none."""

import pytest

from vllm_gptoss.tools.backend import Result
from vllm_gptoss.tools.citations import annotations
from vllm_gptoss.tools.page import Page
from vllm_gptoss.tools.visit import results_of_find, results_of_search, visit

PAGE = Page("https://a.test/x", "A page", "one\ntwo needle\nthree")
RESULTS = [
    Result("https://a.test/", "First", "what the first says " * 10),
    Result("https://b.test/(b)", "", "second"),
]
VISITS = dict(
    enumerate(
        [
            results_of_search("query", RESULTS),
            visit(PAGE),
            results_of_find("needle", PAGE),
            visit(Page("view-source:https://a.test/x", "A page", "<p>"), url="https://a.test/x"),
        ]
    )
)


def cited(text: str) -> list[tuple[str, str]]:
    """The marks of `text` with the addresses that they cite."""
    return [(text[a["start_index"] : a["end_index"]], a["url"]) for a in annotations(text, VISITS)]


def test_an_annotation_has_the_shape_of_the_api():
    from openai.types.responses.response_output_text import AnnotationURLCitation

    (found,) = annotations("Ünï 😀 【1†L0-L1】.", VISITS)
    assert found == {
        "type": "url_citation",
        "start_index": 6,
        "end_index": 15,
        "url": "https://a.test/x",
        "title": "A page",
    }
    assert AnnotationURLCitation(**found).model_dump() == found


@pytest.mark.parametrize(
    "mark", ["【1†L1】", "【1†L0-L2】", "【1†L9-L5】", "【1†L1-2】", "【1†L1\u2013L2】", "【1†A page】", "【1†】"]
)
def test_the_cursor_says_which_page(mark):
    """Models write the lines in many ways."""
    assert cited(f"a {mark} b") == [(mark, "https://a.test/x")]


@pytest.mark.parametrize(
    "mark",
    [
        *("【4†L1】", "【999999†L1】", "【99999999999999999999†L1】", "【-1†L1】", "【†L1】", "【x†L1】", "【L1】"),
        *("【1†L1", "1†L1】", "[1†L1]", "【1 L1】", "【1†" + "x" * 300 + "】", "【1" * 1000, "†】" * 1000),
    ],
)
def test_what_cites_nothing_is_text(mark):
    assert annotations(f"a {mark} b", VISITS) == []


def test_an_unfinished_mark_does_not_swallow_the_next():
    assert cited("a 【1†L0 b 【1†L1】") == [("【1†L1】", "https://a.test/x")]


def test_lines_of_search_results_cite_the_result():
    """The page of results itself has no address."""
    starts = [source.first for source in VISITS[0].sources]
    assert starts[0] == 4
    assert starts[1] > 6
    assert cited(f"【0†L{starts[0]}】【0†L{starts[1] - 1}】") == [
        ("【0†L4】", "https://a.test/"),
        (f"【0†L{starts[1] - 1}】", "https://a.test/"),
    ]
    assert cited(f"【0†L{starts[1]}-L99】") == [(f"【0†L{starts[1]}-L99】", "https://b.test/(b)")]
    assert cited("【0†L0】 【0†L3】 【0†query】") == []
    assert annotations("【0†L99999】", VISITS)[0]["title"] == "https://b.test/(b)"


def test_found_lines_and_source_cite_their_page():
    assert cited("【2†L0】【3†L0】") == [("【2†L0】", "https://a.test/x"), ("【3†L0】", "https://a.test/x")]
