"""Requests of both APIs, as vLLM's server holds them, to messages.

A request's instructions, tools, effort and answer format make the preamble, also where it goes on from a response that
is stored: that one's preamble is put aside, and what its input said to the developer stays in force.
"""

import datetime
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from openai_harmony import Message, Role
from vllm import envs
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest

from vllm_gptoss.rendering.chat import MessageError, chat_messages, joined
from vllm_gptoss.rendering.preamble import ResponseFormat, developer_text, system_text
from vllm_gptoss.rendering.prompt import Ending
from vllm_gptoss.rendering.responses import responses_messages
from vllm_gptoss.rendering.tools import Function, functions_section

ASKED_FORMAT = "vllm_gptoss_asked_format"
"""A field of requests: the format of the answer that vLLM has taken out of it."""

Settings = Mapping[str, Any]
"""Of `chat_template_kwargs`, the server's or a request's; `reasoning_effort` and `model_identity` mean something."""
NO_SETTINGS: Settings = MappingProxyType({})


class History(list[Message]):
    """The messages of a response, to go on from; vLLM appends what is generated, and copies it for the next request."""

    def __init__(self, messages: Iterable[Message] = (), instructions: str | None = None) -> None:
        super().__init__(messages)
        self.instructions = instructions
        """Of the input, not of the request: they hold for the requests that go on from here."""

    def copy(self) -> "History":
        return History(self, self.instructions)


class Rendered(NamedTuple):
    messages: History
    left_out: list[str]
    """What says nothing to the model, by type."""


def chat_conversation(
    request: ChatCompletionRequest, with_tools: bool, defaults: Settings = NO_SETTINGS
) -> list[Message]:
    """System and developer message, and the messages of `request`.

    Raises: MessageError, UnknownEffortError, and SchemaError for a tool's parameters.
    """
    instructions, conversation = chat_messages([plain(message) for message in request.messages])
    functions = [Function(t.function.name, t.function.description, t.function.parameters) for t in request.tools or []]
    preamble = _preamble(
        instructions,
        functions if with_tools else [],
        _chat_format(getattr(request, ASKED_FORMAT, None) or request.response_format),
        _settings(defaults, request.reasoning_effort, request.chat_template_kwargs),
    )
    return [*preamble, *conversation]


def chat_ending(request: ChatCompletionRequest) -> Ending:
    if request.continue_final_message:
        return Ending.OPEN
    return Ending.ASSISTANT if request.add_generation_prompt else Ending.NOTHING


def responses_conversation(
    request: ResponsesRequest,
    functions: Sequence[Function],
    builtin_tools: Sequence[str] = (),
    previous: Sequence[Message] = (),
    calls: Mapping[str, str] | None = None,
    defaults: Settings = NO_SETTINGS,
) -> Rendered:
    """System and developer message, what was stored, and the input of `request`.

    `calls` names the functions of the stored calls by call id.

    Raises: as `chat_conversation`.
    """
    items = [{"role": "user", "content": request.input}] if isinstance(request.input, str) else request.input
    conversation = responses_messages([plain(item) for item in items], calls, begins=not previous)
    stored = [message for message in previous if message.author.role != Role.SYSTEM]
    if len(stored) < len(previous) and stored and stored[0].author.role == Role.DEVELOPER:
        del stored[0]
    said = getattr(previous, "instructions", None) or conversation.instructions
    preamble = _preamble(
        joined((request.instructions, said)),
        functions,
        _text_format(getattr(request, ASKED_FORMAT, None) or request.text),
        _settings(defaults, request.reasoning and request.reasoning.effort, request.chat_template_kwargs),
        builtin_tools,
    )
    return Rendered(History([*preamble, *stored, *conversation.messages], said), conversation.left_out)


def _settings(defaults: Settings, effort: str | None, own: Settings | None) -> Settings:
    """The server's, what the request says by name, and its own template settings, each over the one before."""
    return {**defaults, **({} if effort is None else {"reasoning_effort": effort}), **(own or {})}


def _preamble(
    instructions: str | None,
    functions: Sequence[Function],
    response_format: ResponseFormat | None,
    settings: Settings,
    builtin_tools: Sequence[str] = (),
) -> list[Message]:
    identity = settings.get("model_identity")
    if not isinstance(identity, str | None):
        raise MessageError(f"model_identity is text, not {identity!r:.80}")
    if envs.VLLM_GPT_OSS_HARMONY_SYSTEM_INSTRUCTIONS and instructions:
        identity, instructions = "\n".join(filter(None, (identity, instructions))), None
    date = envs.VLLM_SYSTEM_START_DATE or datetime.date.today().isoformat()
    system = system_text(date, settings.get("reasoning_effort"), identity, builtin_tools, bool(functions))
    messages = [Message.from_role_and_content(Role.SYSTEM, system)]
    if developer := developer_text(instructions, functions_section(functions), response_format):
        messages.append(Message.from_role_and_content(Role.DEVELOPER, developer))
    return messages


def _chat_format(response_format: Any) -> ResponseFormat | None:
    kind = getattr(response_format, "type", None)
    if kind == "json_schema" and (wanted := response_format.json_schema):
        return ResponseFormat(wanted.name, wanted.json_schema or {}, wanted.description)
    return _any_object(kind)


def _text_format(text: Any) -> ResponseFormat | None:
    wanted = getattr(text, "format", None)
    kind = getattr(wanted, "type", None)
    if kind == "json_schema":
        return ResponseFormat(wanted.name, wanted.schema_ or {}, wanted.description)
    return _any_object(kind)


def _any_object(kind: str | None) -> ResponseFormat | None:
    return ResponseFormat("json_object", {"type": "object"}) if kind == "json_object" else None


def plain(value: Any) -> Any:
    """A message or item as dictionaries and lists; pydantic leaves iterators where a protocol says `Iterable`."""
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if hasattr(value, "model_dump"):
        return value.model_dump(exclude_none=True, by_alias=True)
    return [plain(each) for each in value] if isinstance(value, Iterable) else value
