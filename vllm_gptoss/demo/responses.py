"""One conversation over Responses, streamed; each request carries the items so far."""

from typing import Any

from openai import OpenAI

from vllm_gptoss.demo.turn import Call, DemoError, Show, Turn


class Responses:
    """Sends the items of the finished responses back as they came, reasoning included."""

    title = "Responses"

    def __init__(self, client: OpenAI, model: str, tools: list[dict[str, Any]], show: Show) -> None:
        self._client = client
        self._model = model
        self._tools = [{"type": "function", **tool} for tool in tools]
        self._show = show
        self._items: list[Any] = []

    def ask(self, text: str) -> Turn:
        self._items.append({"role": "user", "content": text})
        return self._turn()

    def give(self, call: Call, result: str) -> Turn:
        self._items.append({"type": "function_call_output", "call_id": call.id, "output": result})
        return self._turn()

    def _turn(self) -> Turn:
        stream = self._client.responses.create(
            model=self._model, input=self._items, tools=self._tools, temperature=0, stream=True, store=False
        )
        turn, response = Turn(), None
        for event in stream:
            self._add(turn, event)
            if event.type in ("response.completed", "response.incomplete", "response.failed"):
                response = event.response
        if response is None or response.status != "completed":
            raise DemoError(f"the stream ended with {response and response.status!r} and not with a whole response")
        self._items += [item.model_dump(exclude_none=True) for item in response.output]
        return turn

    def _add(self, turn: Turn, event: Any) -> None:
        match event.type:
            case "response.reasoning_text.delta":
                turn.reasoning += event.delta
                self._show("reasoning", event.delta)
            case "response.output_text.delta":
                turn.text += event.delta
                self._show("assistant", event.delta)
            case "response.output_item.added" if event.item.type == "function_call":
                self._show("call", f"{event.item.name} ")
            case "response.function_call_arguments.delta":
                self._show("call", event.delta)
            case "response.output_item.done" if event.item.type == "function_call":
                item = event.item
                turn.calls.append(Call(id=item.call_id, name=item.name, arguments=item.arguments))
