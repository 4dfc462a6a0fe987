"""HTML, Markdown and plain text to pages: readable text, with numbered links where the links were."""

import html
import re
from urllib.parse import urljoin, urlsplit

from vllm_gptoss.tools.html_tokens import Token, tokens
from vllm_gptoss.tools.page import LINK_TEXT, Page, domain_of, link, unmarked

MOST_TEXT = 1_000_000
"""Characters of a page."""
GOES_ON = "\n[The page goes on. It was cut here.]"

MOST_INDENT = 8
"""Levels of lists that are shown."""
UNSEEN = frozenset({"template", "svg", "math", "object", "canvas"})
HEADINGS = {f"h{level}": f"{'#' * level} " for level in range(1, 7)}
PARAGRAPHS = frozenset({*HEADINGS, "p", "pre", "blockquote"})
"""Elements with an empty line before and after them."""
BLOCKS = PARAGRAPHS | {
    *("address", "article", "aside", "body", "caption", "dd", "details", "dialog", "div", "dl", "dt", "fieldset"),
    *("figcaption", "figure", "footer", "form", "head", "header", "html", "legend", "li", "main", "nav", "ol"),
    *("option", "section", "summary", "table", "tbody", "tfoot", "thead", "tr", "ul"),
}

_SCRIPT = re.compile(r"<(su[pb])(?:\s[^<>]*)?>([\w\-]{1,32})</\1\s*>", re.IGNORECASE)
_LONG_REFERENCE = re.compile(r"&#[xX]?[0-9a-fA-F]{9,};?")
"""No character has such a number, and Python refuses to read longer ones."""
_MARKDOWN_LINK = re.compile(r"(!?)\[([^\[\]\n]{1,300})\]\(<?([^\s()<>]{1,2000})>?(?:\s+\"[^\"\n]{0,300}\")?\)")

_MARKDOWN_HEADING = re.compile(r"^#{1,6} +(\S.{0,300})$", re.MULTILINE)


def _unescape(text: str) -> str:
    return html.unescape(_LONG_REFERENCE.sub("\ufffd", text))


class _Links:
    """Addresses on a page, each once, by their number."""

    def __init__(self, url: str) -> None:
        self.base = url
        self._url = url
        self._schemes = {"http", "https", urlsplit(url).scheme}
        self._numbers: dict[str, int] = {}

    def resolve(self, address: str) -> str | None:
        """The whole address, None for one that is none, leads to nowhere else, or is no page."""
        address = re.sub(r"[\t\n\r]", "", address.strip())
        if not address or address.startswith("#"):
            return None
        try:
            address = urljoin(self.base, address)
            return address if urlsplit(address).scheme in self._schemes else None
        except ValueError:
            return None

    def mark(self, address: str, text: str) -> str:
        return link(self._numbers.setdefault(address, len(self._numbers)), text, address, self._url)

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(self._numbers)


class _Text:
    """Words and breaks in; lines with single spaces, and single blank lines, out."""

    def __init__(self) -> None:
        self.size = 0
        self.begins_with_space = False
        self._pieces: list[str] = []
        self._breaks = 0
        self._has_space = False
        self._prefix = ""

    def put(self, text: str) -> None:
        """Text whose white space counts as one space, wherever it stands."""
        words = text.split()
        self._has_space |= text[:1].isspace()
        if words:
            self.put_raw(" ".join(words))
            self._has_space = text[-1].isspace()

    def put_lines(self, text: str) -> None:
        """Text that keeps its spaces and line ends, except that it has no two empty lines in a row."""
        for number, line in enumerate(text.split("\n")):
            if number:
                self.add_line_end()
            if line:
                self.put_raw(line)

    def put_raw(self, text: str) -> None:
        if not self._pieces:
            self.begins_with_space = self._has_space
        if self._breaks or not self._pieces:
            text = "\n" * (self._breaks if self._pieces else 0) + self._prefix + text
            self._prefix = ""
        elif self._has_space:
            text = f" {text}"
        self._breaks, self._has_space = 0, False
        self._pieces.append(text)
        self.size += len(text)

    def end_line(self, breaks: int = 1, prefix: str = "") -> None:
        """At least so many line ends come before what follows, and the prefix of its first line."""
        self._breaks = max(self._breaks, breaks)
        self._prefix = prefix or self._prefix

    def add_line_end(self) -> None:
        self._breaks = min(2, self._breaks + 1)

    def add_space(self) -> None:
        self._has_space = True

    @property
    def ends_with_space(self) -> bool:
        return self._has_space or self._breaks > 0

    def __str__(self) -> str:
        return "".join(self._pieces)


class _Reader:
    """Makes a page of tokens."""

    def __init__(self, url: str) -> None:
        self.title = ""
        self.links = _Links(url)
        self.text = _Text()
        self._address: str | None = None
        self._link = _Text()
        self._unseen = ""
        self._in_title = self._in_pre = False
        self._lists: list[int | None] = []
        """Number of the last item, None where items have no number."""
        self._cells = self._images = 0

    @property
    def _out(self) -> _Text:
        return self.text if self._address is None else self._link

    def read(self, token: Token) -> None:
        name = token.name
        if self._unseen:
            # A block within SVG or MathML ends it, as in a browser: it was never closed.
            breaks_out = name in BLOCKS and self._unseen != "template"
            if breaks_out or name == f"/{self._unseen}":
                self._unseen = ""
            if not breaks_out:
                return
        if not name:
            self._read_text(_unescape(token.text))
        elif name in UNSEEN:
            self._unseen = name
        elif name in ("a", "/a"):
            self._end_link()
            self._address = self.links.resolve(_unescape(token.attributes.get("href", "")))
        elif name in ("base", "img"):
            self._read_empty(token)
        elif name == "br":
            self._out.add_line_end()
        elif name.removeprefix("/") in BLOCKS:
            self._read_block(name)
        elif name in ("td", "th"):
            self._out.put(" | " if self._cells else "")
            self._cells += 1
        elif name in ("title", "/title"):
            self._in_title = name == "title"

    def _read_text(self, text: str) -> None:
        text = unmarked(text)
        if self._in_title:
            self.title = self.title or text
            return
        put = self._out.put_lines if self._in_pre else self._out.put
        put(text)
        if self._address is not None and self._link.size > LINK_TEXT:
            self._end_link()

    def _read_empty(self, token: Token) -> None:
        if token.name == "base":
            self.links.base = self.links.resolve(_unescape(token.attributes.get("href", ""))) or self.links.base
        elif alt := " ".join(_unescape(token.attributes.get("alt") or token.attributes.get("title", "")).split()):
            self._out.put(unmarked(f"[Image {self._images}: {alt}]"))
            self._images += 1

    def _read_block(self, name: str) -> None:
        plain = name.removeprefix("/")
        opens = plain == name
        if self._address is not None:
            self._link.add_space()
            return
        if plain in ("ul", "ol"):
            if opens:
                self._lists.append(0 if plain == "ol" else None)
            elif self._lists:
                self._lists.pop()
        self._in_pre = opens if plain == "pre" else self._in_pre
        self._cells = 0 if plain == "tr" else self._cells
        prefix = HEADINGS.get(name, "> " if name == "blockquote" else self._item() if name == "li" else "")
        self.text.end_line(2 if plain in PARAGRAPHS else 1, prefix)

    def _item(self) -> str:
        indent = "  " * min(max(1, len(self._lists)), MOST_INDENT)
        if not self._lists or self._lists[-1] is None:
            return f"{indent}* "
        self._lists[-1] += 1
        return f"{indent}{self._lists[-1]}. "

    def _end_link(self) -> None:
        address, text = self._address, self._link
        self._address, self._link = None, _Text()
        if address is None:
            return
        if text.begins_with_space:
            self.text.add_space()
        if text.size:
            self.text.put(self.links.mark(address, str(text)))
        if text.ends_with_space:
            self.text.add_space()


def read_html(source: str, url: str, *, is_cut: bool = False) -> Page:
    """A page of HTML, however broken; `is_cut` says that there is more of it than `source`."""
    reader = _Reader(url)
    for token in tokens(_SCRIPT.sub(lambda match: ("^{" if match[1][2] in "pP" else "_{") + match[2] + "}", source)):
        reader.read(token)
        if reader.text.size > MOST_TEXT:
            break
    reader.read(Token("/a"))
    return _page(url, reader.title, str(reader.text), reader.links, source, is_cut)


def read_text(source: str, url: str, *, is_markdown: bool = False, is_cut: bool = False) -> Page:
    """A page of lines as they are; in Markdown, links are links and the first heading is the title."""
    links = _Links(url)

    def mark(match: re.Match[str]) -> str:
        if match[1]:
            return f"[Image: {match[2]}]"
        address = links.resolve(match[3])
        return match[2] if address is None else links.mark(address, match[2])

    text = unmarked(source[: MOST_TEXT + 1])
    if not is_markdown:
        return _page(url, "", text, links, source, is_cut)
    heading = _MARKDOWN_HEADING.search(text)
    return _page(url, heading[1] if heading else "", _MARKDOWN_LINK.sub(mark, text), links, source, is_cut)


def _page(url: str, title: str, text: str, links: _Links, source: str, is_cut: bool) -> Page:
    text = text.strip("\n")
    if is_cut or len(text) > MOST_TEXT:
        text = text[:MOST_TEXT] + GOES_ON
    title = " ".join(title.split()) or domain_of(url) or url
    return Page(url, title, f"\nURL: {unmarked(url)}\n{text}", links.addresses, source)
