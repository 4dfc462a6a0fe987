"""Where the browser's pages come from."""

from dataclasses import dataclass
from typing import Protocol

from vllm_gptoss.tools.page import Page


class BackendError(Exception):
    """What went wrong, in words for the model; they name no key and no path of the server."""


@dataclass(frozen=True)
class Result:
    url: str
    title: str
    summary: str
    """A few sentences, in which line ends mean nothing."""


class Backend(Protocol):
    """One for all responses of a server. Both methods raise BackendError and nothing else."""

    async def search(self, query: str, topn: int) -> list[Result]:
        """At most `topn` results, the best first; none is no error."""

    async def fetch(self, url: str) -> Page:
        """The page at an address, as it is now."""
