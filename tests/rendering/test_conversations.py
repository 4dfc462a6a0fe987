"""One conversation gives one prompt, on whichever API it comes."""

import pytest

from vllm_gptoss.rendering.chat import MessageError, chat_messages
from vllm_gptoss.rendering.prompt import encoding, render_prompt
from vllm_gptoss.rendering.responses import responses_messages

ARGUMENTS = '{"city":"Paris"}'
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}}
CALLED = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": ARGUMENTS}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "sunny"}
RESULTED = {"type": "function_call_output", "call_id": "c1", "output": "sunny"}


def said(text: str, **more) -> dict:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}], **more}


def thought(text: str) -> dict:
    return {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": text}]}


PAIRS = {
    "question": ([{"role": "user", "content": "Hi"}], [{"role": "user", "content": "Hi"}]),
    "parts": (
        [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
        [{"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]}],
    ),
    "instructions": (
        [
            {"role": "system", "content": "Be"},
            {"role": "developer", "content": "kind"},
            {"role": "user", "content": "Hi"},
        ],
        [
            {"role": "system", "content": "Be"},
            {"role": "developer", "content": "kind"},
            {"role": "user", "content": "Hi"},
        ],
    ),
    "instructions on the way": (
        [{"role": "user", "content": "Hi"}, {"role": "developer", "content": "Be brief"}],
        [{"role": "user", "content": "Hi"}, {"role": "developer", "content": "Be brief"}],
    ),
    "answer": (
        [{"role": "assistant", "reasoning": "Hm", "content": "Yes"}, {"role": "user", "content": "Why?"}],
        [thought("Hm"), said("Yes"), {"role": "user", "content": "Why?"}],
    ),
    "empty first part": (
        [{"role": "assistant", "content": [{"type": "text", "text": ""}, {"type": "text", "text": "Yes"}]}],
        [said("Yes")],
    ),
    "preamble and call": (
        [{"role": "assistant", "reasoning": "Hm", "content": "I look.", "tool_calls": [CALL]}, RESULT],
        [thought("Hm"), said("I look."), CALLED, RESULTED],
    ),
    "two calls": (
        [
            {"role": "assistant", "tool_calls": [CALL, {**CALL, "id": "c2"}]},
            RESULT,
            {**RESULT, "tool_call_id": "c2"},
            {"role": "assistant", "content": "Sunny."},
        ],
        [CALLED, {**CALLED, "call_id": "c2"}, RESULTED, {**RESULTED, "call_id": "c2"}, said("Sunny.")],
    ),
    "reasoning under its old name": (
        [{"role": "assistant", "reasoning_content": "Hm", "tool_calls": [CALL]}],
        [thought("Hm"), CALLED],
    ),
}


@pytest.mark.parametrize(("chat", "items"), PAIRS.values(), ids=PAIRS)
def test_both_apis_give_one_prompt(chat, items):
    instructions, messages = chat_messages(chat)
    conversation = responses_messages(items)
    assert instructions == conversation.instructions
    assert render_prompt(messages) == render_prompt(conversation.messages)
    assert not conversation.left_out


def text_of(items) -> str:
    return encoding().decode_utf8(render_prompt(responses_messages(items).messages))


def test_order_of_a_turn():
    text = text_of(PAIRS["preamble and call"][1])
    assert (
        text.index("analysis<|message|>Hm")
        < text.index("commentary<|message|>I look.")
        < text.index("to=functions.weather")
    )
    assert "<|start|>functions.weather to=assistant<|channel|>commentary<|message|>sunny<|end|>" in text


ITEMS = {
    "custom tool": (
        [
            {"type": "custom_tool_call", "call_id": "c", "name": "shout", "input": "Hey"},
            {"type": "custom_tool_call_output", "call_id": "c", "output": "HEY"},
        ],
        ['to=functions.shout <|constrain|>json<|message|>{"input":"Hey"}<|call|>', "functions.shout to=assistant"],
    ),
    "local shell": (
        [
            {"type": "local_shell_call", "call_id": "c", "action": {"type": "exec", "command": ["ls"]}},
            {"type": "local_shell_call_output", "call_id": "c", "output": "a b"},
        ],
        [
            'to=functions.local_shell <|constrain|>json<|message|>{"command":["ls"]}<|call|>',
            ">a b<|end|>",
        ],
    ),
    "patch": (
        [{"type": "apply_patch_call", "call_id": "c", "operation": {"type": "delete_file", "path": "x"}}],
        ["to=functions.apply_patch"],
    ),
    "parts of an output": (
        [CALLED, {**RESULTED, "output": [{"type": "input_text", "text": "sun"}, {"type": "input_text", "text": "ny"}]}],
        ["<|message|>sunny<|end|>"],
    ),
    "object as an output": ([CALLED, {**RESULTED, "output": {"sky": "clear"}}], ['<|message|>{"sky":"clear"}<|end|>']),
    "a server's call": (
        [{"type": "mcp_call", "server_label": "repo", "name": "list", "arguments": "{}", "output": "a"}],
        ["to=repo.list <|constrain|>json<|message|>{}<|call|>", "<|start|>repo.list to=assistant"],
    ),
    "a server's python": (
        [{"type": "code_interpreter_call", "code": "1+1", "outputs": [{"type": "logs", "logs": "2"}]}],
        [
            "analysis to=python code<|message|>1+1<|call|>",
            "<|start|>python to=assistant<|channel|>analysis<|message|>2",
        ],
    ),
    "a preamble that says so": ([said("I look.", phase="commentary")], ["commentary<|message|>I look."]),
    "an answer in front of a question": (
        [said("Yes"), {"role": "user", "content": "?"}, CALLED],
        ["final<|message|>Yes"],
    ),
    "reasoning without text": (
        [{"type": "reasoning", "summary": [], "encrypted_content": "x"}, said("Yes")],
        ["final"],
    ),
}


@pytest.mark.parametrize(("items", "parts"), ITEMS.values(), ids=ITEMS)
def test_items_of_clients(items, parts):
    text = text_of(items)
    assert [part for part in parts if part not in text] == []


def test_items_that_say_nothing_are_reported_once():
    items = [
        {"type": "web_search_call", "id": "w"},
        {"type": "web_search_call", "id": "v"},
        {"role": "user", "content": "Hi"},
    ]
    conversation = responses_messages(items)
    assert conversation.left_out == ["web_search_call"]
    assert len(conversation.messages) == 1


def test_a_result_of_a_call_from_before():
    assert "functions.weather to=assistant" in encoding().decode_utf8(
        render_prompt(responses_messages([RESULTED], {"c1": "weather"}).messages)
    )


WRONG = {
    "image": ([{"role": "user", "content": [{"type": "image_url"}]}], "messages.0. has a part of type 'image_url'"),
    "role": ([{"role": "critic", "content": "No"}], "messages.0. has the role 'critic'"),
    "unknown call": ([RESULT], "messages.0. answers the call 'c1', but no call comes before it"),
    "another call": (
        [{"role": "assistant", "tool_calls": [CALL]}, {**RESULT, "tool_call_id": "c9"}],
        "messages.1. answers the call 'c9', but the calls before it are 'c1'",
    ),
}


@pytest.mark.parametrize(("messages", "said"), WRONG.values(), ids=WRONG)
def test_what_cannot_stand_in_a_prompt_is_named(messages, said):
    with pytest.raises(MessageError, match=said):
        chat_messages(messages)


def test_a_result_of_no_call_is_named():
    with pytest.raises(MessageError, match=r"input.0. answers the call 'c1', which is not among"):
        responses_messages([RESULTED])
