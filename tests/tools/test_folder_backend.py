"""The browser's backend over a folder of real files."""

import asyncio
import os
import random

import pytest

from vllm_gptoss.tools import folder as folders
from vllm_gptoss.tools.backend import BackendError
from vllm_gptoss.tools.browser import Browser
from vllm_gptoss.tools.folder import FolderBackend

DOCUMENTS = {
    "guide/install.md": "# Installing\nRun pip to install the package. See [the API](../api.html#top) and [x](https://x.test).",
    "api.html": "<title>API reference</title><p>The function <b>quokka</b> installs nothing.<p>It is documented.",
    "notes.txt": "notes\nA quokka is a small wallaby. Quokka, quokka!\n" + "filler words here\n" * 10,
    "日本.txt": "東京都は日本の首都です",
    "empty.txt": "",
    ".hidden.md": "quokka secret",
    ".git/x.md": "quokka secret",
    "data.csv": "quokka,secret",
}


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "documents"
    for name, text in DOCUMENTS.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "outside.md").write_text("quokka outside")
    (root / "link.md").symlink_to(tmp_path / "outside.md")
    os.mkfifo(root / "fifo.txt")
    return root


def search(backend, query, topn=10):
    return asyncio.run(backend.search(query, topn))


def fetch(backend, url):
    return asyncio.run(backend.fetch(url))


def test_the_best_document_is_first(folder):
    backend = FolderBackend(folder)
    assert [r.url for r in search(backend, "quokka")] == ["file:///notes.txt", "file:///api.html"]
    assert [r.url for r in search(backend, "Install!")] == ["file:///guide/install.md"]
    assert [r.url for r in search(backend, "quokka", topn=1)] == ["file:///notes.txt"]
    assert search(backend, "nowhere") == []
    assert search(backend, "?!") == []


def test_words_of_a_title_count_more(folder):
    (folder / "b.md").write_text("# Wombat\nabout it " + "x " * 20)
    (folder / "a.md").write_text("# Other\nwombat about it " + "x " * 20)
    assert [r.title for r in search(FolderBackend(folder), "wombat")] == ["Wombat", "Other"]


def test_text_without_spaces_is_found_by_its_characters(folder):
    (found,) = search(FolderBackend(folder), "首都")
    assert found.url == "file:///%E6%97%A5%E6%9C%AC.txt"
    assert fetch(FolderBackend(folder), found.url).text.endswith(DOCUMENTS["日本.txt"])


def test_a_summary_is_where_the_words_are(folder):
    (folder / "long.txt").write_text("nothing\n" * 9 + "far " * 300 + "the needle is here " + "far " * 300)
    (found,) = search(FolderBackend(folder), "needle")
    assert "the needle is here" in found.summary
    assert len(found.summary) <= folders.SUMMARY + 6
    assert search(FolderBackend(folder), "pip")[0].summary.endswith("See the API and x.")


def test_equal_scores_are_ordered_by_address(folder):
    names = [f"same{n}.txt" for n in range(20)]
    for name in random.Random(0).sample(names, len(names)):
        (folder / name).write_text("identical platypus")
    assert [r.url for r in search(FolderBackend(folder), "platypus", 20)] == sorted(f"file:///{n}" for n in names)


def test_links_between_documents(folder):
    browser = Browser(FolderBackend(folder, "https://docs.test/v1"))
    asyncio.run(browser.call("search", {"query": "pip"}))
    shown = asyncio.run(browser.call("open", {"id": 0}))
    assert "[1] Installing (https://docs.test/v1/guide/install.md)" in shown
    assert "【0†the API】 and 【1†x†x.test】" in shown
    assert "API reference" in asyncio.run(browser.call("open", {"id": 0}))
    assert "not in this collection" in asyncio.run(browser.call("open", {"id": 1, "cursor": 1}))


@pytest.mark.parametrize(
    "name",
    [
        *("../outside.md", "%2e%2e/outside.md", "guide/../../outside.md", "/etc/hosts.txt", "//etc/x.md", "link.md"),
        *(
            ".hidden.md",
            ".git/x.md",
            "data.csv",
            "fifo.txt",
            "none.md",
            "",
            ".",
            "guide",
            "a%00.md",
            "x" * 5000 + ".md",
        ),
    ],
)
def test_what_is_no_document(folder, name):
    with pytest.raises(BackendError, match=r"There is no document|not in this collection"):
        fetch(FolderBackend(folder), f"file:///{name}")


def test_other_addresses_are_not_in_the_folder(folder):
    for url in ("https://a.test/notes.txt", "notes.txt", "file://host/notes.txt", ""):
        with pytest.raises(BackendError, match="begin with file:///"):
            fetch(FolderBackend(folder), url)


def test_what_is_not_utf_8_and_what_is_huge_is_read_all_the_same(folder, monkeypatch):
    (folder / "latin.txt").write_bytes(b"caf\xe9 zebra")
    assert search(FolderBackend(folder), "zebra")[0].summary == "caf\ufffd zebra"
    monkeypatch.setattr(folders, "MOST_BYTES", 100)
    page = fetch(FolderBackend(folder), "file:///notes.txt")
    assert page.text.endswith("It was cut here.]")


def test_a_document_that_is_gone_is_no_result(folder):
    backend = FolderBackend(folder)
    assert len(search(backend, "quokka")) == 2
    (folder / "notes.txt").unlink()
    assert [r.url for r in search(backend, "quokka")] == ["file:///api.html"]


def test_too_many_documents(folder, monkeypatch):
    monkeypatch.setattr(folders, "MOST_FILES", 2)
    with pytest.raises(BackendError, match="more than 2 documents"):
        search(FolderBackend(folder), "quokka")


def test_searches_at_the_same_time(folder):
    backend = FolderBackend(folder)

    async def all_at_once():
        return await asyncio.gather(*(backend.search("quokka", 5) for _ in range(8)))

    results = asyncio.run(all_at_once())
    assert all(found == results[0] for found in results)
    assert len(results[0]) == 2
