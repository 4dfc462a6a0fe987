"""The engines that are compared, each in a process of its own (`worker.py`), as the parent sees them."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vllm_gptoss.demo.server import summary

START_SECONDS = 900.0
"""A cold start of one engine takes 60 to 85 s on an idle H200 host; three at a time on few cores take longer."""
ANSWER_SECONDS = 600.0
END_SECONDS = 20.0


@dataclass(frozen=True)
class Variant:
    """What serves: which of vLLM's plugins are on, and options for the engine."""

    plugins: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "VLLM_PLUGINS": self.plugins, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}


VARIANTS = {
    # vLLM as it comes, which takes its Triton experts on Hopper; its other backend for MXFP4; this package.
    "stock": Variant(""),
    "marlin": Variant("", {"moe_backend": "marlin"}),
    "plugin": Variant("gptoss"),
}
OURS = "plugin"


class EngineError(RuntimeError):
    """An engine did not start, ended, or could not do what it was asked."""


class Engine:
    """A worker process; it ends with its `with` block, and by itself when this process is gone."""

    def __init__(self, name: str, options: Mapping[str, Any], log: Path, cache: Path | None = None) -> None:
        """Starts the process and does not wait for it; `options` are those of `vllm.LLM`.

        Triton keeps what it compiles in `cache`, if it is given, and else where it always does.
        """
        variant = VARIANTS[name]
        self.name, self.log = name, log
        self.facts: dict[str, Any] = {}
        self._text = ""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.worker", json.dumps({**options, **variant.options})],
                cwd=Path(__file__).parents[1],
                env=variant.environment | ({} if cache is None else {"TRITON_CACHE_DIR": str(cache)}),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=out,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS if kind is None else 1.0)
        with contextlib.suppress(ProcessLookupError):  # what is left of the session that it leads
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def wait_ready(self) -> None:
        """Raises: EngineError with the reason from the log."""
        self.facts = self._answer(START_SECONDS)

    def ask(self, do: str, **arguments: Any) -> Any:
        """The answer of a method of `worker.Engine`.

        Raises: EngineError.
        """
        self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._answer(ANSWER_SECONDS)
        if isinstance(answer, dict) and "error" in answer:
            raise EngineError(f"{self.name}: {answer['error']} (log: {self.log})")
        return answer

    def _answer(self, seconds: float) -> Any:
        end = time.monotonic() + seconds
        pipe = self._process.stdout.fileno()
        while "\n" not in self._text:
            if select.select([pipe], [], [], 1.0)[0]:
                if not (data := os.read(pipe, 1 << 20)):
                    raise EngineError(f"{self.name} ended{self._last_words()}")
                self._text += data.decode()
            elif self._process.poll() is not None:
                raise EngineError(f"{self.name} ended with exit code {self._process.returncode}{self._last_words()}")
            elif time.monotonic() > end:
                raise EngineError(f"{self.name} did not answer within {seconds:.0f} s{self._last_words()}")
        line, _, self._text = self._text.partition("\n")
        return json.loads(line)

    def _last_words(self) -> str:
        return summary(self.log.read_text(errors="replace")) + f"\n  (log: {self.log})"


@contextlib.contextmanager
def started(names: Iterable[str], options: Mapping[str, Any], logs: Path, own_caches: bool = False):
    """Engines by name, started side by side, all alive until the block ends; each with an empty cache if asked."""
    with contextlib.ExitStack() as stack:
        caches = Path(stack.enter_context(tempfile.TemporaryDirectory())) if own_caches else None
        engines = {
            name: stack.enter_context(Engine(name, options, logs / f"{name}.log", caches and caches / name))
            for name in names
        }
        for engine in engines.values():
            engine.wait_ready()
        yield engines
