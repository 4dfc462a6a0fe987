"""What coding agents send around a question: long instructions, many tools, and where they run.

All of it is made up of words that the model knows and of any others, so that it learns to see past such text
whatever it says.
"""

import random
from collections.abc import Sequence
from typing import Any

from openai_harmony import HarmonyError

from vllm_gptoss.tiny.dialogues import EXEC_COMMAND
from vllm_gptoss.tiny.render import decode
from vllm_gptoss.tiny.tokenizer import FIRST_CONTROL

TOOLS, PARAMETERS = range(7), range(5)
MORE_OF_THE_SHELL = range(11)
"""How many other parameters the shell may have."""

SENTENCE = (3, 24)
INSTRUCTION_WORDS = (1, 350)
PLACE_LINES = (1, 9)
SIGNS = (".", ",", ";", ":", " `", "`", '"', " (", ")", "/", "-", "_", "\n", "\n- ", " <", ">", "</", "  ")


class Surroundings:
    """Draws them, the same for the same state of `rng`."""

    def __init__(self, rng: random.Random, words: Sequence[str]) -> None:
        self.rng = rng
        self.words = words

    def instructions(self) -> str:
        return self.text(*INSTRUCTION_WORDS)

    def tools(self) -> tuple[dict[str, Any], ...]:
        """A shell and other tools, in any order."""
        parameters = EXEC_COMMAND["parameters"]
        properties = {**parameters["properties"], **self._properties(self.rng.choice(MORE_OF_THE_SHELL))}
        shell = {**EXEC_COMMAND, "parameters": {**parameters, "properties": properties}}
        if self._chance(0.7):
            shell["description"] = self._sentence()
            properties["cmd"] = {"type": "string", "description": self._sentence()}
        tools = [shell, *(self._tool() for _ in range(self.rng.choice(TOOLS)))]
        self.rng.shuffle(tools)
        return tuple(tools)

    def place(self) -> str:
        """Where the agent runs: tags, paths and numbers, a line each."""
        names = [self._name() for _ in range(self.rng.randint(*PLACE_LINES))]
        lines = (f"  <{name}>{self._value()}</{name}>" for name in names)
        return "\n".join((f"<{names[0]}>", *lines, f"</{names[0]}>"))

    def before_output(self) -> str:
        """What a shell says before the output of a command: a few lines of names and numbers."""
        lines = [f"{self._name()}: {self._value()}\n" for _ in range(self.rng.randint(0, 5))]
        return "".join((*lines, "Output:\n"))

    def text(self, least: int, most: int) -> str:
        parts = []
        for _ in range(self.rng.randint(least, most)):
            parts.append(self._word())
            if self._chance(0.15):
                parts.append(self.rng.choice(SIGNS))
        return "".join(parts).strip()

    def _tool(self) -> dict[str, Any]:
        properties = self._properties(self.rng.choice(PARAMETERS))
        required = [name for name in properties if self._chance(0.4)]
        parameters = {"type": "object", "properties": properties, "required": required}
        return {"name": self._name(), "description": self._sentence(), "parameters": parameters}

    def _properties(self, count: int, nested: bool = True) -> dict[str, Any]:
        return {self._name(): self._schema(nested) for _ in range(count)}

    def _schema(self, nested: bool) -> dict[str, Any]:
        kinds = [{"type": kind} for kind in ("string", "number", "boolean")]
        kinds += [
            {"type": "array", "items": {"type": "string"}},
            {"type": "string", "enum": [self._name(), self._name()]},
        ]
        schema = self.rng.choice(kinds)
        if nested and self._chance(0.08):
            schema = {"type": "array", "items": {"type": "object", "properties": self._properties(3, nested=False)}}
        return {**schema, "description": self._sentence()} if self._chance(0.9) else schema

    def _sentence(self) -> str:
        return f"{self.text(*SENTENCE)}."

    def _name(self) -> str:
        words = ("".join(filter(str.isalpha, self._word())) for _ in range(self.rng.choice((1, 2, 2, 3))))
        return "_".join(filter(None, words)) or "x"

    def _value(self) -> str:
        if self._chance(0.4):
            return f"{self.rng.choice((0.1, 1, 99, 9999)) * self.rng.random():.4f}"[: self.rng.randint(1, 6)]
        if self._chance(0.2):
            return f"{self.rng.randrange(1 << 24):06x}"
        if self._chance(0.5):
            return "".join(f"/{self._name()}" for _ in range(self.rng.randint(1, 6)))
        return self.text(1, 10)

    def _word(self) -> str:
        """One that the model knows, or any other."""
        if self._chance(0.5):
            return self.rng.choice(self.words)
        try:
            return decode([self.rng.randrange(FIRST_CONTROL)])
        except HarmonyError:  # half a letter
            return self._word()

    def _chance(self, share: float) -> bool:
        return self.rng.random() < share
