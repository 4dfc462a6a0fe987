"""A backend over the web: a search API that an operator has a key for, and the pages themselves.

`offer.py` lists the variables of the environment that configure it. The key goes to the API's address and nowhere else.

    style   request                                              results
    exa     POST {query, numResults, contents: {summary: true}}  results[]: title, url, summary
    you     GET ?query=&count=                                   results.web[]: title, url, description, snippets[]
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from vllm_gptoss.tools.backend import BackendError, Result
from vllm_gptoss.tools.fetch import CHUNK, Fetcher
from vllm_gptoss.tools.page import Page, one_line

SECONDS = 20.0
MOST_BYTES = 4 << 20
SHOWN_ERROR = 200

ADDRESSES = {"exa": "https://api.exa.ai/search", "you": "https://api.ydc-index.io/v1/search"}
KEYS = {"exa": ("x-api-key", "EXA_API_KEY"), "you": ("X-API-Key", "YDC_API_KEY")}
"""Header, and variable of the environment."""
SUMMARIES = ("summary", "description", "snippet", "text", "snippets", "highlights")
"""Names of what a result says of its page, the best first; a list counts by its first."""


@dataclass(frozen=True)
class SearchApi:
    style: str
    url: str
    key: str = field(repr=False)


def search_api(environment: Mapping[str, str]) -> SearchApi:
    """The search API that the environment describes.

    Raises: ValueError with what is missing in it.
    """
    style = environment.get("GPTOSS_SEARCH") or "exa"
    if style not in ADDRESSES:
        raise ValueError(f"GPTOSS_SEARCH is {style!r}; it can be {' or '.join(ADDRESSES)}")
    key = environment.get("GPTOSS_SEARCH_KEY") or environment.get(KEYS[style][1]) or ""
    if not key and not environment.get("GPTOSS_SEARCH_URL"):
        raise ValueError(f"neither GPTOSS_SEARCH_KEY nor {KEYS[style][1]} holds the key of a search API")
    return SearchApi(style, environment.get("GPTOSS_SEARCH_URL") or ADDRESSES[style], key)


class WebBackend:
    """`allowed` names networks that are fetched from though they are not public, such as `10.1.0.0/16`."""

    def __init__(self, api: SearchApi, allowed: Sequence[str] = ()) -> None:
        self._api = api
        self._fetcher = Fetcher(allowed)

    async def fetch(self, url: str) -> Page:
        return await self._fetcher.fetch(url)

    async def search(self, query: str, topn: int) -> list[Result]:
        try:
            async with asyncio.timeout(SECONDS), aiohttp.ClientSession() as session:
                found = _results(await self._ask(session, query, topn))
        except TimeoutError as error:
            raise BackendError(f"The search did not answer within {SECONDS:g} s. Search again.") from error
        except (aiohttp.ClientError, OSError, ValueError, RecursionError) as error:
            reason = one_line(str(error) or type(error).__name__, SHOWN_ERROR)
            raise BackendError(f"The search failed: {reason}. Go on without it.") from error
        return found[:topn]

    async def _ask(self, session: aiohttp.ClientSession, query: str, topn: int) -> Any:
        headers = {KEYS[self._api.style][0]: self._api.key} if self._api.key else {}
        if self._api.style == "exa":
            body = {"query": query, "numResults": topn, "contents": {"summary": True}}
            request = session.post(self._api.url, json=body, headers=headers, allow_redirects=False)
        else:
            parameters = {"query": query, "count": str(topn)}
            request = session.get(self._api.url, params=parameters, headers=headers, allow_redirects=False)
        async with request as response:
            if response.status != 200:
                raise ValueError(f"the search API answers with status {response.status}")
            data = bytearray()
            async for chunk in response.content.iter_chunked(CHUNK):
                data += chunk
                if len(data) > MOST_BYTES:
                    raise ValueError("the search API answers with too much")
        return json.loads(data)


def _results(data: Any) -> list[Result]:
    """What of an answer is a result; the rest of it is nothing to rely on."""
    found = data.get("results") if isinstance(data, dict) else None
    if isinstance(found, dict):
        found = found.get("web")
    if not isinstance(found, list):
        raise ValueError("the search API answers with something else than results")
    found = [item for item in found if isinstance(item, dict) and _is_page(item.get("url"))]
    return [Result(item["url"], _text(item.get("title")), _summary(item)) for item in found]


def _summary(item: dict[str, Any]) -> str:
    return next(filter(None, (_text(item.get(name)) for name in SUMMARIES)), "")


def _text(value: Any) -> str:
    if isinstance(value, list):
        value = value[0] if value else ""
    return value if isinstance(value, str) else ""


def _is_page(url: Any) -> bool:
    try:
        return isinstance(url, str) and urlsplit(url).scheme in ("http", "https")
    except ValueError:
        return False
