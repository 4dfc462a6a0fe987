"""`/tokenize` gives the ids that a conversation has on Chat Completions."""

import asyncio

import httpx
import pytest
from vllm.entrypoints.serve.tokenize.protocol import TokenizeChatRequest

from vllm_gptoss.rendering.prompt import encoding
from vllm_gptoss.tiny import dialogues
from vllm_gptoss.tiny.requests import Talk, chat_request

HELLO, PARIS = dialogues.PLAIN[0], dialogues.WEATHER[0]
USER = {"role": "user", "content": "Hi"}
SCHEMA = {"name": "sky", "schema": {"type": "object", "properties": {"sky": {"type": "string"}}}}
REQUESTS = {
    "tools and a turn": chat_request(Talk.of(PARIS, 1)),
    "settings": {"messages": [USER], "chat_template_kwargs": {"reasoning_effort": "high", "model_identity": "Ada."}},
    "effort": {"messages": [USER], "reasoning_effort": "low"},
    "format": {"messages": [USER], "response_format": {"type": "json_schema", "json_schema": SCHEMA}},
    "nothing behind": {"messages": [USER], "add_generation_prompt": False},
    "goes on": {
        "messages": [USER, {"role": "assistant", "content": "Hel"}],
        "continue_final_message": True,
        "add_generation_prompt": False,
    },
    "truncated": {"messages": [USER] * 40, "truncate_prompt_tokens": 100},
    "no call": {**chat_request(Talk.of(PARIS)), "tool_choice": "none"},
}


@pytest.fixture
def tokenize_text(online_renderer):
    def text(**fields) -> str:
        request = TokenizeChatRequest.model_validate(fields)
        options = {"default_template": None, "default_template_content_format": "auto", "default_template_kwargs": {}}
        rendered = online_renderer.preprocess_chat(request, request.messages, **options)
        _, (prompt,) = asyncio.run(rendered)
        return encoding().decode_utf8(prompt["prompt_token_ids"])

    return text


@pytest.mark.parametrize("hides_tools", [False, True], ids=["shows tools", "hides tools"])
@pytest.mark.parametrize("fields", REQUESTS.values(), ids=REQUESTS)
def test_the_prompt_is_that_of_chat(fields, hides_tools, tokenize_text, chat_text, online_renderer, monkeypatch):
    monkeypatch.setattr(online_renderer, "exclude_tools_when_tool_choice_none", hides_tools)
    assert tokenize_text(**fields) == chat_text(**fields)


def test_a_prompt_may_be_longer_than_the_model_takes(tokenize_text):
    assert len(tokenize_text(messages=[USER] * 2000)) > 2048


def tokenized(client, **fields) -> httpx.Response:
    url = str(client.base_url).replace("/v1/", "/tokenize")
    return httpx.post(url, json={"model": "tiny", **fields}, timeout=120)


def test_a_server_counts_as_chat_does(client):
    for fields in (REQUESTS["tools and a turn"], REQUESTS["effort"], {"messages": [{"role": "user", "content": "a"}]}):
        answer = tokenized(client, **fields, return_token_strs=True).json()
        completion = client.chat.completions.create(
            model="tiny", max_tokens=1, **fields, extra_body={"return_token_ids": True}
        )
        assert answer["tokens"] == completion.model_extra["prompt_token_ids"]
        assert answer["count"] == len(answer["tokens"]) == len(answer["token_strs"])


WRONG = {
    "image": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]},
        "text",
    ),
    "unknown call": ({"messages": [{"role": "tool", "tool_call_id": "c", "content": ""}]}, "answers the call 'c'"),
    "effort": ({"messages": [USER], "reasoning_effort": "huge"}, "reasoning_effort"),
}


@pytest.mark.parametrize(("fields", "said"), WRONG.values(), ids=WRONG)
def test_a_server_says_what_is_wrong(fields, said, client):
    answer = tokenized(client, **fields)
    assert answer.status_code == 400
    assert said in answer.text


def test_text_is_tokenized_as_before(client):
    assert tokenized(client, prompt="Hello").json()["tokens"] == encoding().encode("Hello")
