"""Tools that a client runs itself, as the functions that the model knows, and their calls as the client knows them.

    type of the tool                the model's function        the client's item
    function                        its name                    function_call
    custom                          its name, with {"input"}    custom_tool_call
    namespace                       <namespace>__<name>         the above, with `namespace`
    local_shell                     local_shell                 local_shell_call
    shell                           shell                       shell_call
    apply_patch                     apply_patch                 apply_patch_call

Source: OpenAI's reference of the Responses API, "Tools" and "Output items"; vLLM's `tool_parsers/utils.py` for the
names in a namespace and for `input`.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from openai.types.responses import (
    ResponseApplyPatchToolCall,
    ResponseCustomToolCall,
    ResponseFunctionShellToolCall,
    ResponseFunctionToolCall,
    ResponseOutputItem,
)
from openai.types.responses.response_output_item import LocalShellCall
from vllm.entrypoints.openai.responses.utils import decode_custom_tool_input

from vllm_gptoss.rendering.responses import NAMESPACE

TEXT, COUNT = {"type": "string"}, {"type": "integer"}


def _arguments(required: tuple[str, ...], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*required], "additionalProperties": False}


INPUT = _arguments(("input",), input={**TEXT, "description": "The text that the tool is given."})

OWN_FUNCTIONS = {
    "local_shell": (
        "Runs a command on the user's computer.",
        _arguments(
            ("command",),
            command={"type": "array", "items": TEXT, "description": "The program and its arguments."},
            working_directory=TEXT,
            timeout_ms=COUNT,
            env={"type": "object", "additionalProperties": TEXT},
        ),
    ),
    "shell": (
        "Runs commands in a shell, one after the other, and returns the output of each.",
        _arguments(("commands",), commands={"type": "array", "items": TEXT}, timeout_ms=COUNT, max_output_length=COUNT),
    ),
    "apply_patch": (
        "Creates, changes or deletes one file.",
        _arguments(
            ("type", "path"),
            type={"type": "string", "enum": ["create_file", "update_file", "delete_file"]},
            path=TEXT,
            diff={**TEXT, "description": "What changes, as a V4A diff; a file that is deleted has none."},
        ),
    ),
}
"""Tools that have a type and no name: what they do, and their arguments."""


class ClientTool(NamedTuple):
    function: Mapping[str, Any]
    """A tool of the type `function`, as a request of Responses has it."""
    kind: str
    """The type of the client's tool: `function`, `custom`, or one of OWN_FUNCTIONS."""
    name: str
    """As the client says it."""
    namespace: str | None = None

    @property
    def is_plain(self) -> bool:
        return self.kind == "function" and self.namespace is None


def client_tools(tool: Mapping[str, Any]) -> list[ClientTool]:
    """The functions that a tool is for the model; none for what this client does not run itself."""
    kind = tool.get("type")
    if kind == "namespace" and isinstance(tool.get("tools"), list):
        return [*_in_namespace(tool)]
    if kind == "function":
        return [ClientTool(tool, kind, tool.get("name"))]
    if kind == "custom":
        return [ClientTool(_function(tool.get("name"), _custom_description(tool), INPUT), kind, tool.get("name"))]
    if kind in OWN_FUNCTIONS:
        return [ClientTool(_function(kind, *OWN_FUNCTIONS[kind]), kind, kind)]
    return []


def _in_namespace(space: Mapping[str, Any]) -> Iterator[ClientTool]:
    for tool in space["tools"]:
        for inner in client_tools(tool) if isinstance(tool, Mapping) and tool.get("type") != "namespace" else ():
            name = f"{space.get('name')}{NAMESPACE}{inner.name}"
            yield inner._replace(function={**inner.function, "name": name}, namespace=space.get("name"))


def _function(name: str | None, description: str | None, parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "function", "name": name, "description": description, "parameters": parameters, "strict": False}


def _custom_description(tool: Mapping[str, Any]) -> str:
    """With the grammar of its input, which nothing here enforces."""
    form = tool.get("format")
    described = tool.get("description") or ""
    if not isinstance(form, Mapping) or form.get("type") != "grammar":
        return described
    grammar = f"Its input follows this {form.get('syntax', '')} grammar:\n{form.get('definition', '')}"
    return f"{described}\n\n{grammar}" if described else grammar


def client_item(call: ResponseFunctionToolCall, tool: ClientTool) -> ResponseOutputItem:
    """The call of a function as the item that the client waits for; arguments that don't fit stay a function's."""
    if tool.kind == "function":
        return call.model_copy(update={"name": tool.name, "namespace": tool.namespace})
    number = (call.id or "").partition("_")[2]
    if tool.kind == "custom":
        text = decode_custom_tool_input(call.arguments)
        return ResponseCustomToolCall(
            id=f"ctc_{number}",
            call_id=call.call_id,
            # JSON can spell half of a surrogate pair, and no response can hold it.
            input=text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"),
            name=tool.name,
            namespace=tool.namespace,
            type="custom_tool_call",
        )
    try:
        said = json.loads(call.arguments)
        return _own_item(tool.kind, said, call, number)
    except (ValueError, TypeError, LookupError, RecursionError):
        return call


def _own_item(kind: str, said: Any, call: ResponseFunctionToolCall, number: str) -> ResponseOutputItem:
    """Raises: TypeError and ValidationError for arguments that the item has no place for."""
    place = {"call_id": call.call_id, "status": call.status or "completed"}
    if kind == "local_shell":
        command = said["command"]
        command = ["bash", "-lc", command] if isinstance(command, str) else command
        action = {"env": {}, **said, "command": command, "type": "exec"}
        return LocalShellCall.model_validate(
            {"id": f"lsh_{number}", "type": "local_shell_call", "action": action, **place}
        )
    if kind == "shell":
        return ResponseFunctionShellToolCall.model_validate(
            {"id": f"sh_{number}", "type": "shell_call", "action": said, **place}
        )
    if place["status"] == "incomplete":
        raise TypeError("an apply_patch_call is never incomplete")
    return ResponseApplyPatchToolCall.model_validate(
        {"id": f"apc_{number}", "type": "apply_patch_call", "operation": said, **place}
    )
