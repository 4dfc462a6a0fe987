"""The seam of tools that a server has not: it works, and its tests of vLLM fail once it is needless."""

from types import SimpleNamespace

from seams_in_place import compose, demo_server
from vllm.entrypoints.mcp.tool_server import DemoToolServer
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses
from vllm.entrypoints.openai.responses.utils import extract_tool_types

from vllm_gptoss.seam import stock_of


def checked(request: ResponsesRequest, server: DemoToolServer | None, stock: bool = False):
    compose()
    name = "_validate_create_responses_input"
    method = stock_of(OpenAIServingResponses, name) if stock else getattr(OpenAIServingResponses, name)
    serving = SimpleNamespace(
        tool_server=server,
        use_harmony=True,
        enable_store=False,
        create_error_response=OpenAIServingResponses.create_error_response,
    )
    return method(serving, request)


def test_a_missing_tool_that_must_be_called_is_refused_and_vllm_forgets_it(monkeypatch):
    compose()
    servers = (demo_server({}, monkeypatch), "GPTOSS_SEARCH_FOLDER"), (None, "without --tool-server")
    for server, reason in servers:
        for kind in ("web_search", "web_search_2025_08_26", "web_search_preview"):
            request = ResponsesRequest(input="?", tools=[{"type": kind}], tool_choice={"type": kind})
            assert checked(request, server, stock=True) is None
            error = checked(request, server).error
            assert (error.code, error.param) == (400, "tool_choice")
            assert reason in error.message


def test_a_missing_tool_that_is_offered_is_left_out_and_in_vllm_it_stays():
    compose()
    request = ResponsesRequest(input="?", tools=[{"type": "code_interpreter"}])
    assert checked(request, None, stock=True) is None
    assert len(request.tools) == 1
    assert checked(request, None) is None
    assert request.tools == []


def test_vllm_still_knows_one_name_of_the_search(monkeypatch, tmp_path):
    request = ResponsesRequest(input="?", tools=[{"type": "web_search", "search_context_size": "low"}])
    assert extract_tool_types(request.tools) == {"web_search"}
    assert checked(request, demo_server({"GPTOSS_SEARCH_FOLDER": str(tmp_path)}, monkeypatch)) is None
    assert [tool.model_dump(exclude_none=True) for tool in request.tools] == [
        {"type": "web_search_preview", "search_context_size": "low"}
    ]
