"""A conversation that is too long loses its oldest steps, whole."""

import pytest
from openai_harmony import Message, Role

from vllm_gptoss.rendering.chat import chat_messages
from vllm_gptoss.rendering.fit import fitting
from vllm_gptoss.rendering.prompt import Ending, RenderError, encoding, render_prompt


def call(number: int) -> list[dict]:
    called = {"id": f"c{number}", "function": {"name": "f", "arguments": f'{{"n":{number}}}'}}
    said = {"role": "assistant", "reasoning": f"Thought {number}.", "tool_calls": [called, {**called, "id": "other"}]}
    results = [
        {"role": "tool", "tool_call_id": name, "content": f"Result {number}."} for name in (f"c{number}", "other")
    ]
    return [said, *results]


MESSAGES = [
    {"role": "user", "content": "First question."},
    {"role": "assistant", "content": "First answer."},
    {"role": "user", "content": "Last question."},
    *call(1),
    *call(2),
    *call(3),
]


def text(limit: int) -> str:
    return encoding().decode_utf8(fitting(chat_messages(MESSAGES)[1], limit))


def test_steps_go_in_order_and_whole():
    whole = chat_messages(MESSAGES)[1]
    length = len(render_prompt(whole))
    order = ["First question.", "First answer.", "Thought 1.", "Thought 2."]
    seen = []
    for limit in range(length, 150, -1):
        said = text(limit)
        assert len(fitting(whole, limit)) <= limit
        left = [each for each in order if each in said]
        assert left == order[len(order) - len(left) :]
        assert "Last question." in said
        assert "Result 3." in said
        for number in (1, 2, 3):
            assert (
                said.count(f'{{"n":{number}}}') == said.count(f"Result {number}.") == 2 * (f"Thought {number}." in said)
            )
        seen.append(len(left))
    assert sorted(set(seen)) == [0, 1, 2, 3, 4]


def test_nothing_goes_where_all_fits():
    whole = chat_messages(MESSAGES)[1]
    ids = render_prompt(whole)
    assert fitting(whole, len(ids)) == ids
    assert fitting(whole, len(ids), Ending.NOTHING) == render_prompt(whole, Ending.NOTHING)


def test_the_preamble_stays():
    preamble = Message.from_role_and_content(Role.SYSTEM, "x")
    ids = fitting([preamble, *chat_messages(MESSAGES)[1]], 170)
    assert encoding().decode_utf8(ids).startswith("<|start|>system<|message|>x<|end|><|start|>user<|message|>Last")


def test_what_stays_may_be_too_long():
    with pytest.raises(RenderError, match=r"can't be truncated to 20 tokens: .* take [0-9]+"):
        text(20)
