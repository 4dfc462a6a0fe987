"""What a request lets or makes the model call, as the grammar knows it."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from vllm import envs
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.entrypoints.openai.responses.utils import extract_tool_types
from vllm.exceptions import VLLMValidationError
from vllm.tool_parsers.tool_strict_level import ToolStrictLevel
from vllm.tool_parsers.utils import get_function_tools

from vllm_gptoss.grammar.schema import ANY_OBJECT, UnsupportedSchemaError, enforceable
from vllm_gptoss.grammar.turn import TEXT, Callee, either, function_recipient, json_of, pattern, text
from vllm_gptoss.parsers.header import NAME
from vllm_gptoss.parsers.serving import BUILTIN_TOOLS, Request

NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}

SHAPES = {"type", "$ref", "anyOf", "oneOf", "allOf", "enum", "const"}
"""Keywords that say what a value is; without one of them a schema of arguments means an object."""


class Choice(NamedTuple):
    """A request's `tool_choice`."""

    is_required: bool
    may_call: bool
    names: frozenset[str] | None = None
    """Functions and built-in tools that may be called, None for all."""

    def allows(self, name: str) -> bool:
        return self.may_call and (self.names is None or name in self.names)


def choice_of(request: Request) -> Choice:
    """Raises: VLLMValidationError for a kind of tool that can't be chosen."""
    choice = request.tool_choice if request.tools else "none"
    if choice is None or isinstance(choice, str):
        return Choice(choice == "required", choice != "none")
    if choice.type == "allowed_tools":
        return Choice(choice.mode == "required", True, frozenset(map(_chosen_name, choice.tools)))
    return Choice(True, True, frozenset({_chosen_name(choice.model_dump())}))


def is_strict(request: Request, choice: Choice, level: ToolStrictLevel) -> bool:
    """The model may choose between an answer and calls, but calls are to be held to something."""
    functions = get_function_tools(request.tools or ())
    return (envs.VLLM_ENFORCE_STRICT_TOOL_CALLING and choice.may_call) and (
        level > ToolStrictLevel.AUTO
        or request.parallel_tool_calls is False
        or choice.names is not None
        or any(_function(tool).strict is True for tool in functions)
    )


def callees(request: Request, choice: Choice, level: ToolStrictLevel) -> Sequence[Callee]:
    """Raises: VLLMValidationError that names the function, and the path in its parameters."""
    functions = map(_function, get_function_tools(request.tools or ()))
    held = choice.is_required or level >= ToolStrictLevel.PARAMETER
    found = [_callee(function, held) for function in functions if choice.allows(function.name)]
    found += [_builtin(name) for name in _builtin_names(request) if choice.allows(name)]
    if choice.is_required and not found:
        raise VLLMValidationError("tool_choice asks for a tool that is not among the tools", parameter="tool_choice")
    return found


def _chosen_name(choice: dict[str, Any]) -> str:
    kind = choice.get("type")
    name = (choice.get("function") or choice).get("name") or BUILTIN_TOOLS.get(kind)
    if name is None:
        known = ", ".join(("function", *BUILTIN_TOOLS))
        raise VLLMValidationError(
            f"tool_choice can't be a tool of type {kind!r}: choose one of {known}", parameter="tool_choice"
        )
    return name


def _function(tool: Any) -> Any:
    """Name, parameters and strictness, which chat has one level further in."""
    return getattr(tool, "function", tool)


def _callee(function: Any, held: bool) -> Callee:
    if not re.fullmatch(NAME, function.name):
        raise VLLMValidationError(
            f"function {function.name[:200]!r} can't be called: a name has up to 200 letters, digits and any of _.:/@-",
            parameter="tools",
        )
    if not held and function.strict is not True:
        return Callee(function_recipient(function.name), json_of(ANY_OBJECT))
    try:
        schema = enforceable(_arguments(function.parameters), function.strict)
    except UnsupportedSchemaError as error:
        problem = str(error).replace("schema", "parameters", 1)
        raise VLLMValidationError(f"function {function.name!r}: {problem}", parameter="tools") from None
    return Callee(function_recipient(function.name), json_of(schema))


def _arguments(parameters: dict[str, Any] | None) -> dict[str, Any]:
    """The schema of a function's arguments, which are an object.

    Raises: UnsupportedSchemaError for parameters of another type.
    """
    if parameters is None:
        return NO_ARGUMENTS
    if not SHAPES & parameters.keys():
        return parameters | ANY_OBJECT
    kind = parameters.get("type", "object")
    if kind != "object" and not (isinstance(kind, list) and "object" in kind):
        raise UnsupportedSchemaError(f"schema.type is {kind!r}, and arguments are an object")
    return parameters | ANY_OBJECT if "type" in parameters else parameters


def _builtin_names(request: Request) -> list[str]:
    """Recipients of the tools that the server runs itself."""
    types = extract_tool_types(request.tools or []) if isinstance(request, ResponsesRequest) else ()
    return [name for kind, name in BUILTIN_TOOLS.items() if kind in types]


def _builtin(name: str) -> Callee:
    return Callee(either(text(name), pattern(rf"{name}\.[a-z_]{{1,40}}")), TEXT)
