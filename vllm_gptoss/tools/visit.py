"""What one call of the browser has opened: the pages that it makes itself, and what a line of each is a citation of."""

import bisect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from vllm_gptoss.tools.backend import Result
from vllm_gptoss.tools.page import LINK_PATTERN, Page, domain_of, link, one_line, without_links

SUMMARY = 500
"""Characters of a search result."""
MOST_MATCHES = 50
MATCH_LINES = 4
"""Lines that a match is shown with, itself the first; the next match is looked for behind them."""
SHOWN_PATTERN = 200
_LINK_OR_SPACE = re.compile(rf"{LINK_PATTERN.pattern}|\s{{2,}}")
MORE = "\n\n(There are more matches. A longer pattern has fewer.)"


@dataclass(frozen=True)
class Source:
    """From line `first` on, what the page says is taken from here."""

    first: int
    url: str
    title: str


@dataclass(frozen=True)
class Visit:
    page: Page
    sources: tuple[Source, ...]
    searched: Page | None = None
    """For results of `find`: where they were found."""
    matches: tuple[int, ...] = ()
    """Their lines there, by the number of their link."""
    is_search: bool = False

    def source_of(self, line: int) -> Source | None:
        number = bisect.bisect_right([source.first for source in self.sources], line)
        return self.sources[number - 1] if number else None


def visit(page: Page, url: str | None = None) -> Visit:
    """A page that was fetched, and is cited by its own address unless another is given."""
    return Visit(page, (Source(0, page.url if url is None else url, page.name),))


def results_of_search(query: str, results: Sequence[Result]) -> Visit:
    """Like a page without an address, on which link n leads to result n."""
    lines, starts = ["", "URL: ", "# Search Results", ""], []
    for number, result in enumerate(results):
        text = link(number, result.title or domain_of(result.url) or result.url, result.url, "")
        starts.append(len("\n".join(lines)) + 1)
        lines.append(f"  * {text} {one_line(result.summary, SUMMARY)}".rstrip())
    page = Page("", query, "\n".join(lines), tuple(result.url for result in results))
    sources = (
        Source(page.line_at(start), result.url, result.title) for start, result in zip(starts, results, strict=True)
    )
    return Visit(page, tuple(sources), is_search=True)


def results_of_find(pattern: str, page: Page) -> Visit:
    """Matches of `pattern` in the text of `page`, links by their text alone.

    Upper and lower case are the same, and so is all white space, the ends of lines too. The cost is linear.
    """
    text = _Plain(page.text)
    lines: list[int] = []
    shown = []
    more = ""
    for place in text.find(pattern):
        line = page.line_at(place)
        if lines and line < lines[-1] + MATCH_LINES:
            continue
        if len(lines) == MOST_MATCHES:
            more = MORE
            break
        snippet = without_links("\n".join(page.lines(line, line + MATCH_LINES)))
        shown.append(f"# 【{len(lines)}†match at L{line}】\n{snippet}")
        lines.append(line)
    pattern = one_line(pattern, SHOWN_PATTERN)
    results = Page(
        f"{page.url}/find?pattern={quote(pattern)}",
        f"Find results for text: `{pattern}` in `{page.name}`",
        "\n\n".join(shown) + more if shown else f"No `find` results for pattern: `{pattern}`",
        (page.url,) * len(lines),
    )
    return Visit(results, (Source(0, page.url, page.name),), page, tuple(lines))


class _Plain:
    """A text without the marks of its links and without case, white space as single spaces."""

    def __init__(self, text: str) -> None:
        self._starts: list[int] = []
        self._places: list[int] = []
        """Where pieces begin, in what is searched and in the text."""
        pieces, size, end = [], 0, 0
        for match in _LINK_OR_SPACE.finditer(text):
            linked = match.span(1) if match[1] is not None else None
            for start, stop in filter(None, ((end, match.start()), linked)):
                pieces.append(text[start:stop])
                self._starts.append(size)
                self._places.append(start)
                size += stop - start
            if linked is None:
                pieces.append(" ")
                self._starts.append(size)
                self._places.append(match.start())
                size += 1
            end = match.end()
        self._starts.append(size)
        self._places.append(end)
        self._text = _folded("".join([*pieces, text[end:]]))

    def find(self, pattern: str) -> Iterator[int]:
        """Places in the text at which matches begin; they do not overlap."""
        wanted = " ".join(_folded(pattern).split())
        at = self._text.find(wanted)
        while at >= 0:
            piece = bisect.bisect_right(self._starts, at) - 1
            yield self._places[piece] + at - self._starts[piece]
            at = self._text.find(wanted, at + len(wanted))


def _folded(text: str) -> str:
    """Without case where that leaves a character one character; white space as spaces."""
    table = {ord(letter): folded for letter in set(text) if len(folded := letter.casefold()) == 1}
    return text.translate(table | {ord(letter): " " for letter in set(text) if letter.isspace()})
