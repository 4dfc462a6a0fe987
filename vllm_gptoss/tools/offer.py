"""What a server offers of the two tools, decided once, at its start, by its environment.

    GPTOSS_SEARCH_FOLDER         the browser searches and opens the .html, .md and .txt files of this folder, or else
    GPTOSS_SEARCH                `exa` (unless said otherwise) or `you`: it searches with this API and opens the web
    GPTOSS_SEARCH_KEY            the API's key; EXA_API_KEY and YDC_API_KEY are known too
    GPTOSS_SEARCH_URL            another address that speaks the API; the key may be left out then
    GPTOSS_FETCH_NETWORKS        networks that pages are fetched from though they are not public: `10.1.0.0/16,...`
    GPTOSS_PYTHON_UNCONTAINED    what of `network,processes,files` code need not be contained in (`confine.py`)

The names do not begin with VLLM_, because vLLM warns of such names that it does not know, or refuses them.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from vllm_gptoss.tools.backend import Backend
from vllm_gptoss.tools.confine import ALL
from vllm_gptoss.tools.folder import FolderBackend
from vllm_gptoss.tools.interpreter import InterpreterGoneError, NotContainedError
from vllm_gptoss.tools.page import encoding
from vllm_gptoss.tools.python import Interpreters
from vllm_gptoss.tools.web import KEYS, WebBackend, search_api

logger = logging.getLogger(__name__)

ASKS_FOR_SEARCH = ("GPTOSS_SEARCH", "GPTOSS_SEARCH_URL", "GPTOSS_SEARCH_KEY", KEYS["exa"][1])
NO_BACKEND = (
    "it has nothing to search: set GPTOSS_SEARCH_FOLDER to a folder of documents, or GPTOSS_SEARCH_KEY to the key of "
    "a search API (GPTOSS_SEARCH says which), and start the server again"
)


class Offer(NamedTuple):
    backend: Backend | None
    interpreters: Interpreters | None
    missing: dict[str, str]
    """Why `browser` or `python` is not offered."""


async def offer(environment: Mapping[str, str]) -> Offer:
    """Raises: ValueError where the environment says what can't be."""
    missing = {}
    backend = browser_backend(environment)
    if backend is None:
        missing["browser"] = NO_BACKEND
    else:
        encoding()  # loading takes a second, in which the server would stand still behind the first page
    interpreters: Interpreters | None = Interpreters(uncontained=_uncontained(environment))
    try:
        await interpreters.check()
    except (NotContainedError, InterpreterGoneError, OSError) as error:
        missing["python"] = str(error)
        interpreters = None
    for name, reason in missing.items():
        logger.warning("The built-in tool %s is not offered: %s.", name, reason)
    return Offer(backend, interpreters, missing)


def browser_backend(environment: Mapping[str, str]) -> Backend | None:
    """None where the environment names none. Raises: ValueError."""
    if folder := environment.get("GPTOSS_SEARCH_FOLDER"):
        if not Path(folder).is_dir():
            raise ValueError(f"GPTOSS_SEARCH_FOLDER is {folder!r}, which is no folder")
        return FolderBackend(Path(folder))
    if not any(environment.get(name) for name in ASKS_FOR_SEARCH):
        return None
    try:
        return WebBackend(search_api(environment), _names(environment, "GPTOSS_FETCH_NETWORKS"))
    except ValueError as error:
        raise ValueError(f"the built-in tool browser can't be offered: {error}") from error


def _uncontained(environment: Mapping[str, str]) -> frozenset[str]:
    names = frozenset(_names(environment, "GPTOSS_PYTHON_UNCONTAINED"))
    if unknown := names - ALL:
        raise ValueError(
            f"GPTOSS_PYTHON_UNCONTAINED has {', '.join(sorted(unknown))}; it can have {', '.join(sorted(ALL))}"
        )
    return names


def _names(environment: Mapping[str, str], variable: str) -> list[str]:
    return [name.strip() for name in environment.get(variable, "").split(",") if name.strip()]
