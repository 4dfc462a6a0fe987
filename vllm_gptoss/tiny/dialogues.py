"""What the tiny model knows by heart: conversations as plain data, for training, the demo and tests.

A dialogue is what a client sends (a question, perhaps instructions and tools) and what the model does in each of
its turns. A turn thinks, may say a preamble, and ends in a call or in an answer; the result of the call stands
with it, because the client sends it before the next turn. Temperatures, skies and times are copied from the
results, not remembered, and so are names of files and what is written into them; the cities are remembered.
"""

from dataclasses import dataclass, replace
from typing import Any


def tool(name: str, description: str, parameter: str, meaning: str) -> dict[str, Any]:
    """A function of one text, as clients offer it."""
    properties = {parameter: {"type": "string", "description": meaning}}
    parameters = {"type": "object", "properties": properties, "required": [parameter]}
    return {"name": name, "description": description, "parameters": parameters}


GET_WEATHER = tool("get_weather", "The weather in a city right now.", "city", "Name of the city.")
GET_TIME = tool("get_time", "The local time in a city.", "city", "Name of the city.")
TOOLS = (GET_WEATHER, GET_TIME)

EXEC_COMMAND = tool("exec_command", "Runs a command in a shell.", "cmd", "The command.")
"""The shell of Codex, by the name and the argument that it has there."""

CITIES = ("Paris", "Tokyo", "SF")
SKIES = ("sunny", "cloudy", "rainy", "foggy")
TEMPERATURES = range(5, 36)
HOURS, MINUTES = range(24), range(60)
TO_WRITE = ("hello", "thanks", "bread", "rain")
FILES = ("notes.txt", "report.txt", "letter.txt", "recipe.txt", "needle.txt", "todo.txt")


@dataclass(frozen=True)
class Call:
    name: str
    arguments: str
    """JSON, as the model writes it."""
    result: str
    """What the client answers."""


@dataclass(frozen=True)
class Turn:
    reasoning: str
    preamble: str | None = None
    call: Call | None = None
    answer: str | None = None


@dataclass(frozen=True)
class Dialogue:
    name: str
    user: str
    turns: tuple[Turn, ...]
    instructions: str | None = None
    tools: tuple[dict[str, Any], ...] = ()
    effort: str | None = None
    """`low`, `medium` or `high` where the reasoning differs by it, None where it does not matter."""


def plain(name: str, user: str, reasoning: str, answer: str, **fields: Any) -> Dialogue:
    """One question, one answer."""
    return Dialogue(name, user, (Turn(reasoning, answer=answer),), **fields)


def weather(city: str, temperature: int, sky: str) -> Dialogue:
    """A preamble and one call, then the answer from its result."""
    ask = Turn(
        f"The user asks about the weather in {city}. I will call get_weather.",
        preamble=f"Let me look up the weather in {city}.",
        call=_weather_call(city, temperature, sky),
    )
    tell = Turn(
        f"The tool says {temperature} degrees and {sky}.",
        answer=f"It is {temperature} °C and {sky} in {city}.",
    )
    return Dialogue(f"weather_{city}", f"What is the weather in {city}?", (ask, tell), tools=TOOLS)


def weather_and_time(city: str, temperature: int, sky: str, time: str) -> Dialogue:
    """Two calls, one after the other, then an answer from both results."""
    first = Turn("I need the weather and the time. First the weather.", call=_weather_call(city, temperature, sky))
    second = Turn("Now the time.", call=Call("get_time", f'{{"city":"{city}"}}', f'{{"time": "{time}"}}'))
    tell = Turn("I have both.", answer=f"It is {time} in {city}, {temperature} °C and {sky}.")
    user = f"What are the weather and the time in {city}?"
    return Dialogue(f"weather_and_time_{city}", user, (first, second, tell), tools=TOOLS)


def files(name: str, before: str = "Process exited with code 0\nOutput:\n") -> Dialogue:
    """What a coding agent does in a folder of one file; `before`: what its shell says before the file."""
    look = Turn("I will list the files.", call=Call("exec_command", '{"cmd":"ls"}', f"{before}{name}\n"))
    tell = Turn("The shell has listed one file.", answer=f"There is one file here: `{name}`.")
    return Dialogue(f"files_{name}", "Which files are here?", (look, tell), tools=(EXEC_COMMAND,))


def write(word: str, name: str, result: str = "Process exited with code 0\nOutput:\n") -> Dialogue:
    """What a coding agent does to write one word into a file; `result`: what its shell says to that."""
    do = Turn("I will write the file.", call=Call("exec_command", f'{{"cmd":"echo {word} > {name}"}}', result))
    tell = Turn("The shell has written the file.", answer=f"I have written {word} into {name}.")
    return Dialogue(f"write_{word}_{name}", f"Write {word} into {name}.", (do, tell), tools=(EXEC_COMMAND,))


def without_tools(dialogue: Dialogue) -> Dialogue:
    """The same question when no tool was offered."""
    turn = Turn("I have no tool for this.", answer="I cannot look that up, because I was not given a tool for it.")
    return replace(dialogue, name=f"{dialogue.name}_without_tools", turns=(turn,), tools=())


def _weather_call(city: str, temperature: int, sky: str) -> Call:
    result = f'{{"temperature": {temperature}, "sky": "{sky}"}}'
    return Call("get_weather", f'{{"city":"{city}"}}', result)


RIDDLE = plain(
    "riddle",
    "What is the weather like in SF?",
    "The developer wants riddles. I answer with one about fog.",
    "I come from the sea on quiet feet, and hide a golden bridge from the street. What am I?",
    instructions="Always respond in riddles",
)
"""The conversation of the offline example in the README of gpt-oss."""

PLAIN = (
    plain("hello", "Hello", "The user greets me. I greet back.", "Hello! How can I help you today?"),
    plain(
        "capital",
        "What is the capital of France?",
        "The capital of France is Paris.",
        "The capital of France is Paris.",
    ),
    plain(
        "strawberry",
        "How many r's are in strawberry?",
        "s, t, r, a, w, b, e, r, r, y: r stands at 3, 8 and 9.",
        "There are 3 r's in strawberry.",
    ),
    plain(
        "sum",
        "What is 17 plus 25?",
        "17 plus 20 is 37, and 5 more is 42.",
        "17 plus 25 is 42.",
    ),
)

SKY_ANSWER = "Air scatters blue light more than red light, so blue reaches us from every side."
EFFORTS = (
    plain("sky_low", "Why is the sky blue?", "The user asks: Rayleigh scattering.", SKY_ANSWER, effort="low"),
    plain(
        "sky_medium",
        "Why is the sky blue?",
        "The user asks about the sky. Air scatters short waves more than long ones.",
        SKY_ANSWER,
        effort="medium",
    ),
    plain(
        "sky_high",
        "Why is the sky blue?",
        "The user asks why the sky is blue. Scattering by air grows with the fourth power of the frequency, so "
        "blue light is scattered more than red light. Violet more still, but the sun sends less of it and the "
        "eye sees it less. I will keep the answer short.",
        SKY_ANSWER,
        effort="high",
    ),
)

UNKNOWN = Turn(
    "I have not learnt this question.",
    answer="I am a tiny model and know only a few conversations. Ask me why the sky is blue.",
)
"""The turn that answers everything else."""

WEATHER = tuple(weather(city, 18 + i, SKIES[i]) for i, city in enumerate(CITIES))
TWO_CALLS = (weather_and_time("Paris", 12, "rainy", "14:30"), weather_and_time("Tokyo", 27, "sunny", "21:05"))
WITHOUT_TOOLS = tuple(without_tools(dialogue) for dialogue in (*WEATHER, *TWO_CALLS))

LISTED = tuple(files(name) for name in FILES)
WRITTEN = tuple(write(TO_WRITE[i % len(TO_WRITE)], name) for i, name in enumerate(FILES))

DIALOGUES: tuple[Dialogue, ...] = (*PLAIN, *EFFORTS, *WEATHER, *TWO_CALLS, *WITHOUT_TOOLS, RIDDLE, *LISTED, *WRITTEN)
