"""The plugin as a server of gpt-oss has it: its seams are in place once the first parser is made."""

import asyncio
import logging
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import vllm.logger
from vllm.config import ModelConfig
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.renderers.online_renderer import OnlineRenderer

from vllm_gptoss import plugin
from vllm_gptoss.rendering.prompt import encoding


@pytest.fixture(scope="session")
def online_renderer(tiny_checkpoint) -> OnlineRenderer:
    """vLLM's own, as the server makes it, of the tiny checkpoint."""
    plugin.register()
    config = ModelConfig(model=str(tiny_checkpoint), skip_tokenizer_init=True, max_model_len=2048)
    tokens = SimpleNamespace(tokenizer=None, get_tokenizer=lambda: None)
    return OnlineRenderer(config, tokens, request_logger=None, chat_template=None, chat_template_content_format="auto")


@pytest.fixture(scope="session")
def seams(online_renderer) -> None:
    """For tests that need them, and no renderer."""


@pytest.fixture(autouse=True)
def today(monkeypatch) -> None:
    monkeypatch.setenv("VLLM_SYSTEM_START_DATE", "2026-01-02")


@pytest.fixture
def chat_text(online_renderer) -> Callable[..., str]:
    """`chat_text(messages=…)`: the prompt of a request to Chat Completions. Raises: what the server answers 400 for."""

    def text(**request) -> str:
        _, (prompt,) = asyncio.run(online_renderer.render_chat(ChatCompletionRequest(model="m", **request)))
        return encoding().decode_utf8(prompt["prompt_token_ids"])

    return text


@pytest.fixture
def responses_result(online_renderer) -> Callable:
    """`responses_result(request, previous=None, outputs=())`: what the server renders, or its error."""

    def render(request: dict, previous=None, outputs=()):
        return asyncio.run(
            online_renderer.render_responses(
                ResponsesRequest(model="m", **request),
                previous_messages=previous,
                previous_response_outputs=list(outputs),
            )
        )

    return render


@pytest.fixture
def responses_text(responses_result) -> Callable[..., str]:
    def text(previous=None, outputs=(), **request) -> str:
        return encoding().decode_utf8(responses_result(request, previous, outputs).engine_input["prompt_token_ids"])

    return text


@pytest.fixture
def caplog_vllm(caplog, monkeypatch):
    """`caplog` with what vLLM's logger says, which hands nothing on by itself; warnings that come once come again."""
    monkeypatch.setattr(logging.getLogger("vllm"), "propagate", True)
    vllm.logger._print_warning_once.cache_clear()
    return caplog
