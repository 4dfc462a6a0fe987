"""The bodies of requests as clients send them, checked against the models of the official client."""

import json

import pytest
from openai.types.chat import completion_create_params
from openai.types.responses import response_create_params
from pydantic import TypeAdapter

from vllm_gptoss.tiny.dialogues import DIALOGUES, PLAIN, TOOLS, WEATHER
from vllm_gptoss.tiny.requests import Talk, chat_request, responses_request


@pytest.mark.parametrize("dialogue", DIALOGUES, ids=lambda dialogue: dialogue.name)
def test_each_turn_is_a_valid_request(dialogue):
    for done in range(len(dialogue.turns)):
        talk = Talk.of(dialogue, done)
        chat, responses = chat_request(talk), responses_request(talk)
        TypeAdapter(completion_create_params.CompletionCreateParamsNonStreaming).validate_python({"model": "m", **chat})
        TypeAdapter(response_create_params.ResponseCreateParamsNonStreaming).validate_python(
            {"model": "m", **responses}
        )
        assert json.dumps([chat, responses])


@pytest.mark.parametrize("dialogue", DIALOGUES, ids=lambda dialogue: dialogue.name)
def test_dialogues_are_well_formed(dialogue):
    *calling, answering = dialogue.turns
    offered = {tool["name"]: tool for tool in dialogue.tools}
    assert answering.answer
    assert answering.call is None
    for turn in calling:
        assert turn.answer is None
        required = offered[turn.call.name]["parameters"]["required"]
        assert sorted(json.loads(turn.call.arguments)) == sorted(required)
        assert turn.call.result
    assert all(turn.reasoning for turn in dialogue.turns)


def test_results_follow_their_calls():
    talk = Talk((PLAIN[0], WEATHER[0]), done=1, instructions="Be brief.", tools=TOOLS, effort="low")
    chat = chat_request(talk)
    assert [message["role"] for message in chat["messages"]] == [
        *("system", "user", "assistant", "user", "assistant", "tool")
    ]
    assert chat["messages"][-1]["tool_call_id"] == chat["messages"][-2]["tool_calls"][0]["id"]
    assert chat["messages"][-2]["reasoning"] == WEATHER[0].turns[0].reasoning
    assert chat["reasoning_effort"] == "low"
    responses = responses_request(talk)
    kinds = [item.get("type", item.get("role")) for item in responses["input"]]
    assert kinds == [
        *("user", "reasoning", "message", "user", "reasoning", "message"),
        *("function_call", "function_call_output"),
    ]
    assert responses["input"][-1]["call_id"] == responses["input"][-2]["call_id"]
    assert (responses["instructions"], responses["reasoning"]) == ("Be brief.", {"effort": "low"})
    assert talk.next_turn is WEATHER[0].turns[1]


def test_reasoning_can_stay_behind():
    talk = Talk.of(WEATHER[0], 1, keeps_reasoning=False)
    assert "reasoning" not in json.dumps(chat_request(talk)["messages"])
    assert all(item.get("type") != "reasoning" for item in responses_request(talk)["input"])


def test_an_agent_says_where_it_runs_before_it_asks():
    talk = Talk((PLAIN[0], PLAIN[1]), instructions="Be brief.", place="<cwd>/here</cwd>")
    messages, items = chat_request(talk)["messages"], responses_request(talk)["input"]
    assert [message["content"] for message in messages][:3] == ["Be brief.", talk.place, PLAIN[0].user]
    assert [item["content"] for item in items if item.get("role") == "user"] == [
        *(talk.place, PLAIN[0].user, PLAIN[1].user)
    ]
    assert messages[1]["role"] == "user"
