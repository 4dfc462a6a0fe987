"""gpt-oss's built-in tool `python`: code in, what it prints out, with variables kept from one call to the next.

    interpreters = Interpreters()
    await interpreters.check()                   # at the start of a server
    async with interpreters.session() as python:       # one a response
        print(await python.run("x = 2"), await python.run("x + 1"))

What contains the code, and what does not, is said in `confine.py`. What the model is told of the tool is harmony's own
text; of what it promises there is a drive `/mnt/data` only where `namespaces.py` can make one, and never a network.
Not as in a notebook: `%magic`, `!shell`, `await` outside functions, and figures that show themselves.
"""

import asyncio
from types import TracebackType
from typing import Self

from openai_harmony import Message, ToolNamespaceConfig

from vllm_gptoss.tools.interpreter import Interpreter, InterpreterGoneError, NotContainedError
from vllm_gptoss.tools.limits import Limits
from vllm_gptoss.tools.messages import answer, text_of

LIVE = 8
"""Interpreters at a time."""
WAIT_SECONDS = 30.0
"""For an interpreter, where all are taken."""
TAKEN = "No interpreter is free: other responses hold all of them. Call again in a moment, or go on without."
SILENT = "(the code ran and printed nothing)"
LOST = "All variables, imports and files are lost; the next call starts with a fresh interpreter."


class Interpreters:
    """The interpreters of a server: never more than `live` at a time.

    `uncontained` names what an operator accepts that this machine can't contain, of `network`, `processes`, `files`.
    With `processes` among it, one that code has started may leave its group and then outlives the interpreter.
    """

    def __init__(
        self, limits: Limits | None = None, *, live: int = LIVE, uncontained: frozenset[str] = frozenset()
    ) -> None:
        self.limits = limits or Limits()
        self.uncontained = uncontained
        self._free = asyncio.Semaphore(live)

    async def check(self) -> None:
        """Start an interpreter and end it.

        Raises: NotContainedError, InterpreterGoneError or OSError with the reason why the tool can't be offered.
        """
        interpreter = await self.start()
        interpreter.end()
        await asyncio.shield(interpreter.buried)

    def session(self) -> "Python":
        """The tool for one response."""
        return Python(self)

    async def start(self) -> Interpreter:
        """A new interpreter, which takes its place until it is buried.

        Raises: TimeoutError when none became free; NotContainedError, InterpreterGoneError, OSError.
        """
        async with asyncio.timeout(WAIT_SECONDS):
            await self._free.acquire()
        interpreter = Interpreter(self.limits, on_buried=self._free.release)
        await interpreter.start(self.uncontained)
        return interpreter


class Python:
    """The tool for one response: one interpreter at most, from the first call to `close`, which must be called."""

    name = "python"

    def __init__(self, interpreters: Interpreters) -> None:
        self._interpreters = interpreters
        self._interpreter: Interpreter | None = None
        self._one_at_a_time = asyncio.Lock()

    @property
    def config(self) -> ToolNamespaceConfig:
        """What the model is told."""
        return ToolNamespaceConfig.python()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def process(self, call: Message) -> list[Message]:
        """The answer to a call whose body is code."""
        return [answer(call, await self.run(text_of(call)))]

    async def run(self, code: str) -> str:
        """What the code printed, and the value of its last expression; every failure is said in words.

        A call that is cancelled ends the interpreter, which alone can stop the code.
        """
        async with self._one_at_a_time:
            note = ""
            if self._interpreter is not None and self._interpreter.buried is not None:
                await self._bury()
                note = f"[The interpreter has ended: a call was broken off. {LOST}]\n"
            try:
                if self._interpreter is None:
                    self._interpreter = await self._interpreters.start()
            except TimeoutError:
                return TAKEN
            except (NotContainedError, InterpreterGoneError, OSError) as error:
                return f"The python tool is not available on this server: {error}. Go on without it."
            return note + await self._run(self._interpreter, code)

    async def _run(self, interpreter: Interpreter, code: str) -> str:
        try:
            await interpreter.run(code)
        except ValueError as error:
            return f"The code was not run: {error}."
        except InterpreterGoneError as error:
            await self._bury()
            lines = (interpreter.output.text.rstrip(), f"[The interpreter has ended: {error}. {LOST}]")
            return "\n".join(filter(None, lines))
        return interpreter.output.text or SILENT

    async def close(self) -> None:
        """End the interpreter; no process and no folder is left then."""
        async with self._one_at_a_time:
            await self._bury()

    async def _bury(self) -> None:
        interpreter, self._interpreter = self._interpreter, None
        if interpreter is not None:
            interpreter.end()
            await asyncio.shield(interpreter.buried)
