"""Schemas as the libraries of clients make them, and what the model reads of them; stock vLLM prints `any` for most."""

import asyncio
import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Union

import openai
from mcp.server.mcpserver import MCPServer
from pydantic import BaseModel, Field

from vllm_gptoss.rendering.tools import Function, functions_section


def section(*functions: Function) -> str:
    """Without the lines that every section has."""
    text = functions_section(functions)
    return text.removeprefix("# Tools\n\n## functions\n\nnamespace functions {\n\n").removesuffix(
        "} // namespace functions"
    )


def golden(name: str) -> str:
    return (Path(__file__).parents[1] / f"data/schemas/{name}.txt").read_text()


class Color(StrEnum):
    """A colour."""

    red = "red"
    blue = "blue"


class Address(BaseModel):
    """A postal address.

    With its code.
    """

    street: str = Field(description="Street and number")
    code: Annotated[str, Field(pattern=r"^\d{5}$")]


class Cat(BaseModel):
    """A cat."""

    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str | None = None


class Node(BaseModel):
    """A tree."""

    value: int
    children: list["Node"] = []


class Order(BaseModel):
    count: int | None = Field(None, ge=1, le=10, description="How many\nof them")
    either: int | str
    color: Color = Color.red
    maybe_color: Color | None = None
    home: Address
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    stock: dict[str, int]
    prices: dict[Color, float]
    anything: dict[str, Any]
    pair: tuple[int, str]
    row: tuple[int, ...]
    tags: set[str]
    when: datetime.datetime
    tree: Node
    literal: Literal[1, "a", None]
    whatever: Any
    ages: list[Annotated[int, Field(ge=0)]] = Field(min_length=1, examples=[[1], [2]])
    grid: list[list[int | None]]
    size: Annotated[float, Field(gt=0, multiple_of=0.5)] = 1.5


def test_pydantic():
    assert section(Function("order", "Orders.", Order.model_json_schema())) == golden("pydantic")


def test_a_recursive_model_is_named():
    assert section(Function("plant", None, Node.model_json_schema())) == (
        "// A tree.\ntype Node = {\nvalue: number,\nchildren?: Node[], // default: []\n};\n\n"
        "type plant = (_: Node) => any;\n\n"
    )


def test_models_that_are_used_twice_are_named():
    class Move(BaseModel):
        start: Address
        end: Address | None = None

    text = section(Function("move", None, Move.model_json_schema()))
    assert text.endswith("type move = (_: {\nstart: Address,\nend?: Address | null, // default: null\n}) => any;\n\n")
    assert text.count("street") == 1


class Unit(StrEnum):
    C = "celsius"
    F = "fahrenheit"


class Filter(BaseModel):
    field: str
    values: list[str | int] = []


def search(
    query: str,
    limit: Annotated[int, Field(ge=1, le=50, description="How many")] = 10,
    unit: Unit = Unit.C,
    filters: list[Filter] | None = None,
    options: dict[str, Any] | None = None,
) -> str:
    """Searches.

    All of it.
    """


def ping() -> str:
    """Pings."""


def test_mcp():
    """`MCPServer` was `FastMCP` up to version 1."""
    server = MCPServer("tools")
    for function in (search, ping):
        server.tool()(function)
    tools = asyncio.run(server.list_tools())
    assert section(*(Function(tool.name, tool.description, tool.input_schema) for tool in tools)) == golden("mcp")


class Operator(StrEnum):
    equal = "="
    greater = ">"


class Condition(BaseModel):
    column: str
    operator: Operator
    value: Union[str, int, "Condition"]


class Query(BaseModel):
    """Queries orders."""

    table: Literal["orders", "users"]
    conditions: list[Condition]
    limit: Optional[int] = None  # noqa: UP045 (as the documentation of the SDK writes it)


OPENAI = """\
type Condition = {
column: string,
operator: "=" | ">",
value: string | number | Condition,
};

// Queries orders.
type Query = (_: // Queries orders.
{
table: "orders" | "users",
conditions: Condition[],
limit: number | null,
}) => any;

"""


def test_the_openai_sdk():
    function = openai.pydantic_function_tool(Query)["function"]
    assert section(Function(function["name"], function["description"], function["parameters"])) == OPENAI


ZOD = {
    "type": "object",
    "properties": {
        "path": {"type": "string", "minLength": 1},
        "edits": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "from": {"type": "string"},
                    "range": {
                        "type": "array",
                        "items": [{"type": "number"}, {"type": "number"}],
                        "minItems": 2,
                        "maxItems": 2,
                    },
                },
                "required": ["from"],
                "additionalProperties": False,
            },
        },
        "undo": {"$ref": "#/properties/edits/items"},
        "mode": {"anyOf": [{"type": "string", "const": "dry"}, {"type": "string", "const": "wet"}]},
    },
    "required": ["path", "edits"],
    "additionalProperties": False,
    "$schema": "http://json-schema.org/draft-07/schema#",
}
"""The form of zod-to-json-schema, which MCP servers in TypeScript use: draft 7, with pointers into properties."""


def test_zod():
    assert section(Function("edit", "Edits.", ZOD)) == (
        "type Items = {\nfrom: string,\nrange?: [number, number],\n};\n\n// Edits.\ntype edit = (_: {\n"
        'path: string, // minLength: 1\nedits: Items[],\nundo?: Items,\nmode?: "dry" | "wet",\n}) => any;\n\n'
    )
