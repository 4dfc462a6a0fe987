"""The JSON schema of a tool's parameters, as the TypeScript-like type that gpt-oss was trained on.

    {"type": "object",                                           {
     "properties": {                                             // The city and state
       "location": {"type": "string",                            location: string,
                    "description": "The city and state"},        format?: "celsius" | "fahrenheit", // default: celsius
       "format": {"type": "string", "default": "celsius",        }
                  "enum": ["celsius", "fahrenheit"]}},
     "required": ["location"]}

Where the harmony library keeps the meaning of a schema, this is its text, byte for byte. Where it prints `any`, drops a
keyword or breaks a line (vLLM hands schemas to it as they come), the text says what the schema says:

    types         unions, intersections, tuples and literals are TypeScript's; allOf of objects is one object;
                  keywords that concern one type (`properties`, `items`, `minLength`) imply it where none is given
    comments      behind a type stand its default, bounds and examples as `keyword: JSON`, those of its parts by a
                  path (`items.minimum: 0`); keywords without a counterpart (`not`, `if`, ...) are quoted whole
    titles        are left out where they are what pydantic makes of the name
    definitions   stand where they are used. One that is used twice or more and takes more than a short line is a
                  named type in front of the function, and so is one that recurs: the text grows with the schema,
                  never with the number of paths through it
    any, never    the schemas true and false

What a schema allows by keeping silent, further properties or elements, is not shown.

The text is plain text. A description may hold `<|end|>`, and nothing here changes it: whoever encodes the text must
encode it as ordinary text (`HarmonyEncoding.encode(text, disallowed_special=())`), as the library does with its own.

Source: OpenAI's guide to the harmony response format, "Function calling"; the library's `json_schema_to_typescript`;
JSON Schema 2020-12 and OpenAPI 3.0's `nullable`.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

from vllm_gptoss.rendering.references import Schema, survey
from vllm_gptoss.rendering.typescript import check_length, comment, in_line, remarks, rows, trailing
from vllm_gptoss.rendering.writer import Step, Writer


class Written(NamedTuple):
    """What stands behind `_: ` in the declaration of a function, and around it."""

    text: str
    comment: str
    """Behind the declaration, with its slashes."""
    types: dict[str, str]
    """Declarations of the named types in `text`, by name; one that needs another stands behind it."""


def typescript(parameters: Schema, taken: Collection[str] = ()) -> Written:
    """The type of a tool's parameters; no named type has a name that is `taken`.

    Raises: SchemaError where the schema is invalid, with a JSON pointer, or exceeds `MAX_PARTS` or `MAX_TEXT`.
    """
    writer = Writer(survey(parameters), taken)
    type_ = _run(writer.type_of(parameters, "", ""))
    lead = comment(type_.description)
    if type_.variants:
        end = "\n" if type_.variants[-1].comment else ""
        text = "".join(f"\n{row}" for row in rows(type_, "")) + end
    else:
        text = in_line(type_, "")
    if lead and type_.head != lead:
        text = lead + text.removeprefix("\n")
    check_length(len(text) + sum(map(len, writer.types.values())))
    return Written(text, trailing(remarks(type_.notes)), writer.types)


def _run(step: Step) -> Any:
    """Runs a step and all below it, on a stack of its own."""
    stack, result = [step], None
    while stack:
        try:
            below = stack[-1].send(result)
        except StopIteration as done:
            stack.pop()
            result = done.value
        else:
            stack.append(below)
            result = None
    return result
