"""One conversation over Chat Completions, streamed; the caller keeps the messages."""

from typing import Any

from openai import OpenAI

from vllm_gptoss.demo.turn import Call, DemoError, Show, Turn


class Chat:
    """Sends the whole conversation with each request, reasoning included."""

    title = "Chat Completions"

    def __init__(self, client: OpenAI, model: str, tools: list[dict[str, Any]], show: Show) -> None:
        self._client = client
        self._model = model
        self._tools = [{"type": "function", "function": tool} for tool in tools]
        self._show = show
        self._messages: list[dict[str, Any]] = []

    def ask(self, text: str) -> Turn:
        self._messages.append({"role": "user", "content": text})
        return self._turn()

    def give(self, call: Call, result: str) -> Turn:
        self._messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
        return self._turn()

    def _turn(self) -> Turn:
        stream = self._client.chat.completions.create(
            model=self._model, messages=self._messages, tools=self._tools, temperature=0, stream=True
        )
        turn, finish = Turn(), None
        for chunk in stream:
            for choice in chunk.choices:
                self._add(turn, choice.delta)
                finish = choice.finish_reason or finish
        expected = "tool_calls" if turn.calls else "stop"
        if finish != expected:
            raise DemoError(f"the stream ended with finish_reason {finish!r} and not with {expected!r}")
        self._messages.append(_as_message(turn))
        return turn

    def _add(self, turn: Turn, delta: Any) -> None:
        # `reasoning` is vLLM's field; the client keeps what it does not know as extra attributes.
        if reasoning := getattr(delta, "reasoning", None):
            turn.reasoning += reasoning
            self._show("reasoning", reasoning)
        if delta.content:
            turn.text += delta.content
            self._show("assistant", delta.content)
        for part in delta.tool_calls or ():
            if part.index == len(turn.calls):
                turn.calls.append(Call(id=part.id, name=part.function.name))
                self._show("call", f"{part.function.name} ")
            if part.function.arguments:
                turn.calls[part.index].arguments += part.function.arguments
                self._show("call", part.function.arguments)


def _as_message(turn: Turn) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "reasoning": turn.reasoning, "content": turn.text or None}
    if turn.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in turn.calls
        ]
    return message
