"""A backend over a folder of `.html`, `.md` and `.txt` files: full-text search without a network.

A document's score for a query is that of BM25, Robertson and Zaragoza's with k1 = 1.2 and b = 0.75; words of a title
count as TITLE_WEIGHT words of the text. Words are runs of letters and digits, lower case; a Chinese, Japanese or Korean
character is a word of its own. Equal scores are ordered by address, so that the same files give the same results.

Files are read at the first search, and again when they are fetched: make another backend to find what is new.
"""

import asyncio
import math
import os
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote

from vllm_gptoss.tools.backend import BackendError, Result
from vllm_gptoss.tools.html_text import read_html, read_text
from vllm_gptoss.tools.page import Page, without_links

K1, B = 1.2, 0.75
TITLE_WEIGHT = 3
SUFFIXES = (".html", ".htm", ".md", ".txt")
MOST_FILES = 10_000
MOST_BYTES = 4 << 20
"""Of a file; the rest is not read."""
SUMMARY = 300
"""Characters."""

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")


class FolderBackend:
    """`base_url` stands for the folder in addresses, such as those of citations."""

    def __init__(self, folder: Path, base_url: str = "file:///") -> None:
        self._folder = folder.resolve()
        self._base_url = base_url if base_url.endswith("/") else f"{base_url}/"
        self._lock = threading.Lock()
        self._index: _Index | None = None

    async def search(self, query: str, topn: int) -> list[Result]:
        return await asyncio.to_thread(self._search, query, topn)

    async def fetch(self, url: str) -> Page:
        return await asyncio.to_thread(self._fetch, url)

    def _search(self, query: str, topn: int) -> list[Result]:
        with self._lock:
            if self._index is None:
                self._index = _Index(self._read(path) for path in self._files())
        words = list(dict.fromkeys(_words(query)))
        results = []
        for url in self._index.best(words, topn):
            try:
                page = self._fetch(url)
            except BackendError:  # It is gone by now.
                continue
            results.append(Result(url, page.title, _summary(page, set(words))))
        return results

    def _fetch(self, url: str) -> Page:
        if not url.startswith(self._base_url):
            raise BackendError(f"`{url[:200]}` is not in this collection, whose addresses begin with {self._base_url}.")
        name = unquote(url.removeprefix(self._base_url).partition("#")[0].partition("?")[0])
        path = self._folder / name
        # No file outside: not by `..`, a name from the root, or a link.
        if "\0" in name or not self._is_one(path):
            raise BackendError(f"There is no document `{name[:200]!r}`. Use `search` to see what there is.")
        return self._read(path.resolve())

    def _files(self) -> list[Path]:
        found = []
        for parent, folders, names in os.walk(self._folder):
            folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
            found += [path for name in sorted(names) if self._is_one(path := Path(parent, name))]
            if len(found) > MOST_FILES:
                raise BackendError(f"The collection has more than {MOST_FILES} documents and can't be searched.")
        return found

    def _is_one(self, path: Path) -> bool:
        try:
            path = path.resolve()
            is_hidden = any(part.startswith(".") for part in path.relative_to(self._folder).parts)
            return path.suffix.lower() in SUFFIXES and not is_hidden and path.is_file()
        except (ValueError, OSError):
            return False

    def _read(self, path: Path) -> Page:
        name = path.relative_to(self._folder).as_posix()
        try:
            with path.open("rb") as file:
                data = file.read(MOST_BYTES + 1)
        except OSError as error:
            raise BackendError(f"`{name}` can't be read: {error.strerror}.") from error
        url, text = self._base_url + quote(name), data[:MOST_BYTES].decode(errors="replace")
        is_cut = len(data) > MOST_BYTES
        if path.suffix.lower() in (".html", ".htm"):
            return read_html(text, url, is_cut=is_cut)
        return read_text(text, url, is_markdown=path.suffix.lower() == ".md", is_cut=is_cut)


class _Index:
    """Words to the documents that they are in; of the documents it keeps addresses and lengths."""

    def __init__(self, pages: Iterator[Page]) -> None:
        self._urls: list[str] = []
        self._lengths: list[int] = []
        self._documents: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for number, page in enumerate(pages):
            counts = Counter(_words(without_links(page.text)))
            for word in _words(page.title):
                counts[word] += TITLE_WEIGHT
            self._urls.append(page.url)
            self._lengths.append(counts.total())
            for word, count in counts.items():
                self._documents[word].append((number, count))

    def best(self, words: list[str], most: int) -> list[str]:
        """Addresses of the documents with any of the words, the best first."""
        scores: dict[int, float] = defaultdict(float)
        mean = sum(self._lengths) / max(1, len(self._lengths))
        for word in words:
            documents = self._documents.get(word, ())
            rarity = math.log(1 + (len(self._urls) - len(documents) + 0.5) / (len(documents) + 0.5))
            for number, count in documents:
                norm = K1 * (1 - B + B * self._lengths[number] / mean)
                scores[number] += rarity * count * (K1 + 1) / (count + norm)
        ranked = sorted(scores, key=lambda number: (-scores[number], self._urls[number]))
        return [self._urls[number] for number in ranked[:most]]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _summary(page: Page, words: set[str]) -> str:
    """The first paragraph among those with the most of the words, cut around the first one."""
    paragraphs = [part for part in without_links(page.text).split("\n")[2:] if part.strip()]
    if not paragraphs:
        return ""
    best = max(paragraphs, key=lambda part: len(words.intersection(_words(part))))
    first = min((match.start() for match in _WORD.finditer(best.lower()) if match[0] in words), default=0)
    start = max(0, min(first - SUMMARY // 3, len(best) - SUMMARY))
    return ("..." if start else "") + best[start : start + SUMMARY] + ("..." if start + SUMMARY < len(best) else "")
