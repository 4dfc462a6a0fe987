"""Tools that the server runs itself: what a request offers and this server has not is left out of the request.

Clients offer such tools whoever serves them (Codex offers `web_search` with every request), so that alone is no error.
It is one where the request can't be answered without them.
"""

from collections.abc import Mapping
from typing import Any

from openai.types.responses import WebSearchPreviewTool
from vllm.entrypoints.mcp.tool_server import ToolServer
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.entrypoints.openai.responses.utils import extract_tool_types
from vllm.logger import init_logger

from vllm_gptoss.parsers.serving import BUILTIN_TOOLS
from vllm_gptoss.serving.requests import ASKED

logger = init_logger(f"vllm.{__name__}")

NO_TOOL_SERVER = "it was started without --tool-server; `--tool-server demo` has browser and python"


def leave_out_missing(request: ResponsesRequest, server: ToolServer | None) -> str | None:
    """What is wrong with `request` where it must use a tool that `server` has not; its other tools stay."""
    kept, missing = [], {}
    for tool in request.tools:
        kinds = extract_tool_types([tool])
        if reasons := [reason for kind in kinds if (reason := _why_missing(kind, server)) is not None]:
            missing[", ".join(kinds)] = reasons[0]
        else:
            kept.append(_known(tool))
    chosen = _chosen_kind(request)
    if chosen is not None and (reason := _why_missing(chosen, server)) is not None:
        return f"tool_choice asks for {chosen}, which this server can't run: {reason}"
    reasons = "; ".join(f"{kind} ({reason})" for kind, reason in sorted(missing.items()))
    if missing and not kept and request.tool_choice == "required":
        return f"tool_choice is 'required', and this server can't run what it is to choose from: {reasons}"
    if missing:
        logger.warning_once("Left out of requests, since this server can't run such tools: %s", reasons)
    request.tools = kept
    return None


def _why_missing(kind: str, server: ToolServer | None) -> str | None:
    """None for a tool of clients, and for one that the server has."""
    name = BUILTIN_TOOLS.get("web_search_preview" if kind.startswith("web_search") else kind)
    if name is None or (server is not None and server.has_tool(name)):
        return None
    if server is None:
        return NO_TOOL_SERVER
    offer = getattr(server, "offer", None)
    return (offer.missing.get(name) if offer is not None else None) or f"its tool server has no tool {name!r}"


def _known(tool: Any) -> Any:
    """vLLM's types have both names of the search; its tools know `web_search_preview`."""
    if not tool.type.startswith("web_search"):
        return tool
    return WebSearchPreviewTool(type="web_search_preview", search_context_size=tool.search_context_size)


def _chosen_kind(request: ResponsesRequest) -> str | None:
    """The type of a tool that `tool_choice` names, as the client said it."""
    choice = getattr(getattr(request, ASKED, None), "tool_choice", None)
    if not isinstance(choice, Mapping):
        return None
    kind = choice.get("server_label") if choice.get("type") == "mcp" else choice.get("type")
    return kind if isinstance(kind, str) else None
