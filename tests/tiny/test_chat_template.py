"""The chat template renders plain conversations as the harmony library does."""

import datetime

import pytest
from openai_harmony import (
    Author,
    Conversation,
    DeveloperContent,
    HarmonyEncodingName,
    Message,
    ReasoningEffort,
    Role,
    SystemContent,
    ToolDescription,
    load_harmony_encoding,
)
from transformers import AutoTokenizer

from vllm_gptoss.tiny.dialogues import TOOLS
from vllm_gptoss.tiny.tokenizer import write_tokenizer

HARMONY = load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)
DATE = "2025-08-05"

MANY_TYPES = {
    "name": "search",
    "description": "Searches.",
    "parameters": {
        "type": "object",
        "properties": {
            "query": {"type": "string", "description": "Words."},
            "unit": {"type": "string", "enum": ["c", "f"], "default": "c"},
            "days": {"type": "integer", "default": 3},
            "names": {"type": "array", "items": {"type": "string"}},
            "exact": {"type": "boolean"},
            "weight": {"type": "number"},
        },
        "required": ["query", "days"],
    },
}
NO_ARGUMENTS = {"name": "now", "description": "The time."}

ASK = [{"role": "user", "content": "Hi"}]
CALL = {"id": "a", "type": "function", "function": {"name": "search", "arguments": {"query": "x"}}}
CALLED = [*ASK, {"role": "assistant", "reasoning": "hm", "content": "Wait.", "tool_calls": [CALL]}]
RESULT = [*CALLED, {"role": "tool", "tool_call_id": "a", "content": "[1]"}]
ANSWERED = [*RESULT, {"role": "assistant", "reasoning": "so", "content": "Yes."}]
TWO_TURNS = [*ANSWERED, {"role": "user", "content": "Sure?"}]
INSTRUCTED = [{"role": "system", "content": "Be brief."}, *ASK]


def said(channel: str, text: str) -> Message:
    return Message.from_role_and_content(Role.ASSISTANT, text).with_channel(channel)


USER = Message.from_role_and_content(Role.USER, "Hi")
CALL_MESSAGE = said("commentary", '{"query": "x"}').with_recipient("functions.search")
HARMONY_RESULT = [
    USER,
    said("analysis", "hm"),
    said("commentary", "Wait."),
    CALL_MESSAGE.with_content_type("<|constrain|>json"),
    Message.from_author_and_content(Author.new(Role.TOOL, "functions.search"), "[1]")
    .with_channel("commentary")
    .with_recipient("assistant"),
]
HARMONY_ANSWERED = [*HARMONY_RESULT, said("analysis", "so"), said("final", "Yes.")]

CASES = {
    "user": (ASK, [], "medium", None, [USER]),
    "low effort": (ASK, [], "low", None, [USER]),
    "instructions": (INSTRUCTED, [], "medium", "Be brief.", [USER]),
    "tools": (ASK, [MANY_TYPES, NO_ARGUMENTS, *TOOLS], "high", None, [USER]),
    "instructions and tools": (INSTRUCTED, [MANY_TYPES], "medium", "Be brief.", [USER]),
    "result": (RESULT, [MANY_TYPES], "medium", None, HARMONY_RESULT),
    "second question": (
        TWO_TURNS,
        [MANY_TYPES],
        "medium",
        None,
        [*HARMONY_ANSWERED, Message.from_role_and_content(Role.USER, "Sure?")],
    ),
}


def harmony_text(instructions, tools, effort, messages) -> str:
    system = (
        SystemContent.new().with_conversation_start_date(DATE).with_reasoning_effort(ReasoningEffort[effort.upper()])
    )
    head = [Message.from_role_and_content(Role.SYSTEM, system)]
    if instructions or tools:
        developer = DeveloperContent.new()
        if instructions:
            developer = developer.with_instructions(instructions)
        if tools:
            descriptions = [ToolDescription(**tool) for tool in tools]
            developer = developer.with_function_tools(descriptions)
        head.append(Message.from_role_and_content(Role.DEVELOPER, developer))
    conversation = Conversation.from_messages([*head, *messages])
    return HARMONY.decode(HARMONY.render_conversation_for_completion(conversation, Role.ASSISTANT))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("wrapped", [False, True], ids=["bare tools", "wrapped tools"])
def test_renders_like_harmony(case, wrapped, tokenizer):
    messages, tools, effort, instructions, harmony_messages = case
    given = [{"type": "function", "function": tool} for tool in tools] if wrapped else tools
    text = tokenizer.apply_chat_template(
        messages,
        tools=given or None,
        reasoning_effort=effort,
        current_date=DATE,
        add_generation_prompt=True,
        tokenize=False,
    )
    assert text == harmony_text(instructions, tools, effort, harmony_messages)


def test_defaults_are_today_and_medium_effort(tokenizer):
    before = datetime.date.today()
    text = tokenizer.apply_chat_template(ASK, tokenize=False)
    assert text.endswith("<|start|>user<|message|>Hi<|end|>")
    assert "Reasoning: medium" in text
    assert f"Current date: {before}" in text or f"Current date: {datetime.date.today()}" in text
