"""Prompts and turns as harmony text: what the server makes of a request, and what the model is to say next.

Training and tests need this file, writing the checkpoint does not: it renders as the server does. Text and tokens
stand for each other, because `encode` undoes `decode` on whatever is rendered of these dialogues.
"""

from functools import cache
from typing import Any

from openai_harmony import (
    Conversation,
    DeveloperContent,
    HarmonyEncoding,
    HarmonyEncodingName,
    Message,
    Role,
    SystemContent,
    load_harmony_encoding,
)
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest

from vllm_gptoss.rendering.prompt import render_prompt
from vllm_gptoss.serving import prompts
from vllm_gptoss.tiny.dialogues import Dialogue, Turn


def chat_prompt(request: dict[str, Any]) -> str:
    """The prompt of a request to `/v1/chat/completions`."""
    return decode(prompts.chat_prompt(ChatCompletionRequest(**request), with_tools=True)[1])


def responses_prompt(request: dict[str, Any]) -> str:
    """The prompt of a request to `/v1/responses`."""
    conversation = prompts.responses_conversation(ResponsesRequest(**request), with_tools=True)
    return decode(render_prompt(conversation.messages))


def offline_prompt(dialogue: Dialogue) -> str:
    """The prompt as the README of gpt-oss renders it for offline use: without a date."""
    messages = [
        Message.from_role_and_content(Role.SYSTEM, SystemContent.new()),
        Message.from_role_and_content(Role.DEVELOPER, DeveloperContent.new().with_instructions(dialogue.instructions)),
        Message.from_role_and_content(Role.USER, dialogue.user),
    ]
    conversation = Conversation.from_messages(messages)
    return decode(_encoding().render_conversation_for_completion(conversation, Role.ASSISTANT))


def turn_text(turn: Turn) -> str:
    """What the model generates for the turn, after a prompt that ends in `<|start|>assistant`."""
    text = f"<|channel|>analysis<|message|>{turn.reasoning}<|end|><|start|>assistant"
    if turn.preamble:
        text += f"<|channel|>commentary<|message|>{turn.preamble}<|end|><|start|>assistant"
    if call := turn.call:
        recipient = f"to=functions.{call.name}"
        return text + f"<|channel|>commentary {recipient} <|constrain|>json<|message|>{call.arguments}<|call|>"
    return text + f"<|channel|>final<|message|>{turn.answer}<|return|>"


def encode(text: str) -> list[int]:
    return _encoding().encode(text, allowed_special="all")


def decode(tokens: list[int]) -> str:
    return _encoding().decode_utf8(tokens)


@cache
def _encoding() -> HarmonyEncoding:
    return load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)
