"""Messages to the token ids of a prompt.

    <|start|> role [to=recipient] [<|channel|> channel [to=recipient] [<|constrain|> type]] <|message|> text <|end|>

A call ends in `<|call|>` and has its recipient behind the channel, as the model writes it: then the history of a turn
is token for token what was generated, and stands in the prefix cache. A tool's result names the assistant behind its
role, as the format documents it.

Text is text: what looks like a control token in a message, a name or a type is encoded letter by letter and controls
nothing.

Source: OpenAI's guide to the harmony response format, "Message format" and "Function calling".
"""

import functools
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum

from openai_harmony import HarmonyEncoding, HarmonyEncodingName, Message, Role, TextContent, load_harmony_encoding

from vllm_gptoss.parsers.header import ANALYSIS, ASSISTANT, CONSTRAIN, FINAL

CONSTRAINED_TYPES = {"json"}
"""Types that the model announces with `<|constrain|>`; the code of built-in tools has its type without."""

NOT_CALLED = {None, "all", ASSISTANT}


class RenderError(ValueError):
    """A message has no place in a prompt."""


class Ending(Enum):
    """How a prompt ends."""

    ASSISTANT = "the assistant begins a message"
    OPEN = "the assistant goes on with its last message"
    NOTHING = "behind the last message"


def render_prompt(messages: Sequence[Message], ending: Ending = Ending.ASSISTANT) -> list[int]:
    """Token ids of a conversation.

    Reasoning in front of the last final answer is left out: the model is given its thoughts within a turn alone.

    Raises: RenderError for content that is no text, and for an OPEN end behind a message of somebody else.
    """
    if ending is Ending.OPEN and not (messages and _is_assistant(messages[-1])):
        raise RenderError("only the assistant's last message can be gone on with, and the last is not the assistant's")
    ids = [token for message in without_old_reasoning(messages) for token in _message(message)]
    if ending is Ending.OPEN:
        ids.pop()
    elif ending is Ending.ASSISTANT:
        ids += [*_control("<|start|>"), *_text(ASSISTANT)]
    return ids


def without_old_reasoning(messages: Sequence[Message]) -> Iterator[Message]:
    """Messages less the analysis in front of the last final answer; calls of built-in tools are no such analysis."""
    finals = [i for i, message in enumerate(messages) if _is_assistant(message) and message.channel == FINAL]
    last = finals[-1] if finals else -1
    for i, message in enumerate(messages):
        is_thought = _is_assistant(message) and message.channel == ANALYSIS and message.recipient in NOT_CALLED
        if i > last or not is_thought:
            yield message


def _message(message: Message) -> Iterator[int]:
    yield from _control("<|start|>")
    author, recipient = message.author, message.recipient
    is_tool = author.role == Role.TOOL
    head = author.name if is_tool and author.name else author.role.value
    yield from _text(f"{head} to={recipient}" if is_tool and recipient else head)
    is_call = _is_assistant(message) and recipient not in NOT_CALLED
    if message.channel:
        yield from _control("<|channel|>")
        yield from _channel(message.channel, recipient if is_call else None, message.content_type)
    yield from _control("<|message|>")
    yield from _text(_joined(message))
    yield from _control("<|call|>" if is_call else "<|end|>")


def _channel(channel: str, recipient: str | None, content_type: str | None) -> Iterator[int]:
    words = channel if recipient is None else f"{channel} to={recipient}"
    if content_type is None:
        yield from _text(words)
        return
    name = content_type.removeprefix(CONSTRAIN).strip()
    if name in CONSTRAINED_TYPES or content_type.startswith(CONSTRAIN):
        yield from _text(f"{words} ")
        yield from _control(CONSTRAIN)
        yield from _text(name)
    else:
        yield from _text(f"{words} {name}")


def _joined(message: Message) -> str:
    others = [type(part).__name__ for part in message.content if not isinstance(part, TextContent)]
    if others:
        raise RenderError(f"a message of the {message.author.role.value} holds {others[0]}, and only text is rendered")
    return "".join(part.text for part in message.content)


def _is_assistant(message: Message) -> bool:
    return message.author.role == Role.ASSISTANT


def _text(text: str) -> Iterable[int]:
    try:
        return encoding().encode(text, disallowed_special=())
    except UnicodeEncodeError:
        # Half of a surrogate pair, which JSON can spell, is no text.
        whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return encoding().encode(whole, disallowed_special=())


def _control(token: str) -> Iterable[int]:
    return _control_ids()[token]


@functools.cache
def _control_ids() -> dict[str, list[int]]:
    tokens = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|call|>", CONSTRAIN)
    return {token: encoding().encode(token, allowed_special={token}) for token in tokens}


@functools.cache
def encoding() -> HarmonyEncoding:
    """Harmony's, from the library's embedded vocabulary."""
    return load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)
