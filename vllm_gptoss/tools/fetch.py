"""A page off the web, asked for by a model: within limits of time and size, text alone, and public addresses alone.

Every connection passes one door, `_Door`, which sees the address that it is about to connect to. So neither a name that
resolves inward, nor another way to write an address, nor a redirect, nor a second answer of a name server leads to the
machines around this one. No proxy of the environment is used: it would connect in this one's place.
"""

import asyncio
import codecs
import ipaddress
import re
import socket
import zlib
from collections.abc import Sequence
from urllib.parse import urljoin, urlsplit

import aiohttp

from vllm_gptoss.tools.backend import BackendError
from vllm_gptoss.tools.html_text import read_html, read_text
from vllm_gptoss.tools.page import Page, one_line

SECONDS = 20.0
"""For a page, with all redirects."""
MOST_BYTES = 4 << 20
"""Of a body, decompressed; what comes behind them is cut off."""
CHUNK = 1 << 16
MOST_REDIRECTS = 5
REDIRECTS = (301, 302, 303, 307, 308)
SHOWN_URL = 200
HEADERS = {
    "User-Agent": "vllm-gptoss",
    "Accept": "text/html,application/xhtml+xml,text/*;q=0.9,application/json;q=0.8",
    "Accept-Encoding": "gzip",
}
HTML = ("text/html", "application/xhtml+xml")
OTHER_TEXT = re.compile(r"text/.*|application/(json|xml|javascript|.*\+json|.*\+xml)")
NAT64 = ipaddress.ip_network("64:ff9b::/96")

_CHARSET_IN_HTML = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([\w\-]{1,40})", re.IGNORECASE)
_CHARSET = re.compile(
    r"utf-?8|utf-?16(le|be)?|(us-)?ascii|latin-?1|iso-?8859-\d+|windows-\d+|cp\d+|koi8-[ru]"
    r"|gbk|gb2312|gb18030|big5(-hkscs)?|shift[_-]?jis|euc-?(jp|kr)|iso-2022-jp"
)
"""Those of web pages; Python's other codecs are no charsets, or slow on long texts."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public internet, and so does any IPv4 address within it."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if address in NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


class _Door:
    """Makes the sockets of a session, for public addresses and those within `allowed`."""

    def __init__(self, allowed: Sequence[Network]) -> None:
        self.allowed = allowed
        self.refused: str | None = None

    def __call__(self, info: tuple) -> socket.socket:
        family, kind, protocol, _, target = info
        address = ipaddress.ip_address(target[0].partition("%")[0])
        if not is_public(address) and not any(address in network for network in self.allowed):
            self.refused = str(address)
            raise OSError(f"{address} is not a public address")
        return socket.socket(family, kind, protocol)


class Fetcher:
    """Fetches from public addresses, and from those within the networks `allowed`, such as `10.1.0.0/16`."""

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        self._allowed = [ipaddress.ip_network(network) for network in allowed]

    async def fetch(self, url: str) -> Page:
        """The page at an address; where it redirects, the page has the address at its end.

        Raises: BackendError.
        """
        door = _Door(self._allowed)
        try:
            async with (
                asyncio.timeout(SECONDS),
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(socket_factory=door, force_close=True),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    headers=HEADERS,
                    auto_decompress=False,
                    trust_env=False,
                ) as session,
            ):
                return await self._follow(session, url)
        except TimeoutError as error:
            raise BackendError(f"`{_shown(url)}` did not answer within {SECONDS:g} s. Try another page.") from error
        except (aiohttp.ClientError, OSError, ValueError, zlib.error) as error:
            reason = one_line(str(error) or type(error).__name__, SHOWN_URL)
            if door.refused is not None:
                reason = f"it leads to {door.refused}, which is not a public address"
            raise BackendError(f"`{_shown(url)}` can't be fetched: {reason}. Try another page.") from error

    async def _follow(self, session: aiohttp.ClientSession, url: str) -> Page:
        here = url
        for _ in range(MOST_REDIRECTS + 1):
            _check(here)
            async with session.get(here, allow_redirects=False) as response:
                if response.status not in REDIRECTS or "Location" not in response.headers:
                    return await self._take(response, here)
                here = urljoin(here, response.headers["Location"])
        raise BackendError(f"`{_shown(url)}` redirects more than {MOST_REDIRECTS} times. Try another page.")

    async def _take(self, response: aiohttp.ClientResponse, url: str) -> Page:
        if response.status >= 300:
            reason = one_line(response.reason or "", SHOWN_URL)
            raise BackendError(f"`{_shown(url)}` answers with status {response.status} {reason}. Try another page.")
        kind = response.content_type if "Content-Type" in response.headers else ""
        if kind and kind not in HTML and not OTHER_TEXT.fullmatch(kind):
            raise BackendError(f"`{_shown(url)}` is of type {kind}, and only text can be read. Try another page.")
        data, is_cut = await self._body(response)
        return await asyncio.to_thread(_read, data, url, kind, response.charset, is_cut)

    async def _body(self, response: aiohttp.ClientResponse) -> tuple[bytes, bool]:
        """The first MOST_BYTES of a body, and whether there are more."""
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("identity", "gzip", "x-gzip", "deflate"):
            raise ValueError(f"it is compressed with {encoding}, which was not asked for")
        # 32 + 15: a header of zlib or of gzip, whichever is there.
        unpack = None if encoding == "identity" else zlib.decompressobj(32 + zlib.MAX_WBITS)
        body = bytearray()
        async for chunk in response.content.iter_chunked(CHUNK):
            body += chunk if unpack is None else unpack.decompress(chunk, MOST_BYTES + 1 - len(body))
            if len(body) > MOST_BYTES:
                break
        return bytes(body[:MOST_BYTES]), len(body) > MOST_BYTES


def _check(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BackendError(f"`{_shown(url)}` is not an address of the web. It must begin with https:// or http://.")
    if parts.username is not None:
        raise BackendError(f"`{_shown(url)}` has a user name in it. Leave that out.")


def _read(data: bytes, url: str, kind: str, charset: str | None, is_cut: bool) -> Page:
    if not kind:
        kind = "text/html" if b"<" in data[:CHUNK] else "text/plain"
    found = _CHARSET_IN_HTML.search(data[:CHUNK]) if kind in HTML and not charset else None
    charset = (found[1].decode() if found else charset or "utf-8").lower()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        charset = "utf-16"
    elif b"\0" in data[:CHUNK] and not charset.startswith("utf-16"):
        raise BackendError(f"`{_shown(url)}` is not text. Try another page.")
    try:
        text = data.decode(charset if _CHARSET.fullmatch(charset) else "utf-8", errors="replace")
    except LookupError:
        text = data.decode(errors="replace")
    text = text.removeprefix("\ufeff")
    if kind in HTML:
        return read_html(text, url, is_cut=is_cut)
    return read_text(text, url, is_markdown=kind == "text/markdown", is_cut=is_cut)


def _shown(url: str) -> str:
    return one_line(url, SHOWN_URL)
