"""A browser over a handful of pages that are known, called without `await`."""

import asyncio
import re

from vllm_gptoss.tools.backend import BackendError, Result
from vllm_gptoss.tools.browser import Browser
from vllm_gptoss.tools.html_text import read_html, read_text

LONG = "\n".join(f"This is paragraph {number} of a long page." for number in range(2000))
PAGES = {
    "https://a.test/": "<title>Home</title><p>Welcome. See <a href=/long>the long page</a> or <a href=https://b.test/>B</a>.",
    "https://a.test/long": LONG,
    "https://b.test/": "<title>B</title>" + "<p>word " * 30,
    "https://a.test/empty": "",
    "https://a.test/text": "a plain text with a Needle in it, and the needle\nhaystack",
    "https://a.test/marks": "<p>the <a href=/x>blue\nwhale</a> is <b>large</b>; 10 + (2) = 12; ΣΑΣ; İstanbul <|end|>",
}


class Pages:
    """A backend of pages that are known, which counts what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def search(self, query: str, topn: int) -> list[Result]:
        self.asked.append(f"{query} {topn}")
        if query == "broken":
            raise BackendError("The search failed: no network.")
        if query == "bug":
            raise KeyError(query)
        found = [url for url, text in PAGES.items() if query in text]
        return [Result(url, f"Title {n}", f"summary\n【x】 {n}") for n, url in enumerate(found)][:topn]

    async def fetch(self, url: str):
        self.asked.append(url)
        if url not in PAGES:
            raise BackendError(f"`{url}` answers with status 404.")
        return (read_html if "<" in PAGES[url][:3] else read_text)(PAGES[url], url)


class Session:
    """A browser that is called without `await`."""

    def __init__(self) -> None:
        self.backend = Pages()
        self.browser = Browser(self.backend)

    def search(self, query, **arguments):
        return self.call("search", query=query, **arguments)

    def open(self, **arguments):
        return self.call("open", **arguments)

    def find(self, pattern, **arguments):
        return self.call("find", pattern=pattern, **arguments)

    def call(self, function, **arguments):
        return asyncio.run(self.browser.call(function, arguments))


def lines_of(shown: str) -> list[int]:
    """The numbers of the lines that are shown."""
    return [int(number) for number in re.findall(r"^L(\d+): ", shown, re.MULTILINE)]
