"""`vllm serve` as a child that never outlives its `with` block.

The API server starts an engine process, and that one may start workers. All of them stay in the session
that the API server leads, so that whatever is left after an orderly end is found there and killed.
Linux only, like vLLM's wheel: it reads `/proc` and asks the kernel for a signal when this process dies.
"""

import contextlib
import ctypes
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
STOP_SECONDS = 10.0
"""Time that the server has for an orderly end; vLLM needs about 1 s, or never ends while its engine starts."""

_PR_SET_PDEATHSIG = 1
_PREFIX = re.compile(r"^(?:\(\w+ pid=\d+\) )?(?:ERROR \S+ \S+ \[[^]]*\] )?")
"""What vLLM puts before each line: the process, and the head of a log record."""
_ERRORS_SHOWN = 3
_LINES_SHOWN = 10


class ServerError(RuntimeError):
    """The server did not come up, ended too early, or left a process behind."""


class Server:
    """A command that serves HTTP on `port` of the loopback interface, with its output in `log`."""

    def __init__(self, command: Sequence[str], port: int, log: Path, env: Mapping[str, str] | None = None) -> None:
        self.command = list(command)
        self.port = port
        self.log = log
        self.env = env
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def __enter__(self) -> Self:
        libc = ctypes.CDLL(None)
        with self.log.open("wb") as out:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=self.env,
                start_new_session=True,
                # Should this process be killed outright, the server is still asked to end.
                preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM),
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def wait_healthy(self, seconds: float) -> None:
        """Return once `/health` answers 200.

        Raises: ServerError when the server ends, or does not answer within `seconds`.
        """
        end = time.monotonic() + seconds
        while not self._healthy():
            self.check_alive()
            if time.monotonic() > end:
                raise ServerError(f"the server was not ready within {seconds:.0f} s{self._last_words()}")
            time.sleep(0.1)

    def check_alive(self) -> None:
        """Raises: ServerError with the reason from the log when the server has ended."""
        if self._process is None:
            raise ServerError("the server was not started")
        if (code := self._process.poll()) is not None:
            raise ServerError(f"the server ended with exit code {code}{self._last_words()}")

    def stop(self) -> None:
        """End every process of the server: in order within STOP_SECONDS, by SIGKILL what is left then.

        Raises: ServerError when one survives that.
        """
        if self._process is None:
            return
        with _no_interrupts():
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
            end = time.monotonic() + STOP_SECONDS
            while left := session_members(self._process.pid):
                for pid in left:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                if time.monotonic() > end:
                    raise ServerError(f"processes of the server survived SIGKILL: {left}")
                self._process.poll()
                time.sleep(0.02)
            self._process.wait()

    def _healthy(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _last_words(self) -> str:
        return summary(self.log.read_text(errors="replace"))


def serve_command(checkpoint: Path, port: int, name: str, *options: str) -> list[str]:
    """The command line of `vllm serve` in the environment of this interpreter."""
    # The module and not the script beside the interpreter: it is there however vLLM was installed.
    serve = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(checkpoint)]
    return [*serve, "--host", HOST, "--port", str(port), "--served-model-name", name, *options]


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """A free port that nobody else is given while the block runs.

    Linux lets a second socket bind the port when both set SO_REUSEADDR, which vLLM does. This one never
    listens, so that connections are refused until the server itself answers.
    """
    with socket.socket() as placeholder:
        placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        placeholder.bind((HOST, 0))
        yield placeholder.getsockname()[1]


def session_members(session: int) -> list[int]:
    """Process ids of the session that still run; a zombie waits for its parent and counts as gone."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name is in parentheses and may hold any character; state, parent, group, session follow.
            state, _, _, owner = stat.read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):  # it ended meanwhile
            continue
        if int(owner) == session and state not in "ZX":
            members.append(int(stat.parent.name))
    return members


def summary(log: str) -> str:
    """What a log says about a failure: the errors that its tracebacks end in, else its last lines."""
    errors: list[str] = []
    in_traceback = False
    for line in log.splitlines():
        text = _PREFIX.sub("", line)
        if text.startswith("Traceback (most recent call last)"):
            in_traceback = True
        elif in_traceback and text[:1] not in ("", " "):
            in_traceback = False
            if text not in errors:
                errors.append(text)
    lines = errors[:_ERRORS_SHOWN] or log.splitlines()[-_LINES_SHOWN:] or ["(its log is empty)"]
    return "".join(f"\n  | {line[:300]}" for line in lines)


@contextlib.contextmanager
def _no_interrupts() -> Iterator[None]:
    """Hold back the signals that would cut a clean-up short, until it is done."""
    held = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
