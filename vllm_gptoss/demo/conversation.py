"""Holds a conversation over either API, and compares each turn with what the tiny model has learnt."""

import json
from collections.abc import Callable
from typing import Any, Protocol

from vllm_gptoss.demo import tools
from vllm_gptoss.demo.turn import Call, DemoError, Show, Turn
from vllm_gptoss.tiny import dialogues

Results = dict[str, Any]
Learnt = Callable[[Results], dialogues.Dialogue]


class Api(Protocol):
    """One conversation over one of the APIs."""

    def ask(self, text: str) -> Turn: ...
    def give(self, call: Call, result: str) -> Turn: ...


def weather_in_paris(results: Results) -> dialogues.Dialogue:
    """One call."""
    return dialogues.weather("Paris", results["temperature"], results["sky"])


def weather_and_time_in_tokyo(results: Results) -> dialogues.Dialogue:
    """Two calls, one after the other."""
    return dialogues.weather_and_time("Tokyo", results["temperature"], results["sky"], results["time"])


def hold(api: Api, learnt: Learnt, show: Show) -> None:
    """Ask, run the tool that the model calls, give it the result, until it has answered.

    The tools decide what the dialogue is about, so `learnt` is read again after each result.

    Raises: DemoError at the first turn that differs from the learnt one.
    """
    results: Results = dict.fromkeys(("temperature", "sky", "time"), "not asked for yet")
    question = learnt(results)
    show("user", question.user)
    turn = api.ask(question.user)
    for number in range(len(question.turns)):
        expected = learnt(results).turns[number]
        check(turn, expected)
        if expected.call is not None:
            result = tools.run(turn.calls[0])
            results |= result
            show("result", json.dumps(result))
            turn = api.give(turn.calls[0], json.dumps(result))


def check(turn: Turn, expected: dialogues.Turn) -> None:
    """Raises: DemoError naming what the turn lacks or says otherwise."""
    calls = [(call.name, _parsed(call.arguments)) for call in turn.calls]
    learnt = [(expected.call.name, json.loads(expected.call.arguments))] if expected.call else []
    for what, found, wanted in (
        ("reasoning", turn.reasoning, expected.reasoning),
        ("tool calls", calls, learnt),
        ("text", turn.text, expected.preamble or expected.answer or ""),
    ):
        if found != wanted:
            raise DemoError(f"the model's {what} should be {wanted!r}, but is {found!r}")


def _parsed(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments
