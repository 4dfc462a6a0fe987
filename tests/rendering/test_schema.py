"""What a schema says and what the model reads: a row for each keyword, its combinations and what people get wrong."""

from schema_rows import NULL, NUMBER, PLACE, STRING, an_object, check, members


@check(
    {
        "string": (STRING, "x?: string,"),
        "integer": (NUMBER, "x?: number,"),
        "null": (NULL, "x?: null,"),
        "nothing": ({}, "x?: any,"),
        "true": (True, "x?: any,"),
        "false": (False, "x?: never,"),
        "types": ({"type": ["string", "integer", "null"]}, "x?: string | number | null,"),
        "bare types": ({"type": ["object", "array"]}, "x?: object | array,"),
        "types with details": ({"type": ["array", "null"], "items": STRING}, "x?: string[] | null,"),
        "object or null": (
            {"type": ["object", "null"], "properties": {"a": STRING}},
            "x?: {\n    a?: string,\n    } | null,",
        ),
        "nullable": ({"type": "string", "nullable": True}, "x?: string | null,"),
        "nullable twice": ({"type": ["string", "null"], "nullable": True}, "x?: string | null,"),
        "nullable items": ({"type": "array", "items": {**STRING, "nullable": True}}, "x?: (string | null)[],"),
        "keywords that are null": ({"type": "string", "enum": None, "description": None, "$ref": None}, "x?: string,"),
        "no type, object": ({"properties": {"a": STRING}}, "x?: {\n    a?: string,\n    },"),
        "no type, array": ({"items": STRING}, "x?: string[],"),
        "no type, bounds": ({"maximum": 3}, "x?: number, // maximum: 3"),
        "no type, bounds of two": ({"maxLength": 3, "minItems": 1}, "x?: array | string, // maxLength: 3, minItems: 1"),
    }
)
def test_types(schema, text):
    assert members(an_object(x=schema)) == text


@check(
    {
        "const": ({"const": "a"}, 'x?: "a",'),
        "const null": ({"const": None}, "x?: null,"),
        "const beside a type": ({"type": "string", "const": "a", "default": "a"}, 'x?: "a", // default: a'),
        "const that is not one": ({"type": "string", "const": None}, "x?: string,"),
        "const object": ({"const": {"a": [1, "b"]}}, 'x?: {"a":[1,"b"]},'),
        "enum": ({"type": "string", "enum": ["a", "b"], "default": "a"}, 'x?: "a" | "b", // default: a'),
        "enum without a type": ({"enum": ["a", 1, None, True, 1.5]}, 'x?: "a" | 1 | null | true | 1.5,'),
        "enum of integers": ({"type": "integer", "enum": [1, 2], "default": 1}, "x?: 1 | 2, // default: 1"),
        "enum and null": ({"type": ["string", "null"], "enum": ["a", None]}, 'x?: "a" | null,'),
        "nullable enum": ({"type": "string", "nullable": True, "enum": ["null", "b"]}, 'x?: "null" | "b" | null,'),
        "enum of another type": ({"type": "integer", "enum": ["1", "2"]}, 'x?: "1" | "2",'),
        "enum with one of another type": ({"type": "string", "enum": ["a", 1]}, 'x?: "a",'),
        "booleans are no integers": ({"type": "integer", "enum": [1, True, 2.0]}, "x?: 1 | 2.0,"),
        "empty enum": ({"type": "string", "enum": []}, "x?: string,"),
        "quotes and lines": (
            {"enum": ['a"b', "c\nd"], "default": "c\nd"},
            'x?: "a\\"b" | "c\\nd", // default: "c\\nd"',
        ),
        "items": ({"type": "array", "items": {"enum": ["a", "b"]}}, 'x?: ("a" | "b")[],'),
    }
)
def test_literals(schema, text):
    assert members(an_object(x=schema)) == text


@check(
    {
        "null": ({"anyOf": [NUMBER, NULL], "default": None}, "x?: number | null, // default: null"),
        "null first": ({"anyOf": [NULL, STRING]}, "x?: string | null,"),
        "oneOf with null": ({"oneOf": [STRING, NULL]}, "x?: string | null,"),
        "of one": ({"anyOf": [STRING]}, "x?: string,"),
        "plain": ({"anyOf": [STRING, NUMBER, {"type": "number"}, NULL]}, "x?: string | number | null,"),
        "nested": ({"anyOf": [STRING, {"anyOf": [NUMBER, NULL]}]}, "x?: string | number | null,"),
        "null of what is bounded": (
            {"anyOf": [{**NUMBER, "minimum": 1, "description": "A count"}, NULL]},
            "// A count\nx?: number | null, // minimum: 1",
        ),
        "one bounded": ({"anyOf": [{**NUMBER, "minimum": 1}, STRING]}, "x?: number | string, // minimum: 1"),
        "several bounded": (
            {"anyOf": [{**NUMBER, "minimum": 1}, {**STRING, "pattern": "^a"}]},
            'x?:\n | number // minimum: 1\n | string // pattern: "^a"\n,',
        ),
        "one default": (
            {"anyOf": [{**NUMBER, "default": 1}, NULL], "default": None},
            "x?: number | null, // default: null",
        ),
        "nested and described": (
            {
                "anyOf": [
                    {"anyOf": [STRING, {**NUMBER, "description": "n"}], "description": "both"},
                    {"type": "boolean"},
                ]
            },
            "x?:\n | \n    | string\n    | number // n\n    // both\n | boolean\n,",
        ),
        "nested and not described": (
            {"anyOf": [{"anyOf": [STRING, {**NUMBER, "description": "n"}]}, {"type": "boolean"}]},
            "x?:\n | string\n | number // n\n | boolean\n,",
        ),
        "described": (
            {"oneOf": [{**STRING, "description": "a word\nor two"}, NUMBER], "description": "Both.", "default": 1},
            "// Both.\n// default: 1\nx?:\n | string // a word or two\n | number\n,",
        ),
        "choices": (
            {"oneOf": [{"const": "a", "description": "first"}, {"const": "b"}]},
            'x?:\n | "a" // first\n | "b"\n,',
        ),
        "of objects": (
            {"anyOf": [an_object(a=STRING), an_object(b=an_object(c=STRING))]},
            "x?:\n | {\n   a?: string,\n   }\n | {\n   b?: {\n       c?: string,\n       },\n   }\n,",
        ),
        "object or null": ({"anyOf": [an_object(a=STRING), NULL]}, "x?: {\n    a?: string,\n    } | null,"),
        "items": ({"type": "array", "items": {"oneOf": [STRING, NUMBER]}}, "x?: (string | number)[],"),
        "items on lines": (
            {"type": "array", "items": {"anyOf": [{**STRING, "description": "w"}, {**NUMBER, "description": "n"}]}},
            "x?: (\n     | string // w\n     | number // n\n    )[],",
        ),
        "a type for all variants": (
            {"type": "string", "anyOf": [{"format": "date"}, {"format": "time"}, {"enum": ["now"]}]},
            'x?:\n | string // format: date\n | string // format: time\n | "now"\n,',
        ),
        "constraints of an object": (
            {**an_object(a=STRING), "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
            'x?: {\n    a?: string,\n    }, // anyOf: [{"required":["a"]},{"required":["b"]}]',
        ),
        "beside properties": (
            {**an_object(a=STRING), "oneOf": [an_object(b=STRING), an_object(c=STRING)]},
            "x?: {\n    a?: string,\n    } & (\n     | {\n       b?: string,\n       }\n     | {\n       c?: string,\n"
            "       }),",
        ),
    }
)
def test_unions(schema, text):
    assert members(an_object(x=schema)) == text


@check(
    {
        "objects": (
            {
                "allOf": [
                    {**an_object(a=STRING), "required": ["a"]},
                    {"properties": {"b": NUMBER, "a": {"minLength": 2}}},
                ]
            },
            "x?: {\n    a: string, // minLength: 2\n    b?: number,\n    },",
        ),
        "and its own": (
            {"allOf": [an_object(a=STRING)], "properties": {"b": NUMBER}, "description": "Both."},
            "// Both.\nx?:     // Both.\n{\n    a?: string,\n    b?: number,\n    },",
        ),
        "scalars": (
            {"allOf": [STRING, {"minLength": 2}, {"maxLength": 3}]},
            "x?: string, // minLength: 2, maxLength: 3",
        ),
        "others": ({"allOf": [{"anyOf": [STRING, NUMBER]}, {"enum": ["a", 1]}]}, 'x?: (string | number) & ("a" | 1),'),
        "in an array": (
            {"items": {"allOf": [{"type": ["string", "null"]}, {"enum": ["a", 1]}]}},
            'x?: ((string | null) & ("a" | 1))[],',
        ),
        "narrower": ({"allOf": [{"type": "string"}, {"enum": ["a"]}, {"type": ["string", "null"]}]}, 'x?: "a",'),
        "array": ({"allOf": [{"type": "array"}, {"items": STRING}]}, "x?: string[],"),
        "described once": (
            {"allOf": [PLACE, {"anyOf": [STRING, NUMBER]}]},
            "x?:     // A place.\n{\n    street: string,\n    } & (string | number),",
        ),
        "of true": ({"allOf": [True, STRING]}, "x?: string,"),
        "of false": ({"allOf": [False]}, "x?: never,"),
    }
)
def test_intersections(schema, text):
    assert members(an_object(x=schema)) == text


@check(
    {
        "no items": ({"type": "array"}, "x?: Array<any>,"),
        "any items": ({"type": "array", "items": {}}, "x?: any[],"),
        "arrays": ({"type": "array", "items": {"type": "array", "items": STRING}}, "x?: string[][],"),
        "bounds of both": (
            {"type": "array", "items": {**NUMBER, "minimum": 0, "description": "An\nage"}, "minItems": 1},
            "x?: number[], // minItems: 1, items: An age, items.minimum: 0",
        ),
        "set": ({"type": "array", "items": STRING, "uniqueItems": True}, "x?: string[], // uniqueItems: true"),
        "tuple": (
            {
                "type": "array",
                "prefixItems": [{**NUMBER, "minimum": 0}, {**STRING, "description": "unit"}],
                "minItems": 2,
                "maxItems": 2,
            },
            "x?: [number, string], // [0].minimum: 0, [1]: unit",
        ),
        "short tuple": ({"prefixItems": [NUMBER, STRING], "minItems": 1}, "x?: [number, string], // minItems: 1"),
        "tuple and no more": ({"prefixItems": [NUMBER], "items": False}, "x?: [number],"),
        "tuple and more": (
            {"prefixItems": [NUMBER], "items": {"type": ["string", "null"]}},
            "x?: [number, ...(string | null)[]],",
        ),
        "tuple of old": ({"items": [NUMBER], "additionalItems": STRING}, "x?: [number, ...string[]],"),
        "tuple of objects": (
            {"prefixItems": [an_object(a=STRING), STRING]},
            "x?: [{\n    a?: string,\n    }, string],",
        ),
        "objects": ({"type": "array", "items": PLACE}, "x?:     // A place.\n{\n    street: string,\n    }[],"),
    }
)
def test_arrays(schema, text):
    assert members(an_object(x=schema)) == text


@check(
    {
        "empty": ({"type": "object"}, "x?: {\n    },"),
        "any values": ({"type": "object", "additionalProperties": True}, "x?: {\n    [key: string]: any,\n    },"),
        "no others": ({**an_object(a=STRING), "additionalProperties": False}, "x?: {\n    a?: string,\n    },"),
        "values": (
            {"additionalProperties": {**NUMBER, "minimum": 0, "description": "How many"}, "minProperties": 1},
            "x?: {\n    // How many\n    [key: string]: number, // minimum: 0\n    }, // minProperties: 1",
        ),
        "members and values": (
            {**an_object(a=STRING), "additionalProperties": {"anyOf": [STRING, NUMBER]}},
            "x?: {\n    a?: string,\n    [key: string]: string | number,\n    },",
        ),
        "patterns": (
            {"patternProperties": {"^x-": {**STRING, "maxLength": 9}}, "additionalProperties": False},
            'x?: {\n    [key: string]: string, // key.pattern: "^x-", maxLength: 9\n    },',
        ),
        "names": (
            {"propertyNames": {"pattern": "^[a-z]$"}, "additionalProperties": STRING},
            'x?: {\n    [key: string]: string, // key.pattern: "^[a-z]$"\n    },',
        ),
        "names of a set": (
            {"propertyNames": {"enum": ["a", "b"]}, "additionalProperties": NUMBER},
            'x?: {\n    [key in "a" | "b"]?: number,\n    },',
        ),
        "required and unknown": (
            {**an_object(a=STRING), "required": ["b", "a"]},
            "x?: {\n    a: string,\n    b: any,\n    },",
        ),
        "nested": (
            an_object(a=an_object(b={**STRING, "description": "two\nlines"})),
            "x?: {\n    a?: {\n        // two\n        // lines\n        b?: string,\n        },\n    },",
        ),
        "described": (
            {**an_object(a=STRING), "description": "An object."},
            "// An object.\nx?:     // An object.\n{\n    a?: string,\n    },",
        ),
    }
)
def test_objects(schema, text):
    assert members(an_object(x=schema)) == text
