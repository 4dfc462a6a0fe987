"""What stands around a coding agent's question in the samples: made up, of many lengths, and a valid request."""

import json
import random

import pytest

from vllm_gptoss.tiny.agents import Surroundings
from vllm_gptoss.tiny.dialogues import EXEC_COMMAND, FILES, files
from vllm_gptoss.tiny.render import chat_prompt, encode, responses_prompt
from vllm_gptoss.tiny.requests import Talk, chat_request, responses_request

WORDS = (" the", " file", " shell", ".")


def surroundings(seed: int) -> Surroundings:
    return Surroundings(random.Random(seed), WORDS)


def agents_talk(seed: int) -> Talk:
    around = surroundings(seed)
    sent = {"instructions": around.instructions(), "tools": around.tools(), "place": around.place()}
    return Talk.of(files(FILES[0], around.before_output()), 1, **sent)


def test_one_seed_gives_one_talk():
    assert agents_talk(1) == agents_talk(1) != agents_talk(2)


def test_every_agent_has_a_shell_that_takes_a_command():
    offered = [surroundings(seed).tools() for seed in range(40)]
    for tools in offered:
        (shell,) = [tool for tool in tools if tool["name"] == EXEC_COMMAND["name"]]
        assert shell["parameters"]["properties"]["cmd"]["type"] == "string"
        assert shell["parameters"]["required"] == ["cmd"]
    assert {len(tools) for tools in offered} >= {1, 3, 7}
    assert len({json.dumps(tools) for tools in offered}) == len(offered)
    assert [*EXEC_COMMAND["parameters"]["properties"]] == ["cmd"], "what is known of the shell was changed"


def test_output_is_the_last_thing_that_a_shell_says():
    said = {surroundings(seed).before_output() for seed in range(20)}
    assert len(said) > 10
    assert all(text.endswith("Output:\n") and text.count("Output:") == 1 for text in said)


@pytest.mark.parametrize("seed", range(5))
def test_both_apis_take_it(seed):
    talk = agents_talk(seed)
    for prompt in (chat_prompt(chat_request(talk)), responses_prompt(responses_request(talk))):
        assert talk.place in prompt
        assert talk.instructions in prompt
        assert prompt.index(talk.place) < prompt.index(talk.dialogues[0].user)


def test_prompts_are_as_long_as_an_agents():
    """Codex's are 860 tokens long when it is told to be brief."""
    lengths = sorted(len(encode(responses_prompt(responses_request(agents_talk(seed))))) for seed in range(40))
    assert lengths[0] < 600
    assert lengths[-1] > 1100
