"""Tables of schemas and what the model reads of them."""

import pytest

from vllm_gptoss.rendering.schema import typescript

STRING, NUMBER, NULL = {"type": "string"}, {"type": "integer"}, {"type": "null"}
PLACE = {"type": "object", "description": "A place.", "properties": {"street": STRING}, "required": ["street"]}


def an_object(**properties) -> dict:
    return {"type": "object", "properties": properties}


def members(schema: dict) -> str:
    """The lines between the outer braces."""
    written = typescript(schema)
    assert written.types == {}
    return written.text.removeprefix("{\n").removesuffix("}").rstrip("\n")


def check(rows: dict):
    """Rows: what `x` is, and its lines."""
    return pytest.mark.parametrize(("schema", "text"), rows.values(), ids=rows)
