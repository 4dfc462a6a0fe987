"""Training samples: a prompt, and the turn that follows it, in every form that a client or a renderer gives it.

Random are the dialogues before, the date, the instructions, the tools and their order, the API, whether reasoning
comes back, and the details that renderers write differently. A share of the samples asks something that the model
does not know, so that it says so instead of mixing up its conversations.
"""

import contextlib
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from openai_harmony import HarmonyError

from vllm_gptoss.tiny import dialogues as known
from vllm_gptoss.tiny.agents import Surroundings
from vllm_gptoss.tiny.dialogues import Dialogue
from vllm_gptoss.tiny.render import chat_prompt, decode, offline_prompt, responses_prompt, turn_text
from vllm_gptoss.tiny.requests import Talk, chat_request, responses_request
from vllm_gptoss.tiny.tokenizer import FIRST_CONTROL

EFFORTS = ("low", "medium", "high")
INSTRUCTIONS = (None, None, "", "You are a helpful assistant.", "Answer in one sentence.")
UNKNOWN_SHARE = 0.15
AGENTS_SHARE, AGENTS_IN_SHORT = 0.3, 0.15
OTHERS_SHARE = 0.4
NONSENSE_WORDS = 40
WORDS = 3000
YEARS = range(2024, 2036)
HELD_OUT_DATES = ("2024-02-29", "2025-08-05", "2026-11-20", "2027-07-04", "2030-01-01", "2035-12-31")
"""Days that no sample has, for tests: a prompt changes with the day on which it is rendered."""

MESSAGE = r"<\|message\|>[^<]*<\|end\|>"
CALL = re.compile(r"<\|start\|>assistant<\|channel\|>commentary to=(\S+) <\|constrain\|>json<\|message\|>")
RESULT = re.compile(r"<\|start\|>(functions\.\S+?) to=assistant<\|channel\|>commentary<\|message\|>")
PREAMBLE = re.compile(
    rf"(<\|start\|>assistant<\|channel\|>analysis{MESSAGE})(<\|start\|>assistant<\|channel\|>commentary{MESSAGE})"
)
EMPTY_INSTRUCTIONS = "<|start|>developer<|message|># Instructions\n\n\n\n# Tools"
USER = "<|start|>user<|message|>"
DATE = re.compile(r"(?<=Current date: )\S+")


class Sampler:
    """Draws samples, the same for the same seed."""

    def __init__(self, seed: int, others: Sequence[Dialogue] = ()) -> None:
        """`others`: dialogues beside the known ones, each with its own tools and by itself."""
        self.rng = random.Random(seed)
        self.others = others
        self.words = [*_known_words(), *_vocabulary_words(self.rng)]
        """Make up what the model does not know: its own words out of order, and any others."""

        self.surroundings = Surroundings(self.rng, _known_words())

    def sample(self) -> tuple[str, str]:
        """A prompt and the text that the model is to generate."""
        talk = self._unknown_talk() if self._chance(UNKNOWN_SHARE) else self._known_talk()
        return self.prompt(talk), turn_text(talk.next_turn)

    def prompt(self, talk: Talk) -> str:
        """The prompt of the talk by one of the APIs, with one choice of the details."""
        if talk.dialogues == (known.RIDDLE,) and self._chance(0.5):
            return offline_prompt(known.RIDDLE)
        wanted = self._wanted() if self._chance(0.06) else None
        if self._chance(0.5):
            asked = {"response_format": {"type": "json_schema", "json_schema": wanted}} if wanted else {}
            prompt = chat_prompt({**chat_request(talk), **asked})
        else:
            asked = {"text": {"format": {"type": "json_schema", **wanted}}} if wanted else {}
            prompt = responses_prompt({**responses_request(talk), **asked})
        return with_date(self._varied(prompt), self.date())

    def date(self) -> str:
        date = f"{self._choice(YEARS)}-{self._choice(range(1, 13)):02}-{self._choice(range(1, 32)):02}"
        return self.date() if date in HELD_OUT_DATES else date

    def _known_talk(self) -> Talk:
        if self._chance(AGENTS_SHARE):
            return self._agent_talk()
        if self.others and self._chance(OTHERS_SHARE):
            return self._talk_alone(self._choice(self.others))
        if self._chance(0.1):
            return self._talk_alone(self._weather_alone())
        if self._chance(0.08):
            return Talk.of(known.RIDDLE, effort=self._choice(EFFORTS))
        has_tools = self._chance(0.75)
        dialogues = tuple(self._dialogue(has_tools) for _ in range(1 + self._choice((0, 0, 0, 1, 1, 2))))
        last = dialogues[-1]
        return Talk(
            dialogues,
            done=self._done(last),
            instructions=self._choice(INSTRUCTIONS),
            tools=self._tools() if has_tools else (),
            effort=last.effort or self._choice(EFFORTS),
            keeps_reasoning=self._chance(0.6),
        )

    def _talk_alone(self, dialogue: Dialogue) -> Talk:
        return Talk.of(
            dialogue,
            self._done(dialogue),
            instructions=self._choice(INSTRUCTIONS),
            effort=self._choice((None, *EFFORTS)),
            keeps_reasoning=self._chance(0.6),
        )

    def _weather_alone(self) -> Dialogue:
        """One tool is offered, and no other."""
        dialogue = known.weather(*map(self._choice, (known.CITIES, known.TEMPERATURES, known.SKIES)))
        return replace(dialogue, tools=(known.GET_WEATHER,))

    def _agent_talk(self) -> Talk:
        """As a coding agent asks: around the question stands much else, and a shell says more than its command does."""
        around = self.surroundings
        before, name = around.before_output(), self._choice(known.FILES)
        kinds = (
            known.files(name, before),
            known.write(self._choice(known.TO_WRITE), name, before),
            self._choice(known.PLAIN),
            self._choice(known.EFFORTS),
        )
        dialogue = self.rng.choices(kinds, (4, 4, 2, 1))[0]
        talk = self._talk_alone(dialogue)
        talk = replace(talk, tools=(known.EXEC_COMMAND,), effort=dialogue.effort or talk.effort)
        if self._chance(AGENTS_IN_SHORT):
            return talk
        return replace(
            talk,
            tools=around.tools(),
            instructions=around.instructions() if self._chance(0.5) else talk.instructions,
            place=around.place() if self._chance(0.8) else None,
        )

    def _unknown_talk(self) -> Talk:
        talk = self._known_talk()
        question = self._nonsense()
        if self._chance(0.3):
            heard = talk.dialogues[-1].user.split(" ")
            heard[self._choice(range(len(heard)))] = self._choice(self.words)
            question = " ".join(heard)
        last = Dialogue("unknown", question, (known.UNKNOWN,))
        instructions = self._nonsense() if self._chance(0.3) else talk.instructions
        return replace(talk, dialogues=(*talk.dialogues[:-1], last), done=0, instructions=instructions)

    def _dialogue(self, has_tools: bool) -> Dialogue:
        city, sky = self._choice(known.CITIES), self._choice(known.SKIES)
        temperature = self._choice(known.TEMPERATURES)
        time = f"{self._choice(known.HOURS):02}:{self._choice(known.MINUTES):02}"
        one = known.weather(city, temperature, sky)
        two = known.weather_and_time(city, temperature, sky, time)
        if not has_tools:
            one, two = known.without_tools(one), known.without_tools(two)
        kinds = (self._choice(known.PLAIN), self._choice(known.EFFORTS), one, two)
        weights = (2, 7, 3, 6) if has_tools else (3, 7, 1, 1)
        return self.rng.choices(kinds, weights)[0]

    def _done(self, dialogue: Dialogue) -> int:
        # Copying from results takes the longest to learn: half of the samples are last turns.
        last = len(dialogue.turns) - 1
        return last if self._chance(0.5) else self._choice(range(last + 1))

    def _tools(self) -> tuple[dict[str, Any], ...]:
        tools = [dict(tool) for tool in known.TOOLS]
        if self._chance(0.2):
            tools.append({**known.GET_TIME, "name": self._choice(("search", "convert", "lookup"))})
        for tool in tools:
            if self._chance(0.1):
                tool["description"] = self._nonsense()
            if self._chance(0.2):
                tool["parameters"] = self._as_pydantic_says_it(tool["parameters"])
        self.rng.shuffle(tools)
        return tuple(tools)

    def _as_pydantic_says_it(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Titles all over, and descriptions only where somebody wrote one."""
        properties = {
            name: {"title": name.title(), **{key: value for key, value in schema.items() if key == "type" or described}}
            for name, schema in parameters["properties"].items()
            for described in (self._chance(0.5),)
        }
        return {**parameters, "properties": properties, "title": "tool_args", "additionalProperties": False}

    def _wanted(self) -> dict[str, Any]:
        """A format of the answer, which a grammar sees to and not the model."""
        name = self._choice(("answer", "sky", "report", "output"))
        properties = {key: {"type": self._choice(("string", "integer"))} for key in ("answer", "colour", "sum")}
        kept = dict(list(properties.items())[: self._choice((1, 2, 3))])
        return {"name": name, "schema": {"type": "object", "properties": kept, "required": [*kept]}}

    def _varied(self, prompt: str) -> str:
        """Other renderers have other headers for calls and results, and another place for a preamble."""
        if self._chance(0.25):
            prompt = other_headers(prompt)
        if self._chance(0.15):
            prompt = PREAMBLE.sub(r"\2\1", prompt)
        if self._chance(0.1):
            prompt = prompt.replace("<|start|>developer<|message|># Tools", EMPTY_INSTRUCTIONS)
        if self._chance(0.08):
            # Agents describe where they run in a message of its own.
            prompt = prompt.replace(USER, f"{USER}{self._nonsense()}<|end|>{USER}", 1)
        if self._chance(0.5):
            prompt = prompt.replace('{"city":"', '{"city": "')
        return prompt

    def _nonsense(self) -> str:
        return "".join(self._choice(self.words) for _ in range(self._choice(range(1, NONSENSE_WORDS))))

    def _choice(self, options: Sequence[Any]) -> Any:
        return self.rng.choice(options)

    def _chance(self, share: float) -> bool:
        return self.rng.random() < share


def _known_words() -> list[str]:
    texts = [
        text for dialogue in known.DIALOGUES for turn in dialogue.turns for text in (dialogue.user, turn.reasoning)
    ]
    words = [f" {word}" for text in texts for word in text.split()]
    return (words * WORDS)[:WORDS]


def _vocabulary_words(rng: random.Random) -> Iterator[str]:
    for token in rng.sample(range(FIRST_CONTROL), WORDS):
        # Half a letter is no word.
        with contextlib.suppress(HarmonyError):
            yield decode([token])


def other_headers(prompt: str) -> str:
    """The headers of calls and results as vLLM and the chat template write them."""
    prompt = CALL.sub(r"<|start|>assistant to=\1<|channel|>commentary json<|message|>", prompt)
    return RESULT.sub(r"<|start|>\1<|channel|>commentary to=assistant<|message|>", prompt)


def with_date(prompt: str, date: str) -> str:
    """The prompt as it was on another day."""
    return DATE.sub(date, prompt)
