"""What holds for every schema; and where the library keeps the meaning of one, its bytes.

SCHEMA_EXAMPLES is the number of examples of each test. Without it they are the same each time.
"""

import json
import os
import re

from harmony_library import library_section
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_gptoss.rendering.references import SchemaError
from vllm_gptoss.rendering.schema import typescript
from vllm_gptoss.rendering.tools import Function, functions_section
from vllm_gptoss.rendering.typescript import name_of

EXAMPLES = int(os.environ.get("SCHEMA_EXAMPLES", "300"))
SETTINGS = settings(
    max_examples=EXAMPLES, derandomize="SCHEMA_EXAMPLES" not in os.environ, deadline=None, database=None
)

texts = st.text(st.sampled_from("ab /*\"'\\\n\r\u2028<|>{}[]()é"), max_size=8)
numbers = st.integers(-3, 3) | st.sampled_from([0.5, -1.0, 1e20, 1e-4, -1.5e-5, 2.5e-7, 1e-10])
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=4,
)
NAMES = ("type", "object", "a-b", "x", "két", "", 'q"', "n\nl", "{", "//", "<|end|>")
names = st.sampled_from(NAMES)
references = st.sampled_from(
    ["#", "#/$defs/A", "#/$defs/B", "#/definitions/x~1y", "#/$defs/none", "else", "#/properties/x"]
)
types = st.sampled_from(["object", "array", "string", "number", "integer", "boolean", "null"])


def optional(**keywords) -> st.SearchStrategy[dict]:
    return st.fixed_dictionaries({}, optional=keywords)


def around(schemas: st.SearchStrategy) -> st.SearchStrategy[dict]:
    some, properties = st.lists(schemas, min_size=1, max_size=3), st.dictionaries(names, schemas, max_size=3)
    keywords = {
        **{"type": types | st.lists(types, min_size=1, max_size=3), "$ref": references},
        **{"properties": properties, "patternProperties": properties, "required": st.lists(names, max_size=3)},
        **dict.fromkeys(("additionalProperties", "propertyNames", "additionalItems", "not", "contains"), schemas),
        **dict.fromkeys(("anyOf", "oneOf", "allOf", "prefixItems"), some),
        **{"items": schemas | some, "enum": st.lists(json_values, max_size=3), "const": json_values},
        **dict.fromkeys(("title", "description", "format", "pattern"), texts),
        **dict.fromkeys(("minimum", "minItems", "maxItems", "minLength"), numbers),
        **{"default": json_values, "examples": st.lists(json_values, max_size=2), "nullable": st.booleans()},
    }
    few = st.lists(st.sampled_from(sorted(keywords)), max_size=4, unique=True)
    return few.flatmap(lambda chosen: st.fixed_dictionaries({keyword: keywords[keyword] for keyword in chosen}))


schemas = st.recursive(st.booleans() | around(st.booleans()), around, max_leaves=12)
roots = st.builds(
    lambda root, a, b, c: {**root, "$defs": {"A": a, "B": b}, "definitions": {"x/y": c}},
    around(schemas),
    schemas,
    schemas,
    schemas,
)

OUTSIDE_CODE = re.compile(r'"(?:\\.|[^"\\\n])*"|//[^\n]*')
PAIRS = {")": "(", "]": "[", "}": "{"}


def code_of(text: str) -> str:
    """Without literals and comments."""
    return OUTSIDE_CODE.sub("", text)


def is_balanced(code: str) -> bool:
    is_open = []
    for letter in code:
        if letter in PAIRS.values():
            is_open.append(letter)
        elif letter in PAIRS and (not is_open or is_open.pop() != PAIRS[letter]):
            return False
    return not is_open


@SETTINGS
@given(roots)
def test_any_schema_is_written_or_refused(root):
    """All of it: comments end with their lines, literals are closed, brackets match, words are those of types."""
    before = json.dumps(root)
    try:
        section = functions_section([Function("f", None, root), Function("g", None, root)])
    except SchemaError:
        return
    assert json.dumps(root) == before
    code = code_of(section)
    assert is_balanced(code)
    assert not set("\"'\\\r\u2028*") & set(code)
    assert section == functions_section([Function("f", None, root), Function("g", None, root)])


def objects_of(schemas: st.SearchStrategy) -> st.SearchStrategy[dict]:
    properties = st.dictionaries(names, schemas, min_size=1, max_size=3)
    keywords = {"required": st.lists(names, max_size=2), "description": texts, "additionalProperties": schemas}
    return st.fixed_dictionaries({"type": st.just("object"), "properties": properties}, optional=keywords)


leaves = st.one_of(
    optional(type=types, description=texts, default=json_values, pattern=texts),
    st.sampled_from(["#", "#/$defs/A"]).map(lambda reference: {"$ref": reference}),
)
members = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"type": st.just("array"), "items": inner}),
        *(
            st.lists(inner, min_size=1, max_size=3).map(lambda schemas, keyword=keyword: {keyword: schemas})
            for keyword in ("anyOf", "oneOf", "prefixItems")
        ),
        st.lists(objects_of(inner), min_size=1, max_size=2).map(lambda schemas: {"allOf": schemas}),
        objects_of(inner),
    ),
    max_leaves=6,
)
objects = objects_of(members)


def properties_of(schema) -> set[str]:
    """Names of all members, and those that are only required."""
    if isinstance(schema, list):
        return set().union(*map(properties_of, schema))
    if not isinstance(schema, dict):
        return set()
    found = {*schema.get("properties", ()), *schema.get("required", ())}
    below = [schema.get(key) for key in ("items", "prefixItems", "anyOf", "oneOf", "allOf", "additionalProperties")]
    return found.union(*map(properties_of, [*schema.get("properties", {}).values(), *below]))


@SETTINGS
@given(objects, objects)
def test_every_property_is_there(root, defined):
    root = {**root, "$defs": {"A": defined}}
    written = typescript(root)
    text = "".join(written.types.values()) + written.text
    is_used = "#/$defs/A" in json.dumps({**root, "$defs": None})
    for name in properties_of(root) | (properties_of(defined) if is_used else set()):
        assert re.search(rf"^ *{re.escape(name_of(name))}\??:", text, flags=re.MULTILINE), name
    assert not re.search(r"\bany & |& any\b(?!\[)", code_of(text))


# The part that the library says as well: no union under [], no reference, no bound, text of one line without quotes

line = st.text(st.sampled_from("abc ,.é{*/}|"), min_size=1, max_size=8)
identifiers = st.text(st.sampled_from("abcxyz_"), min_size=1, max_size=4)
integers = st.integers(-(2**63), 2**64 - 1)
said = {
    "description": line,
    "title": line.map(lambda text: f"{text}!"),
    "examples": st.lists(line, max_size=2, unique=True),
}


def typed(name: str, default: st.SearchStrategy, **keywords) -> st.SearchStrategy[dict]:
    return st.fixed_dictionaries({"type": st.just(name)}, optional={"default": default | st.none(), **keywords})


choices = st.lists(identifiers, min_size=1, max_size=3, unique=True)
enums = choices.flatmap(
    lambda values: st.fixed_dictionaries(
        {"type": st.just("string"), "enum": st.just(values)}, optional={"default": st.sampled_from(values), **said}
    )
)
scalars = st.one_of(
    *(
        typed(name, default, nullable=st.booleans(), **said)
        for name, default in (("string", line), ("number", numbers))
    ),
    typed("integer", integers, **said),
    typed("boolean", st.booleans(), **said),
    typed("array", st.lists(line, max_size=2), **said),
    st.lists(st.sampled_from(["string", "number", "boolean", "object", "array", "null"]), min_size=1, unique=True).map(
        lambda chosen: {"type": chosen}
    ),
    enums,
    optional(**said),
)
PLAIN = [{}, *({"type": name} for name in ("string", "number", "integer", "boolean", "array"))]
plain = st.sampled_from([*PLAIN, *({"type": "array", "items": schema} for schema in PLAIN)])


def described_object(members: dict[str, tuple[dict, bool]], description: str | None) -> dict:
    """`members`: what they are, and whether they are required."""
    properties = {name: schema for name, (schema, _) in members.items()}
    required = [name for name, (_, is_required) in members.items() if is_required]
    described = {} if description is None else {"description": description}
    return {"type": "object", **described, "properties": properties, "required": required}


def library_objects(schemas: st.SearchStrategy) -> st.SearchStrategy[dict]:
    members = st.dictionaries(identifiers, st.tuples(schemas, st.booleans()), max_size=3)
    return st.builds(described_object, members, st.none() | line)


VARIANTS = [{"type": "string", "default": "a b"}, {"type": "number"}, {"type": "boolean", "description": "or not"}]
unions = st.fixed_dictionaries(
    {"oneOf": st.permutations(VARIANTS[:2]).map(lambda variants: [*variants, VARIANTS[2]])},
    optional={"description": line, "default": integers},
)
library_schemas = library_objects(
    st.recursive(
        scalars | unions,
        lambda inner: st.one_of(
            library_objects(inner),
            st.fixed_dictionaries({"type": st.just("array"), "items": plain | library_objects(inner)}),
            st.fixed_dictionaries({"oneOf": library_objects(inner).map(lambda schema: [schema])}),
        ),
        max_leaves=8,
    )
)


@SETTINGS
@given(library_schemas)
def test_where_the_library_keeps_the_meaning_the_text_is_the_librarys(schema):
    functions = [Function("f", "Does.", schema)]
    assert functions_section(functions) == library_section(functions)
