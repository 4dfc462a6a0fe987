"""Any text at all as HTML: tags, and the text between them, in one pass whose cost is linear.

Pages come from anybody. The parser of the standard library is not used for that reason: on `"<a " * 33_000`, 100 KB, it
took 83 s (Python 3.11.7). Like a browser, this one ends a comment, a script or a quoted value that is never closed with
the document; a tag that never ends is text.

Source: the tokenizer of the HTML standard, in so far as it matters to text.
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

RAW = frozenset({"script", "style", "iframe", "noembed", "noframes", "textarea", "title", "xmp"})
"""Elements whose content has no tags in it; only the title's is kept."""

_TAG = re.compile(r"</?[a-zA-Z][^\s/>]*")
_ATTRIBUTE = re.compile(r"""[\s/]*([^\s/>][^\s/>=]*)(?:\s*=\s*("[^"]*"|'[^']*'|[^\s"'>][^\s>]*))?""")


class Token(NamedTuple):
    name: str
    """Of the tag in lower case, with a slash before it where it closes; empty for text."""
    text: str = ""
    attributes: Mapping[str, str] = {}


def tokens(source: str) -> Iterator[Token]:
    """Tags and the text between them; comments and scripts are left out."""
    at = 0
    while (start := source.find("<", at)) >= 0:
        if start > at:
            yield Token("", source[at:start])
        if tag := _TAG.match(source, start):
            name = tag[0][1:].lower()
            attributes, at = _attributes(source, tag.end())
            if at > len(source):
                yield Token("", source[start:])
                return
            yield Token(name, attributes=attributes)
            if name in RAW:
                close = re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE).search(source, at)
                end = close.start() if close else len(source)
                if name == "title":
                    yield Token("", source[at:end])
                at = end
        elif source.startswith("<!--", start):
            at = _behind(source, "-->", start + 2)
        elif source[start + 1 : start + 2] in ("!", "?", "/"):
            at = _behind(source, ">", start)
        else:
            yield Token("", "<")
            at = start + 1
    if at < len(source):
        yield Token("", source[at:])


def _attributes(source: str, at: int) -> tuple[dict[str, str], int]:
    """The attributes from `at` on, and the place behind their tag; a place beyond the end when it never ends."""
    found: dict[str, str] = {}
    while attribute := _ATTRIBUTE.match(source, at):
        name, value = attribute[1].lower(), attribute[2] or ""
        if value[:1] in ('"', "'"):
            value = value[1:-1]
        found.setdefault(name, value)
        at = attribute.end()
    return found, _behind(source, ">", at, missing=len(source) + 1)


def _behind(source: str, mark: str, at: int, missing: int | None = None) -> int:
    found = source.find(mark, at)
    if found < 0:
        return len(source) if missing is None else missing
    return found + len(mark)
