"""The section of the developer message that tells the model which functions it may call.

    # Tools

    ## functions

    namespace functions {

    // Gets the current weather in the provided location.
    type get_current_weather = (_: {
    // The city and state, e.g. San Francisco, CA
    location: string,
    format?: "celsius" | "fahrenheit", // default: celsius
    }) => any;

    } // namespace functions

Named types of a function's parameters stand in front of it. Functions of one request, as those of one MCP server, often
bring the same types: what is the same is declared once, and what only has the same name gets another.

Source: OpenAI's guide to the harmony response format, "Function calling", and the harmony library's text.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from vllm_gptoss.rendering.references import Schema, SchemaError
from vllm_gptoss.rendering.schema import Written, typescript
from vllm_gptoss.rendering.typescript import comment

NAME = re.compile(r"[\w.:/@-]{1,200}")
"""What can stand in a header behind `to=functions.`."""


class Function(NamedTuple):
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters: Schema | None = None
    """The JSON schema of its arguments, None where it takes none."""


def functions_section(functions: Iterable[Function]) -> str:
    """Text of the section, empty without functions; not yet guarded against control tokens (`schema.py`).

    Raises: SchemaError for parameters that can't be written down and for a name that can't be called.
    """
    functions = list(functions)
    return f"# Tools\n\n{namespace_section('functions', None, functions)}" if functions else ""


def namespace_section(name: str, description: str | None, functions: Iterable[Function]) -> str:
    """One namespace of functions, as the developer's; the system message has one for each built-in tool.

    A tool that is called with text of its own, as python is with code, has a description and no functions.

    Raises: as `functions_section`.
    """
    functions = list(functions)
    if not functions:
        return f"## {name}\n\n{description or ''}".rstrip()
    names = {function.name for function in functions}
    types: dict[str, str] = {}
    declarations = "".join(_declaration(function, names, types) for function in functions)
    text = f"## {name}\n\n{comment(description)}namespace {name} {{\n\n{declarations}}} // namespace {name}"
    # Half of a surrogate pair, which JSON can spell, is no text that could be encoded.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _declaration(function: Function, names: set[str], types: dict[str, str]) -> str:
    """The function behind those of its types that are new; adds them to `types`."""
    if not NAME.fullmatch(function.name):
        raise SchemaError(f"a function can't be called by the name {function.name[:200]!r}")
    lead = comment(function.description)
    if function.parameters is None:
        return f"{lead}type {function.name} = () => any;\n\n"
    try:
        written = _written(function.parameters, names, types)
    except SchemaError as error:
        raise SchemaError(f"parameters of {function.name}: {error}") from None
    new = [text for name, text in written.types.items() if name not in types]
    types |= written.types
    own = f"{lead}type {function.name} = (_: {written.text}) => any;{written.comment}\n"
    return "".join(f"{text}\n" for text in (*new, own))


def _written(parameters: Schema, names: set[str], types: dict[str, str]) -> Written:
    written = typescript(parameters, names)
    if all(types.get(name, text) == text for name, text in written.types.items()):
        return written
    return typescript(parameters, names | types.keys())
