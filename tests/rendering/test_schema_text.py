"""What is text in a schema stays text: comments, examples, literals and names."""

import pytest
from schema_rows import STRING, an_object, check, members


@check(
    {
        "bounds": (
            {"type": "number", "default": 0.5, "multipleOf": 0.1, "exclusiveMaximum": 1, "minimum": 0},
            "x?: number, // default: 0.5, minimum: 0, exclusiveMaximum: 1, multipleOf: 0.1",
        ),
        "text": (
            {**STRING, "pattern": "^\\d+$", "format": "date-time", "maxLength": 5},
            'x?: string, // format: date-time, pattern: "^\\\\d+$", maxLength: 5',
        ),
        "no counterpart": ({**STRING, "not": {"const": "a"}}, 'x?: string, // not: {"const":"a"}'),
        "default of lines": ({**STRING, "default": 'a\n"b"'}, 'x?: string, // default: "a\\n\\"b\\""'),
        "default object": (
            {**an_object(), "default": {"b": [1.0, "é", None], "a": 1}},
            'x?: {\n    }, // default: {"b":[1.0,"é",null],"a":1}',
        ),
        "small numbers": (
            {"default": ["1e-05", 1e-5, -2.5e-7, 1e-10]},
            'x?: any, // default: ["1e-05",0.00001,-2.5e-7,1e-10]',
        ),
        "examples": ({"examples": ["a", 1]}, '// Examples:\n// - "a"\n// - 1\nx?: any,'),
        "examples of items": ({"items": {**STRING, "examples": ["a"]}}, 'x?: string[], // items.example: "a"'),
        "title": ({**STRING, "title": "Age in years"}, "// Age in years\n//\nx?: string,"),
        "title that is the name": ({**STRING, "title": "X"}, "x?: string,"),
        "title like the name": ({**STRING, "title": "x"}, "// x\n//\nx?: string,"),
        "lines of all kinds": (
            {**STRING, "description": "a\r\nb\rc\u2028d\n\ne\n"},
            "// a\n// b\n// c\n// d\n// \n// e\nx?: string,",
        ),
        "text like code": (
            {**STRING, "description": "*/ }) => any; <|end|>", "default": "<|end|> */"},
            '// */ }) => any; <|end|>\nx?: string, // default: "<|end|> */"',
        ),
        "empty description": ({**STRING, "description": ""}, "x?: string,"),
    }
)
def test_comments(schema, text):
    assert members(an_object(x=schema)) == text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *((name, name) for name in ("a", "größe", "$ref", "_1", "class")),
        ("we-ird", '"we-ird"'),
        ("a b", '"a b"'),
        ('q"', '"q\\""'),
        ("two\nlines", '"two\\nlines"'),
        ("\u2028", '"\\u2028"'),
        ("", '""'),
        ("1a", '"1a"'),
    ],
)
def test_names(name, text):
    assert members(an_object(**{name: STRING})) == f"{text}?: string,"
