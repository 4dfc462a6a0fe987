"""Golden files: what the installed harmony library makes of the conversations, token by token.

    python tests/parsers/make_golden.py        writes tests/data/harmony/*.json anew

A file holds `text`; `runs`, the tokens one after the other, where each run names what the library says about the
message that is open ([role, channel, recipient, content type], null in a header) and then [token, text that the
token completed, null if none]; and `messages`, the list when all is read.
"""

import json
from itertools import groupby
from pathlib import Path

from conversations import CONVERSATIONS, Rendered, Said, Spelled
from openai_harmony import (
    Author,
    Conversation,
    HarmonyError,
    Message,
    RenderConversationConfig,
    Role,
    StreamableParser,
    StreamState,
)
from spelling import encoding, spell

FOLDER = Path(__file__).parents[1] / "data" / "harmony"


def tokens_of(conversation: Rendered | Spelled) -> list[int]:
    if isinstance(conversation, Spelled):
        tilde = iter(conversation.tilde)
        head, *rest = conversation.text.split("~")
        return [*spell(head), *(token for text in rest for token in (next(tilde), *spell(text)))]
    messages = Conversation.from_messages(map(message_of, conversation.messages))
    config = RenderConversationConfig(auto_drop_analysis=conversation.drops_reasoning)
    if conversation.asks:
        return encoding().render_conversation_for_completion(messages, Role.ASSISTANT, config)
    return encoding().render_conversation(messages, config)


def message_of(said: Said) -> Message:
    message = Message.from_author_and_content(Author(role=Role(said.role), name=said.name), said.content)
    for field in ("channel", "recipient", "content_type"):
        if (value := getattr(said, field)) is not None:
            message = getattr(message, f"with_{field}")(value)
    return message


def read(tokens: list[int], role: str | None) -> tuple[list, list[dict]]:
    """The runs and the messages of the library."""
    parser = StreamableParser(encoding(), role and Role(role))
    steps = []
    for token in tokens:
        parser.process(token)
        is_body = parser.state is StreamState.CONTENT
        head = [parser.current_role.value, parser.current_channel, parser.current_recipient] if is_body else None
        steps.append((head and [*head, parser.current_content_type], [token, parser.last_content_delta]))
    try:
        parser.process_eos()
    except HarmonyError:
        assert parser.state is StreamState.HEADER  # It ends within a header, and there is no message in that.
    runs = [[head, [step for _, step in run]] for head, run in groupby(steps, key=lambda step: step[0])]
    return runs, [fields_of(message) for message in parser.messages]


def fields_of(message: Message) -> dict:
    return {
        "role": message.author.role.value,
        "name": message.author.name,
        "channel": message.channel,
        "recipient": message.recipient,
        "content_type": message.content_type,
        "text": "".join(content.text for content in message.content),
    }


def golden(name: str) -> str:
    """The text of a golden file."""
    conversation = CONVERSATIONS[name]
    role = conversation.role if isinstance(conversation, Spelled) else None
    tokens = tokens_of(conversation)
    runs, messages = read(tokens, role)
    lines = [
        f'"role": {json.dumps(role)}',
        f'"text": {json.dumps(encoding().decode(tokens), ensure_ascii=False)}',
        '"runs": [\n  ' + ",\n  ".join(json.dumps(run, ensure_ascii=False) for run in runs) + "\n ]",
        '"messages": [\n  ' + ",\n  ".join(json.dumps(message, ensure_ascii=False) for message in messages) + "\n ]",
    ]
    return "{\n " + ",\n ".join(lines) + "\n}\n"


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path in FOLDER.glob("*.json"):
        path.unlink()
    for name in CONVERSATIONS:
        (FOLDER / f"{name}.json").write_text(golden(name), encoding="utf-8")


if __name__ == "__main__":
    main()
