"""HTML, however broken, to text: what is read, what is left out, and that no page is too much for it."""

import html.parser
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_gptoss.tools.html_text import GOES_ON, MOST_TEXT, read_html, read_text
from vllm_gptoss.tools.html_tokens import RAW, tokens
from vllm_gptoss.tools.page import LINK_TEXT, Page, show

URL = "https://site.test/a/b"


def text(source: str) -> str:
    """Of a page, without the line of its address."""
    page = read_html(source, URL)
    head, _, rest = page.text.removeprefix("\n").partition("\n")
    assert head == f"URL: {URL}"
    return rest


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("<p>one</p><p>two", "one\n\ntwo"),
        ("one<br>two<br/>three", "one\ntwo\nthree"),
        ("  a \n\t b<b> c </b>d", "a b c d"),
        ("a<b>b</b>c", "abc"),
        ("<h1>T</h1>x<h3>U</h3>y", "# T\n\nx\n\n### U\n\ny"),
        ("<ul><li>a<li>b<ol><li>c<li>d</ol><li>e</ul>f", "  * a\n  * b\n    1. c\n    2. d\n  * e\nf"),
        ("<table><tr><th>a<th>b<tr><td>c<td></table>d", "a | b\nc |\nd"),
        ("<pre>a\n  b  c\n\n\n\nd</pre>e", "a\n  b  c\n\nd\n\ne"),
        ("<blockquote>q</blockquote>", "> q"),
        ("&lt;b&gt; &amp;amp; &#65; &#x42; &eacute; &nosuch; &", "<b> &amp; A B é &nosuch; &"),
        ("x<sup>2</sup> y<sub class=a>i</sub> z<sup><a href=/n>1</a></sup>", "x^{2} y_{i} z【0†1】"),
        ('<img alt="A cat" src=x> <img src=y> <img title=Dog>', "[Image 0: A cat] [Image 1: Dog]"),
        ("a<script>if (a < b) { '</p>' }</script>b<style>p > a {}</style>c", "abc"),
        ("a<!-- <b>x</b> -- > -->b<!doctype html>c<?php ?>d</ >e", "abcde"),
        ("a<template>x<p>y</template>b<svg><text>x</text></svg>c", "abc"),
        ("<head><title>T</title></head>a<textarea><b>x</textarea>b", "ab"),
        ("5 < 6 and 7 > 3 <3", "5 < 6 and 7 > 3 <3"),
    ],
)
def test_text(source, expected):
    assert text(source) == expected


@pytest.mark.parametrize(
    ("source", "expected", "links"),
    [
        (
            '<a href="/x">one</a> <a href=two>two</a>',
            "【0†one】 【1†two】",
            ["https://site.test/x", "https://site.test/a/two"],
        ),
        ('<a href="https://other.test:81/?a=1&amp;b">o</a>', "【0†o†other.test:81】", ["https://other.test:81/?a=1&b"]),
        ("<a href=//other.test/>o</a>", "【0†o†other.test】", ["https://other.test/"]),
        (
            "<a href=/x>a</a><a href=/y>b</a><a href=/x>c</a>",
            "【0†a】【1†b】【0†c】",
            ["https://site.test/x", "https://site.test/y"],
        ),
        ("see<a href=/x> it </a>now", "see 【0†it】 now", ["https://site.test/x"]),
        ("<a href=/x><h2>T</h2>\n<p>d</p></a>", "【0†T d】", ["https://site.test/x"]),
        ("<a href=/x>one <a href=/y>two", "【0†one】 【1†two】", ["https://site.test/x", "https://site.test/y"]),
        ("<a href=/x><img alt=Cat></a><a href=/y><img></a>", "【0†[Image 0: Cat]】", ["https://site.test/x"]),
        ("<base href=https://b.test/c/><a href=d>e</a>", "【0†e†b.test】", ["https://b.test/c/d"]),
        ('<a href=" /x\n ">a†b】c</a>', "【0†a‡b〗c】", ["https://site.test/x"]),
        ("<a href='javascript:x()'>a</a> <a href=mailto:x@y>b</a> <a href=#f>c</a> <a>d</a>", "a b c d", []),
        ("<a href='http://[x'>a</a><a href='file:///etc/passwd'>b</a><a href='data:text/html,x'>c</a>", "abc", []),
    ],
)
def test_links(source, expected, links):
    assert text(source) == expected
    assert list(read_html(source, URL).links) == links


def test_a_link_that_is_never_closed_does_not_swallow_the_page():
    words = "word " * 500
    (first, rest) = text(f"<a href=/x>{words}<p>more").split("】")
    assert len(first) <= len("【0†") + LINK_TEXT
    assert rest.strip() == "more"
    assert text("<a href=/x>" + "<b>word </b>" * 500 + "<p>more").count("word") > 490


def test_the_title_is_one_line_and_has_a_fallback():
    assert read_html("<title> A\n &amp; B </title><svg><title>C</title></svg>", URL).title == "A & B"
    assert read_html("text", URL).title == "site.test"
    assert read_text("text", "file:///a.txt").title == "file:///a.txt"


def test_a_page_cannot_forge_links_or_lines():
    page = read_html("【7†here†bank.test】\x00\u200b<title>【8†x】</title>", URL)
    assert "【" not in page.text + page.title
    shown = show(Page("https://s.test/%0AL9:%20x", "T\nL9: x", "one"), 0, 0, None, 100)
    assert [line for line in shown.splitlines() if line.startswith("L")] == ["L0: one"]


@pytest.mark.parametrize(
    "source",
    [
        "<!--never closed <p>x",
        "<script>never closed",
        "<p",
        "<a href='never closed>x",
        "<",
        "</",
        "<!",
        "<title>never closed",
        "&#99999999999999999999999;",
        "<a href='&#x" + "f" * 5000 + ";'>x</a>",
        "<ul>" * 1000 + "<li>x",
        "\ufeff\ud800\x00",
    ],
)
def test_broken(source):
    assert read_html(f"before {source}", URL).text.startswith(f"\nURL: {URL}\nbefore")


@pytest.mark.parametrize(
    "piece",
    [
        *(
            "<a ",
            '<a "',
            "<a b='\"",
            "<!",
            "<!--",
            "</",
            "</a ",
            "<?",
            "<![CDATA[",
            "<script>",
            "<title>",
            "<sup ",
            "&#9",
        ),
        *("<a href=x>y", "<textarea></textarea>", "<svg>", "<ul><li>x", "a ", "\n", "[a](", "![", "【1†", "<b c=   "),
    ],
)
def test_no_text_takes_long(piece):
    """What parsers stumble over; for a third of the first the standard library's takes 83 s."""
    start = time.process_time()
    read_html(piece * (300_000 // len(piece)), URL).line_at(0)
    read_text(piece * (300_000 // len(piece)), URL, is_markdown=True).line_at(0)
    assert time.process_time() - start < 3


def test_huge_pages_are_cut_with_a_note():
    for page in (read_html("<p>word" * 400_000, URL), read_text("word\n" * 400_000, URL)):
        assert page.text.endswith(GOES_ON)
        assert len(page.text) < MOST_TEXT + 200
    assert read_html("short", URL, is_cut=True).text.endswith(GOES_ON)
    assert not read_html("short", URL).text.endswith(GOES_ON)


def test_markdown():
    source = 'intro\n# The title\n[a](b.md) ![pic](x.png) [c](<https://o.test/d> "t") [e](#f) [g] (h)'
    page = read_text(source, "https://site.test/docs/x.md", is_markdown=True)
    assert page.title == "The title"
    assert page.text.splitlines()[-1] == "【0†a】 [Image: pic] 【1†c†o.test】 e [g] (h)"
    assert page.links == ("https://site.test/docs/b.md", "https://o.test/d")


def test_plain_text_stays_as_it_is():
    source = "a  b\n\n\n\t[c](d) <b>&amp;"
    assert read_text(source, URL).text == f"\nURL: {URL}\n{source}"


class Standard(html.parser.HTMLParser):
    """The tags and texts that the standard library reads."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.found: list[tuple] = []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, {name: value or "" for name, value in reversed(attributes)}))

    def handle_endtag(self, tag):
        self.found.append((f"/{tag}", {}))

    def handle_data(self, data):
        self.found.append(("", data))


ELEMENTS = st.sampled_from(["p", "a", "b", "div", "li", "td", "br", "img", "H1"])
VALUES = st.text("ab &/=", max_size=4)
ATTRIBUTES = st.lists(
    st.one_of(
        st.builds('{}="{}"'.format, st.sampled_from(["href", "class", "ALT"]), VALUES.map(lambda v: v + "'>")),
        st.builds("{}='{}'".format, st.sampled_from(["href", "id"]), VALUES),
        st.builds("{}={}".format, st.sampled_from(["title", "x"]), st.text("ab", min_size=1, max_size=3)),
        st.sampled_from(["hidden", "disabled"]),
    ),
    max_size=3,
)
SOUND = st.lists(
    st.one_of(
        st.text("ab \n", min_size=1, max_size=5),
        st.builds(lambda name, attributes: f"<{' '.join([name, *attributes])}>", ELEMENTS, ATTRIBUTES),
        ELEMENTS.map("</{}>".format),
        st.just("<!-- <p> -->"),
        st.just("<script>a < b</script>"),
    ),
    max_size=12,
).map("".join)


@settings(max_examples=200, deadline=None, database=None)
@given(SOUND)
def test_sound_html_reads_as_in_the_standard_library(source):
    standard = Standard()
    standard.feed(source)
    standard.close()
    theirs = [(name, rest) for name, rest in standard.found if rest != "a < b"]
    ours = [(token.name, token.attributes if token.name else token.text) for token in tokens(source)]
    unescaped = [(n, {k: html.unescape(v) for k, v in r.items()} if n else r) for n, r in ours]
    assert _joined(unescaped) == _joined(theirs)


def _joined(found: list[tuple]) -> list[tuple]:
    """Neighbouring texts as one."""
    joined: list[tuple] = []
    for name, rest in found:
        if not name and joined and not joined[-1][0]:
            joined[-1] = ("", joined[-1][1] + rest)
        else:
            joined.append((name, rest))
    return joined


@settings(max_examples=200, deadline=None, database=None)
@given(
    st.text(max_size=60) | st.lists(st.sampled_from([*"<>/!-='\"& a", *RAW, "<a href=/x>", "【1†", "】"])).map("".join)
)
def test_no_text_is_an_error(source):
    page = read_html(source, URL)
    assert all(f"【{number}†" in page.text for number in range(len(page.links)))
    assert page.text.count("【") == page.text.count("】")
    assert "".join(page.lines(0, len(page.starts))).replace("\n", "") == page.text.replace("\n", "")
