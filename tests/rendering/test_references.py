"""Schemas that refer to parts of themselves: pointers, named types, loops, sizes, and what is invalid."""

import time

import pytest

from vllm_gptoss.rendering.references import MAX_PARTS, SchemaError
from vllm_gptoss.rendering.schema import Written, typescript
from vllm_gptoss.rendering.typescript import MAX_TEXT

STRING, NUMBER = {"type": "string"}, {"type": "integer"}
PLACE = {"type": "object", "description": "A place.", "properties": {"street": STRING}, "required": ["street"]}
COLOR = {"enum": ["red", "blue"], "title": "Color", "description": "A colour."}


def written(properties: dict, **defined) -> Written:
    return typescript({"type": "object", "properties": properties, "$defs": defined})


def refer(name: str, **beside) -> dict:
    return {"$ref": f"#/$defs/{name}", **beside}


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (refer("Place"), "// A place.\nx?: {\n    street: string,\n    },"),
        (refer("Place", description="Home."), "// Home.\nx?:     // A place.\n{\n    street: string,\n    },"),
        ({"anyOf": [refer("Place"), {"type": "null"}]}, "// A place.\nx?: {\n    street: string,\n    } | null,"),
        ({"type": "array", "items": refer("Place")}, "x?:     // A place.\n{\n    street: string,\n    }[],"),
        (
            {"oneOf": [refer("Place"), STRING]},
            "x?:\n |    // A place.\n{\n   street: string,\n   }\n | string\n,",
        ),
        (refer("Color", default="red"), '// A colour.\nx?: "red" | "blue", // default: red'),
        ({"allOf": [refer("Color")], "default": "red"}, '// A colour.\nx?: "red" | "blue", // default: red'),
        ({"items": refer("Color")}, 'x?: ("red" | "blue")[], // items: A colour.'),
        (
            {"allOf": [refer("Place"), {"properties": {"floor": NUMBER}}], "description": "Own."},
            "// Own.\nx?:     // A place.\n{\n    street: string,\n    floor?: number,\n    },",
        ),
        (
            refer("Place", type="object", properties={"floor": NUMBER}, required=["floor"]),
            "// A place.\nx?: {\n    street: string,\n    floor: number,\n    },",
        ),
        (refer("Chain"), '// A colour.\nx?: "red" | "blue",'),
        (refer("a~1b~01c%25%22"), "// Odd.\nx?: string,"),
        ({"$ref": "#/definitions/Old/1"}, "x?: number,"),
        (refer("Small", maximum=9), "x?: number, // maximum: 9, minimum: 1"),
    ],
)
def test_a_definition_stands_where_it_is_used(schema, text):
    odd = {'a/b~1c%"': {**STRING, "description": "Odd."}, "Small": {**NUMBER, "minimum": 1}}
    defined = {"Place": PLACE, "Color": COLOR, "Chain": refer("Color"), **odd}
    root = {"properties": {"x": schema}, "$defs": defined, "definitions": {"Old": [STRING, NUMBER]}}
    assert typescript(root) == Written(f"{{\n{text}\n}}", "", {})


def test_one_that_is_used_twice_is_declared_and_named():
    both = written({"home": refer("Place"), "work": refer("Place", description="Of work.")}, Place=PLACE)
    assert both.text == "{\nhome?: Place,\n// Of work.\nwork?: Place,\n}"
    assert both.types == {"Place": "// A place.\ntype Place = {\nstreet: string,\n};\n"}


def test_it_is_used_twice_also_where_python_holds_one_dictionary_twice():
    home = refer("Place")
    for properties in ({"a": home, "b": home}, {"a": {"items": home}, "b": {"properties": {"c": {"items": home}}}}):
        assert list(written(properties, Place=PLACE).types) == ["Place"]
    node = {"type": "object", "properties": {"x": home}}
    assert written({"x": home}, Place=node).types == {"Place": "type Place = {\nx?: Place,\n};\n"}


def test_a_short_one_stands_wherever_it_is_used():
    both = written({"a": refer("Color"), "b": {"type": "array", "items": refer("Color")}}, Color=COLOR)
    assert both.text == '{\n// A colour.\na?: "red" | "blue",\nb?: ("red" | "blue")[], // items: A colour.\n}'
    assert both.types == {}


def test_a_base_of_several_is_not_merged_into_each():
    derived = {"allOf": [refer("Place"), {"properties": {"floor": NUMBER}}]}
    both = written({"a": derived, "b": {**refer("Place"), "properties": {"door": NUMBER}}}, Place=PLACE)
    assert both.text == "{\na?: Place & {\n    floor?: number,\n    },\nb?: Place & {\n    door?: number,\n    },\n}"


def test_a_place_in_the_schema_is_named_by_its_title_or_key():
    titled = {"type": "object", "title": "An address", "properties": {"a": STRING}}
    for home, name in ((titled, "An_address"), ({**titled, "title": None}, "Home")):
        both = written({"home": home, "work": {"$ref": "#/properties/home"}})
        assert both.text == f"{{\nhome?: {name},\nwork?: {name},\n}}".replace(
            "{\n", "{\n// An address\n//\n" if home is titled else "{\n", 1
        )
        assert list(both.types) == [name]


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("Foo[int]", "Foo_int_"),
        ("a.b-c", "A_b_c"),
        ("1st", "_1st"),
        ("string", "String"),
        ("any", "Any"),
        ("Array", "Array_2"),
        ("Tool", "Tool_2"),
        ("é", "É"),
        ("x" * 99, "X" + "x" * 59),
    ],
)
def test_names_of_types_are_identifiers_that_nothing_else_has(key, name):
    root = {"properties": {"a": {"$ref": f"#/$defs/{key}"}, "b": {"$ref": f"#/$defs/{key}"}}, "$defs": {key: PLACE}}
    assert list(typescript(root, taken=["Tool"]).types) == [name]


def test_recursion_has_a_name():
    node = {"type": "object", "properties": {"value": NUMBER, "next": {"anyOf": [refer("Node"), {"type": "null"}]}}}
    tree = written({"root": refer("Node")}, Node=node)
    assert tree.text == "{\nroot?: Node,\n}"
    assert tree.types == {"Node": "type Node = {\nvalue?: number,\nnext?: Node | null,\n};\n"}


def test_recursion_of_the_whole():
    tree = typescript({"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}}})
    assert tree == Written("Arguments", "", {"Arguments": "type Arguments = {\nchildren?: Arguments[],\n};\n"})


def test_recursion_over_two():
    a, b = {"properties": {"b": refer("B")}}, {"properties": {"a": refer("A")}}
    tree = written({"x": refer("A")}, A=a, B=b)
    assert tree.types == {"A": "type A = {\nb?: {\n    a?: A,\n    },\n};\n"}


def test_recursion_over_a_short_one():
    """The type of all JSON."""
    value = {"anyOf": [STRING, {"items": refer("Json")}, {"additionalProperties": refer("Json")}]}
    tree = written({"x": refer("Json")}, Json=value)
    assert tree.types == {"Json": "type Json =\n | string\n | Json[]\n | {\n   [key: string]: Json,\n   };\n"}
    assert written({"x": refer("L")}, L={"items": refer("L")}).types == {"L": "type L = L[];\n"}


PATHS = {
    "properties": lambda a, b: {"properties": {"l": a, "r": b}},
    "any": lambda a, b: {"anyOf": [a, b]},
    "all": lambda a, b: {"allOf": [a, b]},
    "all with more": lambda a, b: {"properties": {"p": {"allOf": [a, {"minProperties": 1}]}}, "allOf": [b]},
    "tuple": lambda a, b: {"prefixItems": [a, b]},
    "bounded tuple": lambda a, b: {"prefixItems": [{**a, "minItems": 1}, {**b, "maxItems": 9}]},
    "dict": lambda a, b: {"propertyNames": a, "additionalProperties": b},
    "any of objects": lambda a, b: {"anyOf": [{"properties": {"l": a}}, {"properties": {"r": b}}]},
}


@pytest.mark.parametrize("shape", PATHS)
def test_two_to_the_thirty_paths(shape):
    """Text and time grow with the schema, not with the ways through it."""
    defined = {f"D{n}": PATHS[shape](refer(f"D{n + 1}"), refer(f"D{n + 1}")) for n in range(30)}
    begun = time.process_time()
    result = written({"x": refer("D0")}, **defined, D30=STRING)
    assert time.process_time() - begun < 5
    assert len(result.text) + sum(map(len, result.types.values())) < 3000


def nested(depth: int, around, schema: dict) -> dict:
    for _ in range(depth):
        schema = around(schema)
    return schema


def test_depth_costs_no_stack():
    deep = nested(5000, lambda inner: {"type": "array", "items": inner}, STRING)
    assert typescript(deep).text == "string" + "[]" * 5000
    deep = nested(300, lambda inner: {"type": "object", "properties": {"a": inner}}, STRING)
    assert typescript(deep).text.count("{") == 300
    chain = {f"D{n}": refer(f"D{n + 1}") for n in range(3000)}
    assert written({"x": refer("D0")}, **chain, D3000=STRING).text == "{\nx?: string,\n}"
    assert typescript(nested(3000, lambda inner: {"allOf": [inner, {"minLength": 1}]}, STRING)).text == "string"


def cyclic() -> dict:
    schema = {"type": "object", "properties": {}}
    schema["properties"]["itself"] = schema
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        nested(MAX_PARTS, lambda inner: {"items": inner}, STRING),
        nested(10_000, lambda inner: {"properties": {"a": inner}}, STRING),
        nested(30, lambda inner: {"properties": {"a": inner, "b": inner}}, STRING),
        nested(30, lambda inner: {"anyOf": [inner, inner]}, STRING),
        nested(5000, lambda inner: {"items": inner, "minItems": 1}, STRING),
        nested(500, lambda inner: {"properties": {"a": inner}}, {"description": "\n" * 9000}),
        {"properties": {f"p{n}": {"description": "x" * 2000} for n in range(600)}},
        {"type": "string", "description": "x" * (MAX_TEXT + 1)},
        {"enum": ["x" * MAX_TEXT]},
        cyclic(),
    ],
    ids=[
        "parts",
        "depth",
        "python_paths",
        "python_unions",
        "paths_of_notes",
        "lines",
        "text",
        "description",
        "value",
        "python_cycle",
    ],
)
def test_what_is_too_large_is_refused_at_once(schema):
    # Of this process alone: other programs may have the machine. Without the limits it is hours, or memory ends.
    begun = time.process_time()
    with pytest.raises(SchemaError, match=f"more than {MAX_PARTS} schemas|longer than {MAX_TEXT} characters"):
        typescript(schema)
    assert time.process_time() - begun < 10


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "str"}, "#/properties/a~1b/type: type is a type of JSON or a list of them, not 'str'"),
        ({"type": []}, "#/properties/a~1b/type: type is a type of JSON or a list of them, not []"),
        ({"type": {}}, "#/properties/a~1b/type: type is a type of JSON or a list of them, not {}"),
        (3, "#/properties/a~1b: a schema is an object or a boolean, not 3"),
        (None, "#/properties/a~1b: a schema is an object or a boolean, not None"),
        ([STRING], "#/properties/a~1b: a schema is an object or a boolean, not a list"),
        ({"items": [STRING, "x"]}, "#/properties/a~1b/items/1: a schema is an object or a boolean, not 'x'"),
        (
            {"additionalProperties": []},
            "#/properties/a~1b/additionalProperties: a schema is an object or a boolean, not []",
        ),
        ({"required": True}, "#/properties/a~1b/required: required is a list of names, not True"),
        ({"required": [1]}, "#/properties/a~1b/required: required is a list of names, not a list"),
        (
            {"properties": [1]},
            "#/properties/a~1b/properties: properties is an object with a schema for each name, not a list",
        ),
        ({"anyOf": []}, "#/properties/a~1b/anyOf: anyOf is a list of at least one schema, not []"),
        ({"oneOf": STRING}, "#/properties/a~1b/oneOf: oneOf is a list of at least one schema, not an object"),
        ({"enum": "ab"}, "#/properties/a~1b/enum: enum is a list, not 'ab'"),
        ({"description": 1}, "#/properties/a~1b/description: description is a text, not 1"),
        ({"$ref": 1}, "#/properties/a~1b/$ref: $ref is a text, not 1"),
        (refer("X"), "#/properties/a~1b: '#/$defs/X' refers to nothing"),
        (refer("X/y/0"), "#/properties/a~1b: '#/$defs/X/y/0' refers to nothing"),
        ({"$ref": "#/$defs/L/01x"}, "#/properties/a~1b: '#/$defs/L/01x' refers to nothing"),
        ({"$ref": "#/$defs/L/3"}, "#/properties/a~1b: '#/$defs/L/3' refers to nothing"),
        ({"$ref": "https://x.org/s.json"}, "#/properties/a~1b: 'https://x.org/s.json' refers to another document"),
        ({"$ref": "#name"}, "#/properties/a~1b: '#name' is no JSON pointer"),
        (refer("L"), "#/$defs/L: a schema is an object or a boolean, not a list"),
        (refer("Loop"), "#/$defs/Loop: the schema refers to itself in a loop"),
        ({"anyOf": [STRING, {"allOf": [refer("Loop2")]}]}, "the schema refers to itself in a loop"),
        ({"default": {1, 2}}, "#/properties/a~1b: the value of default is no JSON: "),
        ({"enum": [b"x"]}, "#/properties/a~1b: the value of enum is no JSON: "),
        (
            {"default": nested(100_000, lambda inner: [inner], {})},
            "#/properties/a~1b: the value of default is no JSON: ",
        ),
    ],
)
def test_what_is_invalid_is_named(schema, message):
    defined = {"L": [STRING], "Loop": refer("Loop"), "Loop2": {"oneOf": [{"anyOf": [STRING, refer("Loop2")]}]}}
    with pytest.raises(SchemaError) as error:
        written({"a/b": schema}, **defined)
    assert message in str(error.value)
