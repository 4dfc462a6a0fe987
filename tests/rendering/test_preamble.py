"""System and developer messages: the library's text where its types can say it, the guide's where they can't."""

import pytest
from openai_harmony import (
    Conversation,
    DeveloperContent,
    Message,
    ReasoningEffort,
    Role,
    SystemContent,
    ToolDescription,
)

from vllm_gptoss.rendering.preamble import (
    EFFORTS,
    ResponseFormat,
    UnknownEffortError,
    developer_text,
    system_text,
)
from vllm_gptoss.rendering.prompt import encoding

FUNCTION = ToolDescription.new("f", "Does it.")


def library(*contents) -> list[str]:
    """Texts of a system message, and of a developer message if there is one."""
    roles = (Role.SYSTEM, Role.DEVELOPER)
    messages = [Message.from_role_and_content(role, content) for role, content in zip(roles, contents, strict=False)]
    text = encoding().decode_utf8(encoding().render_conversation(Conversation.from_messages(messages)))
    return [part.split("<|message|>")[1] for part in text.split("<|end|>")[:-1]]


@pytest.mark.parametrize("has_functions", [False, True])
@pytest.mark.parametrize("effort", list(ReasoningEffort))
def test_the_system_message_is_the_librarys(effort, has_functions):
    system = SystemContent.new().with_reasoning_effort(effort).with_conversation_start_date("2026-01-02")
    developer = DeveloperContent.new().with_instructions("Be kind.")
    if has_functions:
        developer = developer.with_function_tools([FUNCTION])
    expected, _ = library(system, developer)
    assert system_text("2026-01-02", effort.value.lower(), has_functions=has_functions) == expected


def test_without_a_date_and_with_another_identity():
    (expected,) = library(SystemContent.new().with_model_identity("You are Ada."))
    assert system_text(None, identity="You are Ada.") == expected


def test_builtin_tools_stand_in_the_system_message():
    system = SystemContent.new().with_conversation_start_date("2026-01-02").with_python_tool()
    (expected,) = library(system)
    section = expected[expected.index("## python") : expected.index("\n\n# Valid")]
    assert system_text("2026-01-02", builtin_tools=[section]) == expected


def test_the_developer_message_is_the_librarys():
    _, expected = library(
        SystemContent.new(), DeveloperContent.new().with_instructions("Be kind.").with_function_tools([FUNCTION])
    )
    tools = expected[expected.index("# Tools") :]
    assert developer_text("Be kind.", tools) == expected
    assert developer_text(tools=tools) == tools


def test_nothing_to_say():
    assert developer_text() is None
    assert developer_text("", None) is None


def test_response_formats_as_in_the_guide():
    schema = {"properties": {"items": {"type": "array", "description": "größe"}}, "type": "object"}
    text = developer_text("Shop.", response_format=ResponseFormat("shopping_list", schema, "What to buy.\nAll of it."))
    assert text == (
        "# Instructions\n\nShop.\n\n# Response Formats\n\n## shopping_list\n\n// What to buy.\n// All of it.\n"
        '{"properties":{"items":{"type":"array","description":"größe"}},"type":"object"}'
    )


@pytest.mark.parametrize(("asked", "trained"), EFFORTS.items())
def test_efforts_of_clients(asked, trained):
    assert f"Reasoning: {trained}\n" in system_text(None, asked)


def test_an_unknown_effort_is_named():
    with pytest.raises(UnknownEffortError, match="'huge' is none of none, minimal, low, medium, high, xhigh, max"):
        system_text(None, "huge")
