"""The two functions that the model may call, and the door through which it calls them."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from vllm_gptoss.demo.turn import Call, DemoError

STATIONS = {"Paris": (21, "cloudy"), "Tokyo": (27, "sunny"), "SF": (14, "foggy")}
"""Degrees and sky. Made up: the demo asks no weather service."""

UTC_OFFSETS = {"Tokyo": timedelta(hours=9)}
"""Without daylight saving time, so that no time zone database is needed."""


def get_weather(city: str) -> dict[str, Any]:
    temperature, sky = STATIONS[city]
    return {"temperature": temperature, "sky": sky}


def get_time(city: str) -> dict[str, Any]:
    return {"time": (datetime.now(UTC) + UTC_OFFSETS[city]).strftime("%H:%M")}


FUNCTIONS: dict[str, Callable[[str], dict[str, Any]]] = {"get_weather": get_weather, "get_time": get_time}


def run(call: Call) -> dict[str, Any]:
    """The result of `call`.

    Raises: DemoError when the model asked for another function, or with arguments that it does not take.
    """
    try:
        return FUNCTIONS[call.name](**json.loads(call.arguments))
    except (KeyError, TypeError, ValueError) as error:
        raise DemoError(f"the call {call.name}({call.arguments}) cannot be run: {error!r}") from error
