"""A JSON Schema before it is written down: each part checked, each `$ref` resolved, each use of a part counted.

A schema refers to parts of itself by JSON pointers (`#/$defs/A`, `#/definitions/A`, `#/properties/a/items`, `#`);
addresses of other documents and `$anchor` are refused. A keyword that is null counts as absent. Keywords that are only
quoted in comments, such as bounds, are not checked.

Source: JSON Schema 2020-12, with what older drafts and OpenAPI 3.0 still send: `definitions`, `items` as a list,
`additionalItems`, `nullable`. Pointers: RFC 6901, sections 3 to 6.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote

Schema = dict[str, Any] | bool

MAX_PARTS = 20_000
"""Schemas that a schema may consist of; the largest published tools have some hundred."""

TYPES = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})
IN_PLACE = ("allOf", "anyOf", "oneOf")
"""Applied to the same value as the schema that they stand in."""
LISTS = ("items", "prefixItems", *IN_PLACE)
"""May hold a list of schemas."""


class SchemaError(ValueError):
    """A schema is invalid or too large; the message begins with the JSON pointer of the part that is."""


class Place(NamedTuple):
    """Where a schema stands: a JSON pointer, last token first."""

    above: "Place | None" = None
    token: str = ""

    def __str__(self) -> str:
        tokens, place = [], self
        while place.above is not None:
            tokens.append(place.token.replace("~", "~0").replace("/", "~1"))
            place = place.above
        text = "#" + "".join(f"/{token}" for token in reversed(tokens))
        text = text.encode(errors="replace").decode()  # Names may hold halves of surrogate pairs.
        return text if len(text) < 300 else f"{text[:150]}...{text[-150:]}"


class Survey(NamedTuple):
    targets: dict[str, Schema]
    """What each `$ref` refers to."""
    places: dict[int, Place]
    """Where the schema of an `id` stands."""
    shared: dict[int, Place]
    """Schemas that a `$ref` refers to and that are used in more places than one."""


def survey(root: Schema) -> Survey:
    """Visits whatever `root` consists of.

    Raises: SchemaError with the pointer of what is invalid.
    """
    found = Survey({}, {}, {})
    referred: dict[int, Place] = {}
    inside: dict[int, list[int]] = {}
    uses: Counter[int] = Counter()
    parts: Counter[int] = Counter()
    """Uses but those by reference. A part of Python's making may stand in many places, and counts twice at most."""
    stack = [(root, Place(), False)]
    while stack:
        schema, place, is_referred = stack.pop()
        if isinstance(schema, bool):
            continue
        if not isinstance(schema, dict):
            raise SchemaError(f"{place}: a schema is an object or a boolean, not {_shown(schema)}")
        uses[id(schema)] += 1
        parts[id(schema)] += not is_referred
        if uses[id(schema)] > 1 and (is_referred or parts[id(schema)] != 2):
            continue
        if len(found.places) == MAX_PARTS:
            raise SchemaError(f"{place}: the schema consists of more than {MAX_PARTS} schemas")
        _check(schema, place)
        found.places.setdefault(id(schema), place)
        children = list(_children(schema, place))
        in_place = [child for keyword, child, _ in children if keyword in IN_PLACE]
        if (reference := schema.get("$ref")) is not None:
            target, at = _resolve(root, reference, place)
            found.targets[reference] = target
            referred[id(target)] = at
            in_place.append(target)
            stack.append((target, at, True))
        inside[id(schema)] = [id(child) for child in in_place if isinstance(child, dict)]
        stack += [(child, at, False) for _, child, at in children]
    _refuse_loops(inside, found.places)
    found.shared.update((part, place) for part, place in referred.items() if uses[part] > 1)
    return found


def _children(schema: dict[str, Any], place: Place) -> Iterator[tuple[str, Any, Place]]:
    for keyword in ("properties", "patternProperties"):
        for name, child in (schema.get(keyword) or {}).items():
            yield keyword, child, Place(Place(place, keyword), name)
    for keyword in (*LISTS, "additionalItems", "additionalProperties", "propertyNames"):
        child = schema.get(keyword)
        if isinstance(child, list) and keyword in LISTS:
            for number, element in enumerate(child):
                yield keyword, element, Place(Place(place, keyword), str(number))
        elif child is not None:
            yield keyword, child, Place(place, keyword)


def _resolve(root: Schema, reference: str, place: Place) -> tuple[Schema, Place]:
    if not reference.startswith("#"):
        raise SchemaError(f"{place}: {_shown(reference)} refers to another document")
    fragment = unquote(reference[1:])
    if fragment and not fragment.startswith("/"):
        raise SchemaError(f"{place}: {_shown(reference)} is no JSON pointer")
    node, at = root, Place()
    for token in fragment.split("/")[1:]:
        token = token.replace("~1", "/").replace("~0", "~")
        at = Place(at, token)
        if isinstance(node, dict) and token in node:
            node = node[token]
        elif isinstance(node, list) and token.isdecimal() and len(token) < 9 and int(token) < len(node):
            node = node[int(token)]
        else:
            raise SchemaError(f"{place}: {_shown(reference)} refers to nothing")
    return node, at


def _refuse_loops(inside: dict[int, list[int]], places: dict[int, Place]) -> None:
    """A schema that contains itself for one and the same value never ends (2020-12 core, 9.4.1)."""
    waits = Counter(child for children in inside.values() for child in children)
    free = [part for part in inside if not waits[part]]
    done = 0
    while free:
        done += 1
        for child in inside[free.pop()]:
            waits[child] -= 1
            if not waits[child]:
                free.append(child)
    if done < len(inside):
        first = next(part for part in inside if waits[part] > 0)
        raise SchemaError(f"{places[first]}: the schema refers to itself in a loop")


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_type(value: Any) -> bool:
    names = value if isinstance(value, list) else [value]
    return bool(names) and all(isinstance(name, str) and name in TYPES for name in names)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(name, str) for name in value)


def _is_some(value: Any) -> bool:
    return isinstance(value, list) and bool(value)


FORMS = {
    "type": (_is_type, "a type of JSON or a list of them"),
    "enum": (_is_list, "a list"),
    "examples": (_is_list, "a list"),
    "prefixItems": (_is_list, "a list of schemas"),
    "required": (_is_texts, "a list of names"),
    "properties": (_is_object, "an object with a schema for each name"),
    "patternProperties": (_is_object, "an object with a schema for each pattern"),
    "$ref": (_is_text, "a text"),
    "title": (_is_text, "a text"),
    "description": (_is_text, "a text"),
    **dict.fromkeys(IN_PLACE, (_is_some, "a list of at least one schema")),
}
"""What the value of a keyword has to be."""


def _check(schema: dict[str, Any], place: Place) -> None:
    for keyword, (is_form, form) in FORMS.items():
        value = schema.get(keyword)
        if value is not None and not is_form(value):
            raise SchemaError(f"{Place(place, keyword)}: {keyword} is {form}, not {_shown(value)}")


def _shown(value: Any) -> str:
    """A value in a message, short; of a container its kind."""
    if value and isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return ascii(value)[:60]
