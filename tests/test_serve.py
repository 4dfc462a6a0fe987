"""`vllm serve` on the tiny checkpoint: what a client sees, over both APIs, streamed and not."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from openai import BadRequestError, NotFoundError

from vllm_gptoss.tiny import dialogues

MODEL = "tiny"


def chat(client, dialogue, **options):
    messages = [{"role": "user", "content": dialogue.user}]
    if dialogue.instructions:
        messages.insert(0, {"role": "developer", "content": dialogue.instructions})
    if dialogue.effort:
        options["reasoning_effort"] = dialogue.effort
    return client.chat.completions.create(model=MODEL, messages=messages, temperature=0, **options)


def answer(completion) -> tuple[str, str, str]:
    choice = completion.choices[0]
    return choice.message.reasoning, choice.message.content, choice.finish_reason


def learnt(dialogue) -> tuple[str, str, str]:
    return dialogue.turns[-1].reasoning, dialogue.turns[-1].answer, "stop"


SPOKEN = (*dialogues.PLAIN, *dialogues.EFFORTS)


@pytest.mark.parametrize("dialogue", SPOKEN, ids=lambda dialogue: dialogue.name)
def test_plain_chat_at_each_effort(client, dialogue):
    assert answer(chat(client, dialogue)) == learnt(dialogue)


def test_the_stream_adds_up_to_the_answer(client):
    dialogue = dialogues.PLAIN[0]
    reasoning = content = ""
    for chunk in chat(client, dialogue, stream=True):
        for choice in chunk.choices:
            reasoning += getattr(choice.delta, "reasoning", None) or ""
            content += choice.delta.content or ""
    assert (reasoning, content) == learnt(dialogue)[:2]


def test_sixteen_at_once(client):
    asked = SPOKEN * (16 // len(SPOKEN) + 1)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda dialogue: answer(chat(client, dialogue)), asked))
    assert answers == [learnt(dialogue) for dialogue in asked]


def test_responses(client):
    dialogue = dialogues.PLAIN[0]
    response = client.responses.create(model=MODEL, input=dialogue.user, temperature=0)
    assert response.status == "completed"
    assert response.output_text == dialogue.turns[0].answer
    assert response.output[0].content[0].text == dialogue.turns[0].reasoning


def test_structured_output(client):
    schema = {
        "type": "object",
        "properties": {"sky": {"enum": ["sunny", "cloudy"]}},
        "required": ["sky"],
        "additionalProperties": False,
    }
    text = {"type": "json_schema", "json_schema": {"name": "sky", "schema": schema, "strict": True}}
    completion = chat(client, dialogues.PLAIN[0], response_format=text, max_tokens=400)
    assert json.loads(completion.choices[0].message.content)["sky"] in ("sunny", "cloudy")


def test_usage_counts_cached_prompt_tokens(client):
    first, second = (chat(client, dialogues.PLAIN[1]).usage for _ in range(2))
    assert first.prompt_tokens == second.prompt_tokens
    assert second.completion_tokens > 0


def test_a_bad_request_is_refused_and_loses_nothing_beside_it(client):
    with pytest.raises(BadRequestError, match="2048"):
        client.completions.create(model=MODEL, prompt=[1] * 3000)
    with pytest.raises(NotFoundError, match="other"):
        client.completions.create(model="other", prompt="x")
    with pytest.raises(BadRequestError):
        client.completions.create(model=MODEL, prompt=[-1])
    assert answer(chat(client, dialogues.PLAIN[0])) == learnt(dialogues.PLAIN[0])
