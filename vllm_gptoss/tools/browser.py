"""gpt-oss's built-in tool `browser`: search, open, find; every call answers with a page or with what is wrong.

    browser = Browser(FolderBackend(Path("docs")))         # one a response
    print(await browser.call("search", {"query": "install"}))
    print(await browser.call("open", {"id": 0}))
    browser.visits, annotations(answer, browser.visits)    # what was seen, and what the answer cites of it

A call that shows a page gives it the next cursor, from `first_cursor` on; one that fails gives none. Names, parameters
and defaults are those of harmony's description of the tool. `source` has no effect: there is one.
"""

import json
import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from openai_harmony import Message, ToolNamespaceConfig

from vllm_gptoss.tools.backend import Backend, BackendError
from vllm_gptoss.tools.messages import answer, text_of
from vllm_gptoss.tools.page import Page, one_line, show, unmarked
from vllm_gptoss.tools.visit import Visit, results_of_find, results_of_search, visit

logger = logging.getLogger(__name__)

PARAMETERS = {
    "search": ("query", "topn", "source"),
    "open": ("id", "cursor", "loc", "num_lines", "view_source", "source"),
    "find": ("pattern", "cursor"),
}
WINDOW = 1024
"""Tokens that are shown at a time."""
ASKED_WINDOW = 8192
"""Tokens where the model says how many lines it wants."""
RESULTS, MOST_RESULTS = 10, 20
MOST_PATTERN = 500
"""Characters of a query or pattern."""
LINES_BEFORE_A_MATCH = 4
MOST_HELD = 32_000_000
"""Characters of all pages of a response, with their sources."""
VIEW_SOURCE = "view-source:"


class Called(NamedTuple):
    """What a call asks for, for whoever watches."""

    function: str
    text: str
    """The query or pattern; all that there is of a call that can't be read."""
    url: str
    """Of the page that is opened, or looked into; empty where that is not known."""


class UsageError(ValueError):
    """A call that can't be made like this, and how it can."""


class Browser:
    """The tool for one response."""

    name = "browser"

    def __init__(self, backend: Backend, first_cursor: int = 0) -> None:
        self.backend = backend
        self.visits: dict[int, Visit] = {}
        """By cursor, in the order of the calls."""
        self._first = first_cursor
        self._opened: dict[str, Page] = {}
        self._held = 0

    @property
    def config(self) -> ToolNamespaceConfig:
        """What the model is told."""
        return ToolNamespaceConfig.browser()

    async def process(self, call: Message) -> list[Message]:
        """The answer to a call of `browser.<function>` whose body is JSON."""
        function = (call.recipient or "").partition(".")[2]
        return [answer(call, await self.call(function, text_of(call)))]

    async def call(self, function: str, arguments: str | Mapping[str, Any]) -> str:
        """The page that a call shows, or what is wrong with it; never raises."""
        try:
            if function not in PARAMETERS:
                raise UsageError(f"`browser.{function}` is no function. The functions are {', '.join(PARAMETERS)}.")
            arguments = _Arguments(function, arguments)
            return await getattr(self, f"_{function}")(arguments)
        except (UsageError, BackendError) as error:
            return str(error)
        except Exception:
            logger.exception("browser.%s failed", function)
            return f"`{function}` failed by a fault of the browser. Try another page, or go on without."

    def called(self, function: str, arguments: str) -> Called:
        """What a call asks for, as far as that can be said before it is made; never raises."""
        try:
            read = _Arguments(function, arguments)
            if function == "search":
                return Called(function, read.text("query"), "")
            text = read.text("pattern") if function == "find" else ""
            wanted = read.link("id") if function == "open" else -1
            return Called(function, text, wanted if isinstance(wanted, str) else self._address(read, wanted))
        except (UsageError, KeyError):
            return Called(function, one_line(arguments, MOST_PATTERN), "")

    def _address(self, arguments: "_Arguments", number: int) -> str:
        """Of a link, or without one of the page itself."""
        here = self._visit(arguments.number("cursor", -1))
        if 0 <= number < len(here.page.links):
            return here.page.links[number]
        source = here.source_of(0)
        return source.url if source is not None and number < 0 else ""

    async def _search(self, arguments: "_Arguments") -> str:
        query = arguments.text("query")
        topn = arguments.number("topn", RESULTS)
        results = await self.backend.search(query, max(1, min(topn, MOST_RESULTS)))
        if not results:
            raise UsageError(f"No results for `{query}`. Search for other or fewer words.")
        return self._show(results_of_search(query, results), 0)

    async def _open(self, arguments: "_Arguments") -> str:
        wanted, lines = arguments.link("id"), arguments.number("num_lines", -1)
        if isinstance(wanted, str):
            opened, first = visit(await self._fetch(wanted)), 0
        else:
            opened, first = await self._follow(self._visit(arguments.number("cursor", -1)), wanted)
        if arguments.flag("view_source"):
            opened, first = _source(opened.page), 0
        if (asked := arguments.number("loc", -1)) >= 0:
            first = asked
        return self._show(opened, first, lines if lines > 0 else None)

    async def _follow(self, here: Visit, number: int) -> tuple[Visit, int]:
        """Where a link leads, and to which line; without a link to where it is."""
        if number < 0:
            return here, 0
        links = here.page.links
        if number >= len(links):
            known = f"whose links are 0 to {len(links) - 1}" if links else "which has no links"
            raise UsageError(f"Link {number} is not on the page `{here.page.name}`, {known}.")
        if here.searched is not None:
            return visit(here.searched), max(0, here.matches[number] - LINES_BEFORE_A_MATCH)
        return visit(self._opened.get(links[number]) or await self._fetch(links[number])), 0

    async def _find(self, arguments: "_Arguments") -> str:
        pattern = arguments.text("pattern")
        here = self._visit(arguments.number("cursor", -1))
        if here.is_search or here.searched is not None:
            raise UsageError("`find` does not look into lists of results. Open one of their links first.")
        return self._show(results_of_find(pattern, here.page), 0)

    async def _fetch(self, url: str) -> Page:
        if self._held > MOST_HELD:
            raise UsageError("Too many pages were opened for one answer. Go on with what has been read.")
        page = await self.backend.fetch(url)
        self._held += len(page.text) + len(page.source)
        self._opened[url] = page
        return page

    def _visit(self, cursor: int) -> Visit:
        if not self.visits:
            raise UsageError("No page is open yet. Use `search`, or `open` with a URL as `id`.")
        last = self._first + len(self.visits) - 1
        cursor = last if cursor == -1 else cursor
        if cursor not in self.visits:
            raise UsageError(f"Cursor {cursor} does not exist. Cursors go from {self._first} to {last}.")
        return self.visits[cursor]

    def _show(self, opened: Visit, first: int, lines: int | None = None) -> str:
        last = len(opened.page.starts) - 1
        if first > last:
            raise UsageError(f"Line {first} is beyond the end of `{opened.page.name}`, whose last line is {last}.")
        cursor = self._first + len(self.visits)
        shown = show(opened.page, cursor, first, lines, WINDOW if lines is None else ASKED_WINDOW)
        self.visits[cursor] = opened
        return shown


def _source(page: Page) -> Visit:
    if not page.source:
        raise UsageError(f"`{page.name}` has no source. Leave `view_source` out.")
    return visit(Page(VIEW_SOURCE + page.url, page.title, unmarked(page.source)), url=page.url)


class _Arguments:
    """What a model has written, read as it was meant where that is clear.

    Raises: UsageError from all methods.
    """

    def __init__(self, function: str, arguments: str | Mapping[str, Any]) -> None:
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments or "{}")
            except (ValueError, RecursionError) as error:
                raise UsageError(f"The arguments of `{function}` are not JSON: {error}. Call it again.") from error
        if not isinstance(arguments, Mapping):
            raise UsageError(f"The arguments of `{function}` must be a JSON object.")
        parameters = PARAMETERS[function]
        if unknown := [str(name) for name in arguments if name not in parameters]:
            raise UsageError(
                f"`{function}` does not take {', '.join(unknown)[:100]}. It takes {', '.join(parameters)}."
            )
        self._function = function
        self._values = {name: value for name, value in arguments.items() if value is not None}

    def text(self, name: str) -> str:
        value = self._values.get(name)
        value = str(value) if isinstance(value, int | float) else value
        if not isinstance(value, str) or not value.strip():
            raise UsageError(f"`{self._function}` needs `{name}`, a text that is not empty.")
        if len(value) > MOST_PATTERN:
            raise UsageError(f"`{name}` has {len(value)} characters; {MOST_PATTERN} are possible.")
        return value

    def number(self, name: str, default: int) -> int:
        value = self._values.get(name, default)
        if isinstance(value, str) and value.strip().removeprefix("-").isdecimal() and len(value) < 10:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
            raise UsageError(f"`{name}` must be a whole number.")
        return int(value)

    def link(self, name: str) -> int | str:
        """The number of a link, or a URL."""
        value = self._values.get(name)
        if isinstance(value, str) and ":" in value:
            return value.strip()
        try:
            return self.number(name, -1)
        except UsageError as error:
            raise UsageError(
                f"`{name}` must be the number of a link, or a whole URL with https:// at its beginning."
            ) from error

    def flag(self, name: str) -> bool:
        value = self._values.get(name, False)
        if not isinstance(value, bool):
            raise UsageError(f"`{name}` must be true or false.")
        return value
