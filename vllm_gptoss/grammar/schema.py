"""Whether a grammar can hold the model to a JSON schema, and where it can't.

What xgrammar leaves out without a word would let answers through that the schema forbids: it is refused by name.
Descriptions, defaults, unknown formats of strings and everything else that forbids nothing passes. Of a known format
the length is not held; an object with named properties has no others unless `additionalProperties` is there.

Source: JSON Schema 2020-12; xgrammar 0.2.8.
"""

import functools
import json
import re
from collections.abc import Iterator
from typing import Any

import xgrammar

DEPTH = 64
"""Objects and arrays within each other, as vLLM counts them."""

PATH = 160
"""Letters of a path that an error shows."""

IGNORED = {
    *("multipleOf", "contains", "minContains", "maxContains", "not", "if", "then", "else"),
    *("dependentRequired", "dependentSchemas", "dependencies", "$dynamicRef", "$recursiveRef"),
}
"""Keywords that forbid something which xgrammar allows."""

NOT_TOGETHER = (
    ("pattern", "minLength"),
    ("pattern", "maxLength"),
    ("propertyNames", "properties"),
    ("propertyNames", "patternProperties"),
    ("properties", "patternProperties"),
)
"""Of two such keywords xgrammar keeps one."""

IN_DICT = ("properties", "patternProperties", "$defs", "definitions")
IN_LIST = ("anyOf", "oneOf", "allOf", "prefixItems")
IN_PLACE = ("items", "additionalProperties", "unevaluatedProperties", "unevaluatedItems", "propertyNames")
"""Keywords with schemas in them."""

ROOT = "schema"

OUT_OF_PLACE = "Cannot find field"
"""What xgrammar says of a reference that leads nowhere: in the whole schema each leads somewhere."""


ANY_OBJECT: dict[str, Any] = {"type": "object"}


class UnsupportedSchemaError(ValueError):
    """The text begins with the path of what is wrong, which begins with `schema`."""


def enforceable(schema: Any, strict: bool | None) -> dict[str, Any]:
    """The schema; any object in its place where it can't be enforced and need not be, by `strict: false`.

    Raises: UnsupportedSchemaError.
    """
    try:
        check_schema(schema)
    except UnsupportedSchemaError:
        if strict is False:
            return ANY_OBJECT
        raise
    return schema


def check_schema(schema: Any) -> None:
    """Raises: UnsupportedSchemaError."""
    if not isinstance(schema, dict):
        raise UnsupportedSchemaError(f"{ROOT} is {_kind(schema)}, not an object")
    if path := _too_deep(schema):
        path = path if len(path) < PATH else f"{path[: PATH // 2]}…{path[-PATH // 2 :]}"
        raise UnsupportedSchemaError(f"{path} is nested too deeply: objects and arrays may nest at most {DEPTH} levels")
    if problem := _problem(json.dumps(schema)):
        raise UnsupportedSchemaError(problem)


def _too_deep(schema: dict[str, Any]) -> str | None:
    """The path of the first value that is too deep; the walk itself goes no deeper."""
    level: list[tuple[str, Any]] = [(ROOT, schema)]
    for _ in range(DEPTH):
        level = [(path, child) for parent in level for path, child in _children(*parent) if type(child) in (dict, list)]
        if not level:
            return None
    return level[0][0]


def _children(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    for key, child in value.items() if isinstance(value, dict) else enumerate(value):
        yield f"{path}{_step(key)}", child


def _step(key: str | int) -> str:
    return f".{key}" if isinstance(key, str) and re.fullmatch(r"[\w$-]{1,80}", key) else f"[{json.dumps(key)}]"


@functools.lru_cache(maxsize=256)
def _problem(text: str) -> str | None:
    """What is wrong with the schema `text`; the same tools come with each turn of a conversation."""
    schema = json.loads(text)
    parts = list(_subschemas(ROOT, schema))
    for path, part in parts:
        if problem := _keywords(part) or _reference(part, schema):
            return f"{path}{problem}"
    if not _refusal(schema):
        return None
    shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    for path, part in reversed(parts):  # the inner ones first
        refusal = _refusal(part | shared)
        if refusal and not refusal.startswith(OUT_OF_PLACE):
            return f"{path}: {refusal}"
    return f"{ROOT}: {_refusal(schema)}"


def _subschemas(path: str, schema: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The schema and all that are in it, outer ones first."""
    if not isinstance(schema, dict):
        return
    yield path, schema
    for key in (*IN_DICT, *IN_LIST):
        if isinstance(schema.get(key), dict | list):
            for inner, child in _children(path + _step(key), schema[key]):
                yield from _subschemas(inner, child)
    for key in IN_PLACE:
        yield from _subschemas(path + _step(key), schema.get(key))


def _keywords(schema: dict[str, Any]) -> str | None:
    if found := sorted(IGNORED & schema.keys()):
        return f"{_step(found[0])} can't be enforced"
    if schema.get("uniqueItems"):
        return ".uniqueItems can't be enforced"
    if isinstance(schema.get("allOf"), list) and len(schema["allOf"]) > 1:
        return ".allOf can't be enforced with more than one schema in it"
    if isinstance(schema.get("patternProperties"), dict) and len(schema["patternProperties"]) > 1:
        return ".patternProperties can't be enforced with more than one pattern"
    pair = next((pair for pair in NOT_TOGETHER if schema.keys() >= {*pair}), None)
    return f".{pair[0]} can't be enforced together with {pair[1]}" if pair else None


def _reference(schema: dict[str, Any], root: dict[str, Any]) -> str | None:
    """A `$ref` that leads out of the schema, to nothing, or back to itself."""
    seen: list[str] = []
    while isinstance(schema, dict) and "$ref" in schema:
        reference = schema["$ref"]
        if not isinstance(reference, str) or not re.fullmatch(r"#(/.*)?", reference, re.DOTALL):
            return f".$ref is {reference!r}: it must lead to a place in the same schema, as #/$defs/Name does"
        if reference in seen:
            return f".$ref leads back to itself, {reference!r}"
        seen.append(reference)
        schema = root
        for key in reference.split("/")[1:]:
            if not isinstance(schema, dict) or key not in schema:
                return f".$ref is {reference!r}, and nothing is there"
            schema = schema[key]
    return None


def _refusal(schema: dict[str, Any]) -> str | None:
    """What xgrammar says against a schema."""
    try:
        xgrammar.Grammar.from_json_schema(json.dumps(schema))
    except Exception as error:  # its classes are those of its C++ side
        return said_of(error)
    return None


def said_of(error: Exception) -> str:
    """What xgrammar says, without the time and the line of its source."""
    return re.sub(r"^\[[\d:]+\] \S+: ", "", str(error).strip())


def _kind(value: Any) -> str:
    return {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}.get(type(value), "a number")
