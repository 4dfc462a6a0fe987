"""The bodies of the requests that carry a dialogue, for Chat Completions and for Responses.

A talk is a list of dialogues that follow each other in one conversation, and the number of turns of the last one
that are done: the model is about to do the next.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vllm_gptoss.tiny.dialogues import Dialogue, Turn


@dataclass(frozen=True)
class Talk:
    dialogues: tuple[Dialogue, ...]
    done: int = 0
    instructions: str | None = None
    tools: Sequence[dict[str, Any]] = ()
    effort: str | None = None
    keeps_reasoning: bool = True
    """The client sends the reasoning back with the turns that are done."""

    place: str | None = None
    """What a coding agent says of where it runs, in a message of the user before the first question."""

    @classmethod
    def of(cls, dialogue: Dialogue, done: int = 0, **fields: Any) -> "Talk":
        """The dialogue by itself, with the instructions, tools and effort that it names."""
        own = {"instructions": dialogue.instructions, "tools": dialogue.tools, "effort": dialogue.effort}
        return cls((dialogue,), done, **{**own, **fields})

    @property
    def next_turn(self) -> Turn:
        return self.dialogues[-1].turns[self.done]

    def turns(self) -> list[tuple[str | None, Turn]]:
        """The turns that are done, the first of each dialogue with its question, and at last an open question."""
        *past, last = self.dialogues
        told = [(dialogue, dialogue.turns) for dialogue in past] + [(last, last.turns[: self.done])]
        return [(dialogue.user if i == 0 else None, turn) for dialogue, turns in told for i, turn in enumerate(turns)]

    @property
    def open_question(self) -> str | None:
        return None if self.done else self.dialogues[-1].user


def chat_request(talk: Talk) -> dict[str, Any]:
    """The body of a request to `/v1/chat/completions`, without the model's name."""
    messages: list[dict[str, Any]] = []
    if talk.instructions is not None:
        messages.append({"role": "system", "content": talk.instructions})
    if talk.place is not None:
        messages.append({"role": "user", "content": talk.place})
    for i, (question, turn) in enumerate(talk.turns()):
        if question is not None:
            messages.append({"role": "user", "content": question})
        said: dict[str, Any] = {"role": "assistant", "content": turn.answer or turn.preamble}
        if talk.keeps_reasoning:
            said["reasoning"] = turn.reasoning
        messages.append(said)
        if turn.call:
            function = {"name": turn.call.name, "arguments": turn.call.arguments}
            said["tool_calls"] = [{"id": f"call_{i}", "type": "function", "function": function}]
            messages.append({"role": "tool", "tool_call_id": f"call_{i}", "content": turn.call.result})
    if talk.open_question is not None:
        messages.append({"role": "user", "content": talk.open_question})
    request: dict[str, Any] = {"messages": messages}
    if talk.tools:
        request["tools"] = [{"type": "function", "function": tool} for tool in talk.tools]
    if talk.effort:
        request["reasoning_effort"] = talk.effort
    return request


def responses_request(talk: Talk) -> dict[str, Any]:
    """The body of a request to `/v1/responses`, without the model's name."""
    items: list[dict[str, Any]] = []
    if talk.place is not None:
        items.append({"role": "user", "content": talk.place})
    for i, (question, turn) in enumerate(talk.turns()):
        if question is not None:
            items.append({"role": "user", "content": question})
        if talk.keeps_reasoning:
            thought = {"type": "reasoning_text", "text": turn.reasoning}
            items.append({"type": "reasoning", "id": f"rs_{i}", "summary": [], "content": [thought]})
        for text in filter(None, (turn.preamble, turn.answer)):
            part = {"type": "output_text", "text": text, "annotations": []}
            message = {"type": "message", "id": f"msg_{i}", "role": "assistant", "status": "completed"}
            items.append({**message, "content": [part]})
        if turn.call:
            call = {"name": turn.call.name, "arguments": turn.call.arguments, "call_id": f"call_{i}"}
            items.append({"type": "function_call", **call})
            output = {"type": "function_call_output", "call_id": f"call_{i}", "output": turn.call.result}
            items.append(output)
    if talk.open_question is not None:
        items.append({"role": "user", "content": talk.open_question})
    request: dict[str, Any] = {"input": items}
    if talk.instructions is not None:
        request["instructions"] = talk.instructions
    if talk.tools:
        request["tools"] = [{"type": "function", **tool} for tool in talk.tools]
    if talk.effort:
        request["reasoning"] = {"effort": talk.effort}
    return request
