"""Search APIs in both styles, over a real server: what is asked, what is understood, and where the key goes."""

import asyncio
import socket

import pytest
import website
from website import ASKED, LOOPBACK, A, B

from vllm_gptoss.tools import web
from vllm_gptoss.tools.backend import BackendError
from vllm_gptoss.tools.browser import Browser
from vllm_gptoss.tools.web import SearchApi, WebBackend, search_api


@pytest.fixture(scope="module")
def site():
    with website.serving() as address:
        yield address


def search(backend, query, topn=10):
    return asyncio.run(backend.search(query, topn))


def fetch(backend, url):
    return asyncio.run(backend.fetch(url))


def test_exa(site):
    ASKED.clear()
    backend = WebBackend(SearchApi("exa", f"{site}/exa", "the key"), LOOPBACK)
    assert search(backend, "good", 7) == [web.Result(A, "A", "a\nb"), web.Result(B, "", "t")]
    assert search(backend, "good", 1) == [web.Result(A, "A", "a\nb")]
    assert ASKED[0][1]["x-api-key"] == "the key"
    assert ASKED[1] == ("body", {"query": "good", "numResults": 7, "contents": {"summary": True}})
    assert fetch(backend, f"{site}/page").title == "T"
    assert "the key" not in str(ASKED[-1])


def test_you(site):
    ASKED.clear()
    backend = WebBackend(SearchApi("you", f"{site}/you", "the key"))
    assert search(backend, "a b&c", 5) == [web.Result(A, "A", "d"), web.Result(B, "", "s")]
    ((path, headers),) = ASKED
    assert path == "/you?query=a+b%26c&count=5"
    assert headers["X-API-Key"] == "the key"


def test_answers_that_are_odd(site):
    backend = WebBackend(SearchApi("exa", f"{site}/exa", "the key"))
    assert search(backend, "odd") == [web.Result(A, "", "h"), web.Result(B, "", "")]
    assert search(backend, "none") == []


@pytest.mark.parametrize(
    ("path", "query", "said"),
    [
        ("exa", "wrong", "something else than results"),
        ("exa", "list", "something else than results"),
        ("none", "x", "status 404"),
        ("away", "x", "status 302"),
        ("page", "x", "The search failed"),
        ("endless", "x", "answers with too much"),
        ("drip", "x", "did not answer within 1 s"),
        ("garbage", "x", "The search failed"),
    ],
)
def test_searches_that_fail(site, path, query, said, monkeypatch):
    monkeypatch.setattr(web, "SECONDS", 1.0)
    with pytest.raises(BackendError) as error:
        search(WebBackend(SearchApi("exa", f"{site}/{path}", "the key")), query)
    assert said in str(error.value)
    assert "the key" not in str(error.value)


def test_no_server_is_there():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(BackendError, match="The search failed"):
        search(WebBackend(SearchApi("exa", f"http://127.0.0.1:{port}/", "the key")), "x")


def test_the_environment_configures_the_api():
    assert search_api({"EXA_API_KEY": "k"}) == SearchApi("exa", "https://api.exa.ai/search", "k")
    given = {"GPTOSS_SEARCH": "you", "GPTOSS_SEARCH_URL": "http://x/", "GPTOSS_SEARCH_KEY": "k"}
    assert search_api(given) == SearchApi("you", "http://x/", "k")
    assert search_api({"GPTOSS_SEARCH": "you", "YDC_API_KEY": "k"}).url == "https://api.ydc-index.io/v1/search"
    with pytest.raises(ValueError, match="neither GPTOSS_SEARCH_KEY nor EXA_API_KEY"):
        search_api({})
    with pytest.raises(ValueError, match="it can be exa or you"):
        search_api({"GPTOSS_SEARCH": "bing"})
    assert "secret" not in repr(SearchApi("exa", "http://x/", "secret"))


def test_the_browser_over_the_web(site):
    browser = Browser(WebBackend(SearchApi("exa", f"{site}/exa", "the key"), LOOPBACK))
    assert "【0†A†a.test】 a b" in asyncio.run(browser.call("search", {"query": "good"}))
    assert "status 404" in asyncio.run(browser.call("open", {"id": f"{site}/none"}))
    assert "hello 【0†other】" in asyncio.run(browser.call("open", {"id": f"{site}/page"}))
