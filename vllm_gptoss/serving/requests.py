"""Requests to Responses as clients send them, before vLLM's protocol looks at them.

vLLM's types refuse a whole request for one tool, item or value that they do not know. So tools are mapped to functions
or left out, items are put aside for the rendering, which checks them itself, and null stands for what is not said.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, get_args

from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.logger import init_logger

from vllm_gptoss.rendering.responses import NAMESPACE
from vllm_gptoss.rendering.serving import plain
from vllm_gptoss.serving.client_tools import OWN_FUNCTIONS, ClientTool, client_tools
from vllm_gptoss.serving.logprobs import RECORD

logger = init_logger(f"vllm.{__name__}")

ASKED = "vllm_gptoss_asked"
"""A field of requests: what was asked for, in the words of the client."""
OWN_FIELDS = (ASKED, RECORD)
"""What no client can set."""

SERVER_TOOLS = ("code_interpreter", "container", "mcp")
"""Types that stay as they are, beside those of a web search: whoever renders knows whether this server has them."""


class Asked(NamedTuple):
    tools: list[Any]
    tool_choice: Any
    functions: dict[str, ClientTool]
    """By the name that the model knows."""


def accepted(data: Any, validate: Callable[[Any], ResponsesRequest]) -> ResponsesRequest:
    """The request, validated by vLLM without what its types refuse.

    Raises: ValidationError by vLLM for all else, and VLLMValidationError.
    """
    if not isinstance(data, Mapping):
        return validate(data)
    data = {key: value for key, value in data.items() if value is not None and key not in OWN_FIELDS}
    tools = plain(data.get("tools", []))
    asked = Asked(tools, data.get("tool_choice"), {})
    if isinstance(tools, list):
        data["tools"] = _mapped_tools(tools, asked.functions)
        data |= _tool_choice(data.get("tool_choice"), asked.functions, data["tools"])
    if isinstance(data.get("include"), list):
        data["include"] = _known_includes(data["include"])
    items = plain(data["input"]) if isinstance(data.get("input"), list) else None
    request = validate(data if items is None else {**data, "input": ""})
    if items is not None:
        request.input = items
    setattr(request, ASKED, asked)
    return request


def _mapped_tools(tools: list[Any], functions: dict[str, ClientTool]) -> list[Any]:
    mapped, left_out = [], []
    for tool in tools:
        kind = tool.get("type") if isinstance(tool, Mapping) else None
        if not isinstance(kind, str):
            mapped.append(tool)  # vLLM says what is wrong with it
            continue
        found = client_tools(tool)
        mapped += [each.function for each in found]
        functions |= {each.function["name"]: each for each in found if isinstance(each.function.get("name"), str)}
        if kind.startswith("web_search"):
            mapped.append(_web_search(tool))
        elif kind in SERVER_TOOLS:
            mapped.append({"container": {"type": "auto"}, **tool} if kind == "code_interpreter" else tool)
        elif not found:
            left_out.append(kind)
    if left_out:
        logger.warning_once("Left out of requests, since nothing here runs such tools: %s", ", ".join(left_out))
    return mapped


def _web_search(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """Versions of the tool that vLLM does not know are the newest that it does."""
    kind = "web_search_preview" if tool["type"].startswith("web_search_preview") else "web_search"
    return {**tool, "type": kind}


def _tool_choice(choice: Any, functions: dict[str, ClientTool], tools: list[Any]) -> dict[str, Any]:
    """What becomes of `tool_choice`, and of the tools where it allows only some of them."""
    if not isinstance(choice, Mapping):
        return {}
    kind = choice.get("type")
    if kind == "allowed_tools" and isinstance(choice.get("tools"), list):
        allowed = {_chosen(each, functions) for each in choice["tools"] if isinstance(each, Mapping)}
        kept = [
            tool for tool in tools if not isinstance(tool, Mapping) or tool.get("name", tool.get("type")) in allowed
        ]
        return {"tools": kept, "tool_choice": choice.get("mode", "auto")}
    if kind in ("function", "custom") or kind in OWN_FUNCTIONS:
        return {"tool_choice": {"type": "function", "name": _chosen(choice, functions)}}
    logger.warning_once(
        "Read as 'auto', since a server's tool can't be made to be called: tool_choice of type %s", kind
    )
    return {"tool_choice": "auto"}


def _chosen(choice: Mapping[str, Any], functions: dict[str, ClientTool]) -> Any:
    """The model's name of a tool that is chosen: a namespace may be left out where one tool alone has the name."""
    name = choice.get("name", choice.get("type"))
    if choice.get("namespace"):
        return f"{choice['namespace']}{NAMESPACE}{name}"
    known = [flat for flat, tool in functions.items() if tool.name == name]
    return known[0] if len(known) == 1 and name not in functions else name


def _known_includes(wanted: list[Any]) -> list[Any]:
    lists = get_args(ResponsesRequest.model_fields["include"].annotation)[0]
    known = get_args(get_args(lists)[0])
    return [each for each in wanted if each in known]
