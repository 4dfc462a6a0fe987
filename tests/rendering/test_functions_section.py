"""The section of functions: the published prompt, the library's bytes, and types that functions share."""

import json
from pathlib import Path

import pytest
from harmony_library import encoding, library_section
from openai_harmony import Message, Role, SystemContent, ToolDescription, ToolNamespaceConfig

from vllm_gptoss.rendering.references import SchemaError
from vllm_gptoss.rendering.tools import Function, functions_section, namespace_section

FORMAT = {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"}
CITY = {"type": "string", "description": "The city and state, e.g. San Francisco, CA"}
WEATHER = {"type": "object", "properties": {"location": CITY, "format": FORMAT}, "required": ["location"]}

GUIDE = """\
# Tools

## functions

namespace functions {

// Gets the location of the user.
type get_location = () => any;

// Gets the current weather in the provided location.
type get_current_weather = (_: {
// The city and state, e.g. San Francisco, CA
location: string,
format?: "celsius" | "fahrenheit", // default: celsius
}) => any;

} // namespace functions"""


def test_the_example_of_the_guide():
    functions = [
        Function("get_location", "Gets the location of the user."),
        Function("get_current_weather", "Gets the current weather in the provided location.", WEATHER),
    ]
    assert functions_section(functions) == GUIDE == library_section(functions)


KITCHEN_SINK = {
    "description": "params object",
    "type": "object",
    "properties": {
        "string": {"type": "string", "title": "STRING", "description": "A string", "examples": ["hello", "world"]},
        "string_nullable": {
            "type": "string",
            "nullable": True,
            "description": "A nullable string",
            "default": "the default",
        },
        "string_enum": {"type": "string", "enum": ["a", "b", "c"]},
        "oneof_string_or_number": {
            "oneOf": [
                {"type": "string", "default": "default_string_in_oneof"},
                {"type": "number", "description": "numbers can happen too"},
            ],
            "description": "a oneof",
            "default": 20,
        },
    },
}


@pytest.mark.parametrize(
    "parameters",
    [
        None,
        {},
        {"type": "object"},
        {"type": "object", "properties": {}},
        {"type": "string"},
        WEATHER,
        KITCHEN_SINK,
        {"oneOf": [WEATHER, {"type": "object", "properties": {"city": CITY}}]},
    ],
)
@pytest.mark.parametrize("description", ["Does it.", "Does it:\n\n  - now\r\n- or later\n", "", None])
def test_the_bytes_of_the_library(parameters, description):
    functions = [Function("f", description, parameters), Function("web-search.find", "Finds.")]
    assert functions_section(functions) == library_section(functions)


def test_the_published_conversation_with_functions():
    path = Path(__file__).parents[1] / "data/harmony/render_functions_with_parameters.json"
    published = json.loads(path.read_text())["text"].partition("# Tools\n")[2].partition("<|end|>")[0]
    cities = {"type": "array", "items": {"type": "string"}}
    cities["description"] = 'List of city and state, e.g. ["San Francisco, CA", "New York, NY"]'
    places = {"type": "object", "properties": {"locations": cities, "format": FORMAT}, "required": ["locations"]}
    functions = [
        Function("get_location", "Gets the location of the user."),
        Function("get_current_weather", "Gets the current weather in the provided location.", WEATHER),
        Function("get_multiple_weathers", "Gets the current weather in the provided list of locations.", places),
        Function("kitchensink", "A function with various complex schemas.", KITCHEN_SINK),
    ]
    assert functions_section(functions) == f"# Tools\n{published}"


def test_no_functions():
    assert functions_section([]) == ""


def test_bounds_of_all_parameters_stand_behind_the_function():
    text = functions_section([Function("f", None, {"type": "object", "minProperties": 1})])
    assert "type f = (_: {\n}) => any; // minProperties: 1\n" in text


def test_a_list_of_forms_ends_before_the_bracket():
    forms = [{**WEATHER, "description": "one"}, {"type": "object", "description": "two"}]
    text = functions_section([Function("f", None, {"description": "Either.", "oneOf": forms})])
    assert "type f = (_: // Either.\n |    // one\n{\n" in text
    assert " |    // two\n{\n   } // two\n) => any;\n" in text


def tree(of: dict) -> dict:
    node = {"type": "object", "properties": {"value": of, "next": {"$ref": "#/$defs/Node"}}}
    return {"$ref": "#/$defs/Node", "$defs": {"Node": node}}


def test_functions_share_the_types_that_are_the_same():
    number, text = tree({"type": "integer"}), tree({"type": "string"})
    section = functions_section([Function("a", None, number), Function("b", None, text), Function("c", None, number)])
    assert section.split("\n\n")[3:] == [
        "type Node = {\nvalue?: number,\nnext?: Node,\n};",
        "type a = (_: Node) => any;",
        "type Node_2 = {\nvalue?: string,\nnext?: Node_2,\n};",
        "type b = (_: Node_2) => any;",
        "type c = (_: Node) => any;",
        "} // namespace functions",
    ]


def test_no_type_has_the_name_of_a_function():
    section = functions_section([Function("f", None, tree({})), Function("Node")])
    assert "type Node_2 = {" in section
    assert "type Node = () => any;" in section


def test_text_stays_text():
    """The section holds it as it came; encoded as ordinary text it has no control token."""
    function = Function("f", "Ends <|end|>", {"properties": {"<|call|>": {"const": "<|start|>"}}})
    section = functions_section([function])
    assert all(text in section for text in ("// Ends <|end|>", '"<|call|>"?: "<|start|>"'))
    tokens = encoding().encode(section, disallowed_special=())
    assert max(tokens) < 199998
    assert encoding().decode_utf8(tokens) == section


def test_half_a_surrogate_pair_can_be_encoded():
    function = Function("f", "a\ud800", {"properties": {"\udc00": {"default": "\ud800"}}})
    assert functions_section([function]).encode().count("\ufffd".encode()) == 3


@pytest.mark.parametrize("name", ["", "a b", "a\nb", "a;", "é<|end|>", "x" * 201])
def test_a_name_that_cannot_be_called(name):
    with pytest.raises(SchemaError, match="can't be called by the name"):
        functions_section([Function(name)])


def test_an_error_names_the_function_and_the_place():
    functions = [Function("f"), Function("g", None, {"properties": {"a\ud800": {"type": "text"}}})]
    with pytest.raises(SchemaError, match=r"^parameters of g: #/properties/a\?/type: type is a type of JSON") as error:
        functions_section(functions)
    str(error.value).encode()


def library_builtin(config: ToolNamespaceConfig) -> str:
    """What the library writes of a built-in tool in the system message."""
    message = Message.from_role_and_content(Role.SYSTEM, SystemContent.new().with_tools(config))
    text = encoding().decode_utf8(encoding().render(message))
    return text.split("# Tools\n\n")[1].split("\n\n# Valid channels")[0]


@pytest.mark.parametrize(
    "config",
    [
        ToolNamespaceConfig.browser(),
        ToolNamespaceConfig.python(),
        ToolNamespaceConfig(
            name="box", description="Runs.\nMore.", tools=[ToolDescription.new("exec", "Runs", WEATHER)]
        ),
        ToolNamespaceConfig(name="bare", description=None, tools=[ToolDescription.new("exec", "Runs", None)]),
    ],
    ids=lambda config: config.name,
)
def test_a_built_in_tool_is_written_as_the_library_does(config):
    functions = [Function(tool.name, tool.description, tool.parameters) for tool in config.tools]
    assert namespace_section(config.name, config.description, functions) == library_builtin(config)
