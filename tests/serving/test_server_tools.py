"""Tools that the server runs: what it has not is left out, and an error where it must be called."""

import pytest
from vllm.entrypoints.mcp.tool_server import DemoToolServer
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest

from vllm_gptoss.serving.server_tools import leave_out_missing
from vllm_gptoss.tools.offer import Offer

FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object"}}
SEARCH, PYTHON = {"type": "web_search"}, {"type": "code_interpreter"}


def demo(*tools: str) -> DemoToolServer:
    """A server that has these of the two."""
    server = DemoToolServer()
    server.tools = dict.fromkeys(tools)
    missing = {name: f"no {name} here" for name in ("browser", "python") if name not in tools}
    server.offer = Offer(None, None, missing)
    return server


def left(server: DemoToolServer | None, *tools: dict, **fields) -> list[str]:
    request = ResponsesRequest(input="?", tools=list(tools), **fields)
    problem = leave_out_missing(request, server)
    return [tool.type for tool in request.tools] if problem is None else [problem]


@pytest.mark.parametrize(
    ("server", "reasons"),
    [
        (None, ["code_interpreter (it was started without --tool-server", "; web_search (it was started without"]),
        (demo(), ["code_interpreter (no python here); web_search (no browser here)"]),
        (demo("python"), ["such tools: web_search (no browser here)"]),
    ],
    ids=["no tool server", "neither", "no search"],
)
def test_what_is_missing_is_left_out_with_one_warning(server, reasons, seams, caplog_vllm):
    for _ in range(2):
        assert "function" in left(server, SEARCH, FUNCTION, PYTHON)
        assert ("code_interpreter" in left(server, SEARCH, PYTHON)) == (
            server is not None and server.has_tool("python")
        )
        assert not [kind for kind in left(server, SEARCH) if "search" in kind]
    said = [record.getMessage() for record in caplog_vllm.records if "can't run" in record.getMessage()]
    assert len([text for text in said if all(reason in text for reason in reasons)]) == 1
    assert len(said) == len(set(said))


def test_what_the_server_has_stays(seams, caplog_vllm):
    assert left(demo("browser", "python"), SEARCH, PYTHON) == ["web_search_preview", "code_interpreter"]
    assert not caplog_vllm.records


CHOSEN = {
    "the tool itself": {"tool_choice": {"type": "web_search"}},
    "its other name": {"tool_choice": {"type": "web_search_preview"}},
    "one that is allowed": {"tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [SEARCH]}},
    "any tool": {"tools": (SEARCH,), "tool_choice": "required"},
}


@pytest.mark.parametrize("fields", CHOSEN.values(), ids=CHOSEN)
def test_a_missing_tool_that_must_be_called_is_an_error(fields, seams):
    fields = {"tools": (SEARCH, FUNCTION), **fields}
    (problem,) = left(demo("python"), *fields.pop("tools"), **fields)
    assert problem.startswith("tool_choice ")
    assert "no browser here" in problem


def test_another_tool_that_must_be_called_is_none(seams):
    assert left(None, SEARCH, FUNCTION, tool_choice="required") == ["function"]
    assert left(None, SEARCH, FUNCTION, tool_choice={"type": "function", "name": "f"}) == ["function"]
    assert left(demo("browser"), SEARCH, PYTHON, tool_choice={"type": "web_search"}) == ["web_search_preview"]
