"""Items of Responses as Harmony messages: the same conversation gives the same messages as on Chat Completions.

Calls of a client's own tools (shells, patches, custom tools) are calls of functions here; built-in tools are called on
the analysis channel. An assistant's message in front of a call is a preamble, else an answer.

Items come as they were sent, and are checked here: one that says nothing to the model is left out and reported.

Source: OpenAI's reference of the Responses API, "Input items"; its guide to the harmony response format.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from openai_harmony import Message, Role

from vllm_gptoss.parsers.header import ANALYSIS, COMMENTARY, FINAL
from vllm_gptoss.rendering.chat import (
    TEXT_PARTS,
    MessageError,
    assistant_message,
    call_message,
    compact,
    content_text,
    field_text,
    instructions_end,
    joined,
    result_message,
)
from vllm_gptoss.rendering.preamble import developer_text

Item = Mapping[str, Any]

CLIENT_CALLS = {
    # Type of the call: the function that the model knows, and what of the item is its arguments.
    "function_call": (None, "arguments"),
    "custom_tool_call": (None, "input"),
    "local_shell_call": ("local_shell", "action"),
    "shell_call": ("shell", "action"),
    "apply_patch_call": ("apply_patch", "operation"),
}
"""Calls that the client answers, with an item of the type `<type>_output`."""

RESULTS = {f"{call}_output" for call in CLIENT_CALLS}

NAMESPACE = "__"
"""Between the name of a namespace and that of a function in it: the model knows functions by one name."""


class Conversation(NamedTuple):
    instructions: str | None
    """Of the system and developer messages that come first."""
    messages: list[Message]
    left_out: list[str]
    """What says nothing to the model, by type, each once."""


def responses_messages(
    items: Sequence[Item], calls: Mapping[str, str] | None = None, begins: bool = True
) -> Conversation:
    """Harmony messages of the `items`, in their order; `calls` names functions by call id from before them.

    Where the items go on with a conversation that did not begin with them, what the developer says stays in its place.

    Raises: MessageError for results of unknown calls, content that is no text, references, and what is no item.
    """
    for i, item in enumerate(items):
        kind = isinstance(item, Mapping) and (item.get("type") or item.get("role"))
        if isinstance(item, Mapping) and is_reference(item):
            raise MessageError(f"input[{i}] refers to an unknown item, {item.get('id')!r}: send the item itself")
        if not isinstance(kind, str):
            raise MessageError(f"input[{i}] is no item: it has neither a type nor a role")
    leading = instructions_end(items) if begins else 0
    reader = _Reader(items, dict(calls or {}))
    messages = [message for i in range(leading, len(items)) for message in reader.read(i)]
    instructions = joined(content_text(item, f"input[{i}]") for i, item in enumerate(items[:leading]))
    return Conversation(instructions, messages, list(dict.fromkeys(reader.left_out)))


def is_reference(item: Item) -> bool:
    """An item that stands for one which the server gave out; its type may be left out."""
    return item.get("type") == "item_reference" or ("id" in item and not (item.get("type") or item.get("role")))


def called_function(item: Item, where: str = "the call") -> str:
    """The name that the model knows the function of a call by.

    Raises: MessageError where the call names none.
    """
    name = CLIENT_CALLS[item["type"]][0] or field_text(item, "name", where)
    return f"{item['namespace']}{NAMESPACE}{name}" if item.get("namespace") else name


class _Reader:
    def __init__(self, items: Sequence[Item], calls: dict[str, str]) -> None:
        self.items, self.calls = items, calls
        self.left_out: list[str] = []

    def read(self, index: int) -> Iterator[Message]:
        item, where = self.items[index], f"input[{index}]"
        kind = item.get("type") or "message"
        if kind == "message":
            yield from self._message(index, where)
        elif kind == "reasoning":
            parts = item.get("content") or []
            if text := "\n".join(filter(None, (content_text({"content": [part]}, where) for part in _thoughts(parts)))):
                yield assistant_message(text, ANALYSIS)
        elif kind in CLIENT_CALLS:
            yield self._call(item, kind, where)
        elif kind in RESULTS:
            yield self._result(item, where)
        elif kind == "mcp_call":
            yield from _server_call(item, where)
        elif kind == "code_interpreter_call" and item.get("code"):
            yield from _python(item, where)
        else:
            self.left_out.append(str(kind))

    def _message(self, index: int, where: str) -> Iterator[Message]:
        item = self.items[index]
        role, text = item.get("role"), content_text(item, where)
        if role == "assistant":
            if text:
                yield assistant_message(text, self._channel(index))
        elif role == "user":
            yield Message.from_role_and_content(Role.USER, text)
        elif role in ("system", "developer"):
            if said := developer_text(text):
                yield Message.from_role_and_content(Role.DEVELOPER, said)
        else:
            raise MessageError(f"{where} has the role {role!r}, which is none of system, developer, user, assistant")

    def _channel(self, index: int) -> str:
        """Commentary in front of a call of the same turn, else final; a client may say which it was."""
        phase = self.items[index].get("phase")
        if phase is not None:
            return COMMENTARY if phase == "commentary" else FINAL
        for item in self.items[index + 1 :]:
            kind = item.get("type") or "message"
            if kind == "message":
                return FINAL
            if kind.endswith("_call"):
                return COMMENTARY
        return FINAL

    def _call(self, item: Item, kind: str, where: str) -> Message:
        name = called_function(item, where)
        if isinstance(item.get("call_id"), str):
            self.calls[item["call_id"]] = name
        arguments = item.get(CLIENT_CALLS[kind][1])
        if kind == "custom_tool_call":
            arguments = {"input": arguments or ""}
        elif kind == "local_shell_call" and isinstance(arguments, Mapping):
            # What the item has to have, and the model did not say.
            arguments = {key: value for key, value in arguments.items() if key != "type" and value not in (None, {})}
        return call_message(name, arguments if isinstance(arguments, str) else compact(arguments or {}))

    def _result(self, item: Item, where: str) -> Message:
        call = item.get("call_id") or item.get("id")  # a local shell's result has the second alone
        name = self.calls.get(call) if isinstance(call, str) else None
        if name is None:
            raise MessageError(
                f"{where} answers the call {call!r}, which is not among the items before it: "
                "send that call too, or previous_response_id"
            )
        return result_message(f"functions.{name}", self._output_text(item.get("output"), where))

    def _output_text(self, output: Any, where: str) -> str:
        """What a tool returned: text, parts of text, or anything as JSON; parts that are no text are named in it."""
        if output is None or isinstance(output, str):
            return output or ""
        if not isinstance(output, list) or not all(isinstance(part, Mapping) and "type" in part for part in output):
            return compact(output)
        texts = []
        for part in output:
            if part["type"] in TEXT_PARTS:
                texts.append(content_text({"content": [part]}, where))
            else:
                self.left_out.append(f"{part['type']} in a tool's output")
                texts.append(f"[{part['type']}, which can't be shown here]")
        return "".join(texts)


def _thoughts(parts: Any) -> list[Item]:
    """Parts of reasoning, as text."""
    parts = parts if isinstance(parts, list) else [parts]
    return [{**part, "type": "text"} if isinstance(part, Mapping) else part for part in parts]


def _server_call(item: Item, where: str) -> Iterator[Message]:
    """A call that a server made, and what came back."""
    recipient = f"{field_text(item, 'server_label', where)}.{field_text(item, 'name', where)}"
    arguments = item.get("arguments") or ""
    arguments = arguments if isinstance(arguments, str) else compact(arguments)
    yield assistant_message(arguments, COMMENTARY).with_recipient(recipient).with_content_type("json")
    output = item.get("output") if item.get("output") is not None else item.get("error")
    if output is not None:
        yield result_message(recipient, output if isinstance(output, str) else compact(output))


def _python(item: Item, where: str) -> Iterator[Message]:
    code = field_text(item, "code", where)
    yield assistant_message(code, ANALYSIS).with_recipient("python").with_content_type("code")
    outputs = item.get("outputs") or []
    logs = [field_text(out, "logs", where) for out in outputs if isinstance(out, Mapping) and out.get("logs")]
    if logs:
        yield result_message("python", "\n".join(logs)).with_channel(ANALYSIS)
