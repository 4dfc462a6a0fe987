"""Messages of Chat Completions as Harmony messages.

An assistant's message becomes, in this order, its reasoning (analysis), what it said before its calls (commentary) or
as its answer (final), and its calls. A tool's result is written by the function whose call it answers.

Source: OpenAI's guide to the harmony response format, "Receiving tool calls" and "Preambles".
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from openai_harmony import Author, Message, Role

from vllm_gptoss.parsers.header import ANALYSIS, ASSISTANT, COMMENTARY, FINAL
from vllm_gptoss.rendering.preamble import developer_text

TEXT_PARTS = {"text", "input_text", "output_text", "refusal"}
"""Types of content parts that hold text; a refusal is what the assistant said."""


class MessageError(ValueError):
    """A message that can't stand in a prompt; the text says which one, and what to do."""


def chat_messages(messages: Sequence[Mapping[str, Any]]) -> tuple[str | None, list[Message]]:
    """Instructions of the leading system and developer messages, and the conversation behind them.

    Raises: MessageError for roles and parts that the model does not know, and results of unknown calls.
    """
    leading = instructions_end(messages)
    names: dict[str, str] = {}
    conversation = [
        message
        for i, said in enumerate(messages[leading:], leading)
        for message in _messages(said, f"messages[{i}]", names)
    ]
    return joined(content_text(said, f"messages[{i}]") for i, said in enumerate(messages[:leading])), conversation


def instructions_end(messages: Sequence[Mapping[str, Any]]) -> int:
    """How many system and developer messages come first."""
    roles = (message.get("role") for message in messages)
    return next((i for i, role in enumerate(roles) if role not in ("system", "developer")), len(messages))


def joined(instructions: Iterator[str | None]) -> str | None:
    """Instructions from several places as one text, None where there are none."""
    return "\n\n".join(filter(None, instructions)) or None


def content_text(message: Mapping[str, Any], where: str) -> str:
    """The text of a message, its parts joined; empty where it has none.

    Raises: MessageError for a part that is no text; `where` names the message.
    """
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise MessageError(f"{where} has content that is neither text nor a list of parts")
    return "".join(_part_text(part, where) for part in content)


def _part_text(part: Any, where: str) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type", "text") if isinstance(part, Mapping) else type(part).__name__
    if kind not in TEXT_PARTS:
        raise MessageError(f"{where} has a part of type {kind!r}, and gpt-oss reads text alone: describe it")
    text = part.get("text") or part.get("refusal") or ""
    if not isinstance(text, str):
        raise MessageError(f"{where} has a part of type {kind!r} whose text is no text")
    return text


def field_text(fields: Any, name: str, where: str) -> str:
    """A field that has to be text. Raises: MessageError."""
    value = fields.get(name) if isinstance(fields, Mapping) else None
    if not isinstance(value, str):
        raise MessageError(f"{where} needs {name!r} as text, and has {value!r:.80}")
    return value


def _messages(message: Mapping[str, Any], where: str, names: dict[str, str]) -> Iterator[Message]:
    role = message.get("role")
    text = content_text(message, where)
    if role == "assistant":
        yield from _assistant(message, text, where, names)
    elif role in ("tool", "function"):
        yield _result(message, text, where, names)
    elif role == "user":
        yield Message.from_role_and_content(Role.USER, text)
    elif role in ("system", "developer"):
        if instructions := developer_text(text):
            yield Message.from_role_and_content(Role.DEVELOPER, instructions)
    else:
        raise MessageError(f"{where} has the role {role!r}, which is none of system, developer, user, assistant, tool")


def _assistant(message: Mapping[str, Any], text: str, where: str, names: dict[str, str]) -> Iterator[Message]:
    calls = list(message.get("tool_calls") or ())
    if message.get("function_call"):  # as clients of 2023 say it
        calls.append({"function": message["function_call"]})
    reasoning = message.get("reasoning") or message.get("reasoning_content")
    if reasoning:
        if not isinstance(reasoning, str):
            raise MessageError(f"{where} has reasoning that is no text")
        yield assistant_message(reasoning, ANALYSIS)
    if text:
        yield assistant_message(text, COMMENTARY if calls else FINAL)
    for i, call in enumerate(calls):
        name, arguments = _called(call, f"{where}.tool_calls[{i}]")
        if isinstance(call.get("id"), str):
            names[call["id"]] = name
        yield call_message(name, arguments)


def _called(call: Any, where: str) -> tuple[str, str]:
    if isinstance(call, Mapping) and isinstance(call.get("custom"), Mapping):
        custom = call["custom"]
        return field_text(custom, "name", where), compact({"input": custom.get("input") or ""})
    function = call.get("function") if isinstance(call, Mapping) else None
    name = field_text(function, "name", where)
    arguments = function.get("arguments") or ""
    return name, arguments if isinstance(arguments, str) else compact(arguments)


def _result(message: Mapping[str, Any], text: str, where: str, names: Mapping[str, str]) -> Message:
    call = message.get("tool_call_id")
    name = names.get(call) or message.get("name")
    if not isinstance(name, str):
        known = f"the calls before it are {', '.join(map(repr, names))}" if names else "no call comes before it"
        raise MessageError(f"{where} answers the call {call!r}, but {known}. Send the assistant's message too.")
    return result_message(f"functions.{name.removeprefix('functions.')}", text)


def assistant_message(text: str, channel: str) -> Message:
    return Message.from_role_and_content(Role.ASSISTANT, text).with_channel(channel)


def call_message(name: str, arguments: str) -> Message:
    """A call of a function, in the words in which the model makes it."""
    message = assistant_message(arguments, COMMENTARY).with_recipient(f"functions.{name}")
    return message.with_content_type("json")


def result_message(author: str, text: str) -> Message:
    """What a tool answers the assistant."""
    message = Message.from_author_and_content(Author.new(Role.TOOL, author), text)
    return message.with_channel(COMMENTARY).with_recipient(ASSISTANT)


def compact(value: Any) -> str:
    """JSON as it stands in a prompt."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
