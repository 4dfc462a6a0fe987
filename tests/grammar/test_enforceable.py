"""Schemas that a grammar can hold to, and the path of what it can't."""

import json

import pytest
import xgrammar
from matching import END, GOES_ON, compiler, read

from vllm_gptoss.grammar.schema import ANY_OBJECT, DEPTH, UnsupportedSchemaError, check_schema, enforceable
from vllm_gptoss.grammar.turn import json_of

WEEK = {"type": "array", "items": {"type": "integer"}}


def in_object(schema) -> dict:
    return {"type": "object", "properties": {"a": schema}}


def nested(levels: int) -> dict:
    """A schema whose objects lie this many levels deep."""
    schema = {"type": "string"}
    for _ in range((levels - 1) // 2):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


REFUSED = [
    (in_object({"type": "integer", "multipleOf": 3}), "schema.properties.a.multipleOf can't be enforced"),
    (in_object({"not": {"type": "string"}}), "schema.properties.a.not can't be enforced"),
    (in_object(WEEK | {"uniqueItems": True}), "schema.properties.a.uniqueItems can't be enforced"),
    (in_object(WEEK | {"contains": {"const": 1}}), "schema.properties.a.contains can't"),
    ({"type": "object", "if": {}, "then": {}}, "schema.if can't be enforced"),
    ({"type": "object", "dependentRequired": {"a": ["b"]}}, "schema.dependentRequired can't be enforced"),
    (in_object({"allOf": [{"type": "string"}, {"enum": ["x"]}]}), "schema.properties.a.allOf can't"),
    (
        in_object({"type": "string", "pattern": "a+", "minLength": 2}),
        "schema.properties.a.pattern can't be enforced tog",
    ),
    ({"type": "object", "properties": {}, "patternProperties": {"^a": {}}}, "schema.properties can't be enforced tog"),
    ({"type": "object", "patternProperties": {"^a": {}, "^b": {}}}, "schema.patternProperties can't"),
    ({"anyOf": [{"type": "object"}, in_object({"multipleOf": 2})]}, "schema.anyOf[1].properties.a.multipleOf can't"),
    ({"$defs": {"A b": {"items": {"not": {}}}}, "$ref": "#/$defs/A b"}, 'schema.$defs["A b"].items.not can\'t'),
    (in_object({"$ref": "#/$defs/X"}), "schema.properties.a.$ref is '#/$defs/X', and nothing is there"),
    (in_object({"$ref": "http://x/y"}), "schema.properties.a.$ref is 'http://x/y': it must lead to a place"),
    ({"$defs": {"A": {"$ref": "#/$defs/A"}}, "$ref": "#/$defs/A"}, "schema.$ref leads back to itself"),
    (in_object({"type": "strung"}), 'schema.properties.a: Unsupported type "strung"'),
    (in_object({"type": "string", "minLength": 5, "maxLength": 2}), "schema.properties.a: minLength 5 is greater"),
    (in_object({"type": "string", "pattern": "(?<=a)b"}), "schema.properties.a: Regex parsing error"),
    (in_object({"enum": []}), "schema.properties.a: enum array must not be empty"),
    ({"type": "object", "properties": [1]}, "schema: properties must be an object"),
    (in_object({"type": "integer", "minimum": 10**30}), "schema.properties.a: "),
    (["a"], "schema is an array, not an object"),
    ("a", "schema is a string, not an object"),
    (None, "schema is null, not an object"),
    (True, "schema is a boolean, not an object"),
    (nested(DEPTH + 1), "is nested too deeply: objects and arrays may nest at most 64 levels"),
    (in_object({"const": json.loads("[" * 500 + "]" * 500)}), "is nested too deeply"),
]

ACCEPTED = [
    ({}, "[1]"),
    ({"type": "object"}, '{"a":[]}'),
    (in_object({"type": "string", "description": "multipleOf", "default": {"not": 1}}), '{"a":""}'),
    ({"type": "object", "properties": {"not": {"type": "null"}, "if": {"const": 3}}}, '{"not":null,"if":3}'),
    (in_object({"type": "string", "format": "path"}), '{"a":"x y"}'),
    (in_object({"type": "string", "format": "uri", "minLength": 1, "maxLength": 2083}), '{"a":"http://a.b/"}'),
    (in_object(WEEK | {"uniqueItems": False, "maxItems": 2}), '{"a":[1,1]}'),
    (in_object({"allOf": [{"type": "string"}]}), '{"a":"x"}'),
    (in_object({"anyOf": [{"type": "integer"}, {"type": "null"}]}), '{"a":null}'),
    ({"$defs": {"N": in_object({"$ref": "#/$defs/N"})}, "$ref": "#/$defs/N"}, '{"a":{"a":{}}}'),
    (in_object({"type": "object"}) | {"$ref": "#/properties/a"}, "{}"),
    ({"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}]}, '["a",1]'),
    (nested(DEPTH), '{"a":{}}'),
]


@pytest.mark.parametrize(("schema", "message"), REFUSED)
def test_refused_with_the_path(schema, message):
    with pytest.raises(UnsupportedSchemaError) as refused:
        check_schema(schema)
    assert message in str(refused.value)
    assert "cpp" not in str(refused.value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(("schema", "text"), ACCEPTED)
def test_accepted_and_compiled(schema, text):
    check_schema(schema)
    tag = {"type": "structural_tag", "format": json_of(schema)}
    assert read(json.dumps(tag), f"{text}<|return|>") == END


@pytest.mark.parametrize(("schema", "message"), REFUSED[:8])
def test_strict_false_needs_no_grammar(schema, message):
    assert enforceable(schema, False) == ANY_OBJECT
    for strict in (None, True):
        with pytest.raises(UnsupportedSchemaError):
            enforceable(schema, strict)


@pytest.mark.parametrize(
    ("schema", "forbidden"),
    [
        ({"type": "integer", "multipleOf": 3}, "4"),
        ({"not": {"type": "string"}}, '"x"'),
        ({"allOf": [{"type": "string"}, {"enum": ["x"]}]}, '"y"'),
        (WEEK | {"uniqueItems": True}, "[1, 1]"),
        ({"type": "string", "pattern": "a+", "minLength": 2}, '"a"'),
        (in_object({}) | {"dependentRequired": {"a": ["b"]}}, '{"a": 1}'),
        ({"type": "object", "propertyNames": {"pattern": "a"}, "properties": {"b": {}}}, '{"b": 1}'),
    ],
)
def test_what_is_refused_is_what_xgrammar_lets_through(schema, forbidden):
    """Goes from the tables of `schema.py` when xgrammar can do it."""
    state = xgrammar.GrammarMatcher(compiler().compile_json_schema(json.dumps(schema)))
    assert state.accept_string(forbidden)
    with pytest.raises(UnsupportedSchemaError):
        check_schema(schema)


def test_no_endless_white_space():
    tag = json.dumps({"type": "structural_tag", "format": json_of(in_object({"type": "null"}))})
    assert read(tag, '{\n\n    "a": null}<|return|>') == END
    assert read(tag, "{" + "\n" * 100) != GOES_ON
