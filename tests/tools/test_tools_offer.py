"""What a server offers, by its environment."""

import asyncio

import pytest

from vllm_gptoss.tools import interpreter
from vllm_gptoss.tools.folder import FolderBackend
from vllm_gptoss.tools.offer import browser_backend, offer
from vllm_gptoss.tools.web import WebBackend

pytestmark = pytest.mark.usefixtures("room")


def test_an_environment_that_says_nothing():
    found = asyncio.run(offer({}))
    assert found.backend is None
    assert "GPTOSS_SEARCH_FOLDER" in found.missing["browser"]
    assert found.interpreters is not None
    assert list(found.missing) == ["browser"]


def test_a_folder_or_the_web(tmp_path):
    assert isinstance(browser_backend({"GPTOSS_SEARCH_FOLDER": str(tmp_path), "EXA_API_KEY": "k"}), FolderBackend)
    for environment in ({"EXA_API_KEY": "k"}, {"GPTOSS_SEARCH": "you", "YDC_API_KEY": "k"}):
        assert isinstance(browser_backend(environment), WebBackend)
    assert isinstance(browser_backend({"GPTOSS_SEARCH_URL": "http://127.0.0.1:9/"}), WebBackend)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"GPTOSS_SEARCH_FOLDER": "/nowhere"}, "GPTOSS_SEARCH_FOLDER is '/nowhere', which is no folder"),
        ({"GPTOSS_SEARCH": "you"}, "neither GPTOSS_SEARCH_KEY nor YDC_API_KEY"),
        ({"GPTOSS_SEARCH": "bing"}, "it can be exa or you"),
        ({"EXA_API_KEY": "k", "GPTOSS_FETCH_NETWORKS": "10.0.0.0/8, x"}, "'x' does not appear to be"),
        ({"GPTOSS_PYTHON_UNCONTAINED": "files,moon"}, "has moon; it can have files, network, processes"),
    ],
)
def test_an_environment_that_can_not_be_stops_the_server(environment, said):
    with pytest.raises(ValueError, match=said):
        asyncio.run(offer(environment))


def test_python_that_can_not_be_contained_is_missing_with_the_reason(monkeypatch):
    """What this machine lacks is made up; `test_python_walls.py` takes real walls away."""
    monkeypatch.setattr(interpreter, "ALL", interpreter.ALL | {"moonlight"})
    found = asyncio.run(offer({}))
    assert found.interpreters is None
    assert "can't contain code in: moonlight" in found.missing["python"]
