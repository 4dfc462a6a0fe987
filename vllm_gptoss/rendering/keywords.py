"""What the keywords of one schema say, without the schemas below it.

Source: JSON Schema 2020-12, validation; `nullable` is OpenAPI 3.0's.
"""

from collections.abc import Iterator
from typing import Any

from vllm_gptoss.rendering.references import IN_PLACE, SchemaError, Survey
from vllm_gptoss.rendering.typescript import LINE_END, WORD, Note, Type, distinct, quoted

OBJECT = ("properties", "patternProperties", "additionalProperties", "required", "propertyNames")
ARRAY = ("items", "prefixItems")
WORDS = {"integer": "number"}
"""Types that TypeScript has another word for."""
DETAILS = {"object": OBJECT, "array": ARRAY}
"""Keywords whose schemas are part of the type."""
IMPLIED = {
    "object": ("minProperties", "maxProperties", "dependentRequired", "dependentSchemas"),
    "array": ("minItems", "maxItems", "uniqueItems", "contains"),
    "string": ("minLength", "maxLength", "pattern", "format", "contentEncoding", "contentMediaType"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
"""Keywords that tell of a type where nothing else does."""
QUOTED = (
    *("format", "pattern", "minLength", "maxLength", "contentEncoding", "contentMediaType"),
    *("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf"),
    *("minItems", "maxItems", "uniqueItems", "contains", "minContains", "maxContains"),
    *("minProperties", "maxProperties", "dependentRequired", "dependentSchemas"),
    *("not", "if", "then", "else", "deprecated"),
)
"""Keywords that are shown in comments, in this order."""
UNIONS = ("anyOf", "oneOf")
STRUCTURE = (*OBJECT[:3], *ARRAY, *IN_PLACE, "type", "enum", "const", "$ref")
"""What makes a variant a type of its own; `required` alone does not."""


def declared_types(schema: dict) -> list[str]:
    types = schema.get("type") or []
    return types if isinstance(types, list) else [types]


def types_here(schema: dict) -> list[str]:
    """The types that the schema itself spells out; where it only names one for its variants, these do."""
    if has_literals(schema):
        return []
    types = declared_types(schema) or [name for name, keywords in DETAILS.items() if _has_any(schema, keywords)]
    is_for_variants = any(schema.get(union) for union in UNIONS) and not has_details(schema)
    return [] if is_for_variants else types


def has_details(schema: dict, names: tuple[str, ...] = tuple(DETAILS)) -> bool:
    return any(schema.get(keyword) for name in names for keyword in DETAILS[name])


def implied_types(schema: dict) -> list[str]:
    return [WORDS.get(name, name) for name, keywords in IMPLIED.items() if _has_any(schema, keywords)]


def _has_any(schema: dict, keywords: tuple[str, ...]) -> bool:
    return any(schema.get(keyword) is not None for keyword in keywords)


def has_literals(schema: dict) -> bool:
    return bool(schema.get("enum")) or has_const(schema)


def has_const(schema: dict) -> bool:
    types = declared_types(schema)
    return "const" in schema and (schema["const"] is not None or not types or "null" in types)


def is_null(schema: Any) -> bool:
    if not isinstance(schema, dict):
        return False
    is_literal = (has_const(schema) and schema["const"] is None) or schema.get("enum") == [None]
    return is_literal or declared_types(schema) == ["null"]


def is_constraint(schema: Any) -> bool:
    """It narrows what stands beside it, and is no type of its own."""
    return isinstance(schema, dict) and not _has_any(schema, STRUCTURE)


def literals(schema: dict, found: Survey) -> tuple[str, ...]:
    """The values of `const` or `enum`; those of another type than the schema's are left out, unless all are."""
    if has_const(schema):
        return (say(schema, "const", schema["const"], found),)
    types = declared_types(schema)
    values = [value for value in schema["enum"] if not types or _is_of(value, types)] or schema["enum"]
    return tuple(say(schema, "enum", value, found) for value in values)


def _is_of(value: Any, types: list[str]) -> bool:
    if isinstance(value, bool):
        return "boolean" in types
    if isinstance(value, int | float):
        return "number" in types or ("integer" in types and value == int(value))
    kinds = {str: "string", list: "array", dict: "object", type(None): "null"}
    return kinds.get(type(value)) in types


def all_notes(type_: Type, branches: list[dict], members: list[Type], found: Survey) -> tuple[Note, ...]:
    """What the branches and the types in them say in comments: one default, and each bound once."""
    notes = [note for branch in branches for note in _notes_of(branch, found)]
    if any(map(has_details, branches)):
        notes += [
            Note(union, say(branch, union, branch[union], found))
            for branch in branches
            for union in UNIONS
            if branch.get(union) and all(map(is_constraint, branch[union]))
        ]
    notes += [note for member in members for note in member.notes]
    for branch in branches:
        if "default" in branch:
            value = branch["default"]
            is_bare = isinstance(value, str) and not LINE_END.search(value) and type_.is_of_texts
            default = Note("default", value if is_bare else say(branch, "default", value, found))
            return distinct((default, *(note for note in notes if note.key != "default")))
    return distinct(notes)


def _notes_of(schema: dict, found: Survey) -> Iterator[Note]:
    """Bounds and examples; a default is said with the type."""
    length = len(tuple_of(schema) or ())
    is_exact = length and schema.get("minItems") == schema.get("maxItems") == length
    for keyword in QUOTED:
        value = schema.get(keyword)
        if value is None or (is_exact and keyword in ("minItems", "maxItems")):
            continue
        is_word = keyword == "format" and isinstance(value, str) and WORD.fullmatch(value)
        yield Note(keyword, value if is_word else say(schema, keyword, value, found))
    for example in schema.get("examples") or ():
        yield Note("example", say(schema, "examples", example, found))


def tuple_of(schema: dict) -> list | None:
    """The schemas of the first elements."""
    items = schema.get("items")
    return items if isinstance(items, list) else schema.get("prefixItems")


def say(schema: dict, keyword: str, value: Any, found: Survey) -> str:
    """A value as JSON.

    Raises: SchemaError with the pointer of what is none.
    """
    try:
        return quoted(value)
    except ValueError as error:
        place = found.places.get(id(schema), "#")
        raise SchemaError(f"{place}: the value of {keyword} is {error}") from None


def is_object(schema: dict) -> bool:
    return types_here(schema) == ["object"] and (has_details(schema) or not isinstance(schema.get("type"), list))
