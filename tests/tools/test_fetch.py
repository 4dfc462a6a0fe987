"""Pages off a real server on the loopback interface, which is allowed here alone: kinds, limits and addresses."""

import asyncio
import contextlib
import ipaddress
import socket
import time

import pytest
import website
from website import ASKED, LOOPBACK

from vllm_gptoss.tools import fetch as fetching
from vllm_gptoss.tools.backend import BackendError
from vllm_gptoss.tools.fetch import MOST_BYTES, Fetcher, is_public


@pytest.fixture(scope="module")
def site():
    with website.serving() as address:
        yield address


def fetch(fetcher, url):
    return asyncio.run(fetcher.fetch(url))


def test_a_page_of_the_web(site):
    page = fetch(Fetcher(LOOPBACK), f"{site}/page")
    assert (page.title, page.links, page.url) == ("T", (f"{site}/other",), f"{site}/page")
    assert page.text == f"\nURL: {site}/page\nhello 【0†other】"
    assert page.source.startswith("<title>")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("gzip", "packed"),
        ("deflate", "packed"),
        ("latin", "café"),
        ("meta", "“café”"),
        ("strange", "café"),
        ("utf16", "café"),
        ("json", '{"a": "<b>"}'),
        ("markdown", "# M\n【0†a】"),
        ("untyped", "plain words"),
        ("hops/4", "hello 【0†other】"),
    ],
)
def test_kinds_of_pages(site, path, text):
    assert fetch(Fetcher(LOOPBACK), f"{site}/{path}").text.split("\n", 2)[2] == text


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("none", "answers with status 404 Not Found"),
        ("error", "answers with status 503"),
        ("nowhere", "answers with status 302"),
        ("pdf", "is of type application/pdf, and only text can be read"),
        ("binary", "is not text"),
        ("brotli", "compressed with br"),
        ("torn", "can't be fetched"),
        ("garbage", "can't be fetched"),
        ("loop", "redirects more than 5 times"),
        ("hops/5", "redirects more than 5 times"),
        ("to?ftp://a.test/x", "is not an address of the web"),
        ("to?file:///etc/passwd", "is not an address of the web"),
        ("to?http://[x", "can't be fetched"),
        ("to?http://user:x@127.0.0.1/", "has a user name in it"),
    ],
)
def test_what_can_not_be_fetched(site, path, said):
    with pytest.raises(BackendError) as error:
        fetch(Fetcher(LOOPBACK), f"{site}/{path}")
    assert said in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "url",
    ["a.test", "", "file:///etc/passwd", "ftp://a.test/", "http://", "http:///x", "https://[", "data:text/html,x"],
)
def test_what_is_no_address(url):
    with pytest.raises(BackendError):
        fetch(Fetcher(LOOPBACK), url)


@pytest.mark.parametrize("path", ["huge", "endless", "bomb"])
def test_no_page_is_too_large(site, path):
    page = fetch(Fetcher(LOOPBACK), f"{site}/{path}")
    assert page.text.endswith("It was cut here.]")
    assert len(page.source) <= MOST_BYTES


@pytest.mark.parametrize("path", ["slow", "drip"])
def test_no_page_takes_too_long(site, path, monkeypatch):
    monkeypatch.setattr(fetching, "SECONDS", 0.5)
    start = time.monotonic()
    with pytest.raises(BackendError, match=r"did not answer within 0\.5 s"):
        fetch(Fetcher(LOOPBACK), f"{site}/{path}")
    assert time.monotonic() - start < 3


def test_a_fetch_that_is_cancelled_leaves_nothing(site):
    async def cancelled():
        task = asyncio.create_task(Fetcher(LOOPBACK).fetch(f"{site}/drip"))
        await asyncio.sleep(0.3)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return len(asyncio.all_tasks())

    assert asyncio.run(cancelled()) == 1


# Addresses


def test_addresses_inward_are_refused(site):
    port = site.rpartition(":")[2]
    before = len(ASKED)
    for host in ("127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]", "0.0.0.0"):
        with pytest.raises(BackendError, match=r"not a public address|can't be fetched"):
            fetch(Fetcher(), f"http://{host}:{port}/page")
    assert len(ASKED) == before


def test_a_name_is_judged_by_its_address(site, monkeypatch):
    """`localhost` stands for any name that resolves inward."""
    with pytest.raises(BackendError, match=r"leads to (127\.0\.0\.1|::1), which is not a public address"):
        fetch(Fetcher(), site.replace("127.0.0.1", "localhost") + "/page")


def test_a_redirect_inward_is_refused(site):
    """Another address of the loopback interface stands for the inside."""
    outside = Fetcher(("127.0.0.1/32",))
    inside = site.replace("127.0.0.1", "127.0.0.2")
    assert fetch(outside, f"{site}/to?{site}/page").title == "T"
    before = len(ASKED)
    with pytest.raises(BackendError, match=r"leads to 127\.0\.0\.2, which is not a public address"):
        fetch(outside, f"{site}/to?{inside}/page")
    assert [path for path, _ in ASKED[before:]] == [f"/to?{inside}/page"]


def test_no_proxy_of_the_environment(site, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert fetch(Fetcher(LOOPBACK), f"{site}/page").title == "T"


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
        ),
        *("255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1", "::1", "::", "fe80::1", "fc00::1", "fec0::1"),
        *("ff02::1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::"),
        *("2001:0:0:0:0:0:80ff:fffe", "2001:db8::1"),
    ],
)
def test_addresses_that_are_not_public(address):
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_that_are_public(address):
    assert is_public(ipaddress.ip_address(address))


def test_no_server_is_there():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(BackendError, match="can't be fetched"):
        fetch(Fetcher(LOOPBACK), f"http://127.0.0.1:{port}/")
