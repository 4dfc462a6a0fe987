"""What the browser shows: pages as numbered lines, a window of tokens at a time.

    [3] Title (https://example.org/a)
    **viewing lines [2 - 3] of 90**

    L2: A line has up to 80 characters; 【0†a link】 and 【1†one to elsewhere†example.com】
    L3: are numbered on their page.

The brackets 【】 mark links and citations, so that those of a page's own text become 〖〗, and † in a link's text ‡.
Source: harmony's description of the browser tool; the display is the one of OpenAI's reference implementation.
"""

import bisect
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from openai_harmony import HarmonyEncoding, HarmonyEncodingName, load_harmony_encoding

WIDTH = 80
"""Characters of a line."""
LINK_TEXT = 300
"""Characters of a link, at most."""
SHOWN_URL, SHOWN_TITLE = 1024, 300
"""Characters of a header."""

_LINE = re.compile(rf".{{1,{WIDTH - 1}}}(?:\s|$)|.{{1,{WIDTH}}}")
"""Up to the last white space that fits, which stays; a longer word is broken."""

LINK_PATTERN = re.compile(r"【\d+†([^【】†]*)(?:†[^【】†]*)?】")
_LINK_BEGUN_BEFORE = re.compile(r"^[^【】]*】")
_LINK_ENDED_LATER = re.compile(r"【\d*(?:†([^【】†]*)(?:†[^【】†]*)?)?$")
_UNMARKED = str.maketrans({"【": "〖", "】": "〗", "\u200b": None, "\r": None, "\x00": None})


@dataclass(frozen=True)
class Page:
    """Text with links in it; `links[id]` is the address that `【id†…】` leads to."""

    url: str
    title: str
    text: str
    links: tuple[str, ...] = ()
    source: str = ""
    """The text as it was fetched, before it was made readable."""

    @property
    def name(self) -> str:
        """The title in one line."""
        return one_line(self.title, SHOWN_TITLE)

    @functools.cached_property
    def starts(self) -> list[int]:
        """Where in `text` each line begins."""
        starts, start = [], 0
        for paragraph in self.text.split("\n"):
            # An empty paragraph is a line too.
            starts += [start + match.start() for match in _LINE.finditer(paragraph)] or [start]
            start += len(paragraph) + 1
        return starts

    def lines(self, first: int, end: int) -> Iterator[str]:
        for number in range(first, min(end, len(self.starts))):
            stop = self.starts[number + 1] if number + 1 < len(self.starts) else None
            yield self.text[self.starts[number] : stop].removesuffix("\n")

    def line_at(self, index: int) -> int:
        """The line in which the character `index` of `text` stands."""
        return bisect.bisect_right(self.starts, index) - 1


def unmarked(text: str) -> str:
    """Text of others, without the signs that have a meaning here."""
    return text.translate(_UNMARKED)


def one_line(text: str, most: int) -> str:
    """The same in one line of at most so many characters."""
    text = " ".join(unmarked(text).split())
    return text if len(text) <= most else f"{text[: most - 3]}..."


def link(number: int, text: str, url: str, page_url: str) -> str:
    """`【id†text】`, with the domain where the link leaves that of its page."""
    domain = domain_of(url)
    text = one_line(text.replace("†", "‡"), LINK_TEXT)
    return f"【{number}†{text}】" if domain in ("", domain_of(page_url)) else f"【{number}†{text}†{unmarked(domain)}】"


def domain_of(url: str) -> str:
    """Host and port of an address, empty where it has none or is no address."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        return ""


def without_links(text: str) -> str:
    """Links by their text alone, those that the text begins or ends within too."""
    text = _LINK_BEGUN_BEFORE.sub("", LINK_PATTERN.sub(r"\1", text))
    return _LINK_ENDED_LATER.sub(lambda match: match[1] or "", text)


def show(page: Page, cursor: int, first: int, lines: int | None, tokens: int) -> str:
    """A window on `page` from line `first` on: as many lines as are in `tokens`, and no more than `lines`.

    At least one is shown.
    """
    total = len(page.starts)
    shown, used = [], 0
    for number, line in enumerate(page.lines(first, total if lines is None else first + lines), first):
        numbered = f"L{number}: {line}"
        used += _count_tokens(numbered + "\n")
        if shown and used > tokens:
            break
        shown.append(numbered)
    address = one_line(unquote(page.url), SHOWN_URL)
    title = f"{page.name} ({address})" if address else page.name
    scrollbar = f"**viewing lines [{first} - {first + len(shown) - 1}] of {total - 1}**"
    return "\n".join([f"[{cursor}] {title}", scrollbar, "", *shown])


def _count_tokens(text: str) -> int:
    return len(encoding().encode(text, disallowed_special=()))


@functools.cache
def encoding() -> HarmonyEncoding:
    """The vocabulary, loaded once."""
    return load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)
