"""One interpreter from its start to its end: the parent's side of `worker.py`.

All methods belong to one event loop. Whatever way an interpreter ends, its process group is killed, its process waited
for, and its folder removed, before `buried` is done; should the server be killed outright, the process dies with it and
the folder stays in the system's folder for temporary files. Between two calls the process is stopped, so that no thread
of it runs on. What a worker says is not trusted: its code can say anything in its place.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from vllm_gptoss.tools.confine import ALL
from vllm_gptoss.tools.limits import Limits
from vllm_gptoss.tools.output import Output
from vllm_gptoss.tools.workdir import remove, usage
from vllm_gptoss.tools.worker import CONTAINED, DONE, command

logger = logging.getLogger(__name__)

START_SECONDS = 30.0
WATCH_SECONDS = 0.1
"""Between two looks at the files and threads of an interpreter that runs."""
MOST_CODE = 64 << 10
"""Bytes of a cell; it fits into a socket's buffer, so that sending never waits."""
MOST_SAID = 4096
"""Bytes that a worker has to say at once."""
CHUNK = 1 << 16
LOOKS = 10
"""For the end of a process whose socket is closed; memory takes a while to be given back."""
FOLDER_PREFIX = "vllm-gptoss-python-"


class InterpreterGoneError(RuntimeError):
    """The interpreter has ended, and with it what it held; the message says why."""


class NotContainedError(RuntimeError):
    """This machine can't contain an interpreter as it must be; the message says in what."""


class Interpreter:
    """`await start()` once, then `await run(code)` any number of times, then `end()`; `on_buried` is called last."""

    def __init__(self, limits: Limits, on_buried: Callable[[], None]) -> None:
        self.limits = limits
        self.output = Output(limits.output_bytes)
        """Of the last call, as far as it has come."""
        self.buried: asyncio.Future[None] | None = None
        """Done when the process is reaped and the folder removed; None up to `end`."""
        self._loop = asyncio.get_running_loop()
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._on_buried = on_buried
        self._said = b""
        self._is_mute = False
        self._word: asyncio.Future[str] | None = None

    async def start(self, uncontained: frozenset[str] = frozenset()) -> None:
        """Raises: NotContainedError when more is uncontained than is named; InterpreterGoneError when it ends at once.

        OSError when there is no room for a folder or a process.
        """
        try:
            self._folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX)).resolve()
            self._launch()
            words = (await self._hear(time.monotonic(), START_SECONDS)).split()
            if words[:1] != [CONTAINED]:
                raise InterpreterGoneError("it did not start")
            if missing := ALL - set(words[1:]) - uncontained:
                raise NotContainedError(
                    f"this machine can't contain code in: {', '.join(sorted(missing))}. It takes Linux on x86_64 or "
                    "aarch64 with seccomp for network and processes, and Landlock (5.13 or later) for files"
                )
            self._signal(signal.SIGSTOP)
        except BaseException:
            self.end()
            raise

    async def run(self, code: str) -> None:
        """Run a cell; what it prints is in `output`.

        Raises: InterpreterGoneError when the cell, or this call of it, ended the interpreter; ValueError for a cell
        that is too long or no Unicode.
        """
        cell = code.encode()
        if len(cell) > MOST_CODE:
            raise ValueError(f"the code has {len(cell):,} bytes; {MOST_CODE:,} are possible in one call")
        if self.buried is not None:
            raise InterpreterGoneError("it has ended already")
        self.output = Output(self.limits.output_bytes)
        try:
            self._signal(signal.SIGCONT)
            frame = b"%d\n%s" % (len(cell), cell)
            if self._control.send(frame) != len(frame):
                raise InterpreterGoneError("it does not read code any more")
            start = time.monotonic()
            while await self._hear(start, self.limits.wall_seconds) != DONE:
                pass
            self._signal(signal.SIGSTOP)
            self._read_output()
        except OSError as error:
            self.end()
            raise InterpreterGoneError(str(error)) from error
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Kill the process at once; the rest happens in a thread and is over when `buried` is done."""
        if self.buried is not None:
            return
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._loop.remove_reader(self._pipe)
            self._loop.remove_reader(self._control)
            self._read_output()
            os.close(self._pipe)
            self._control.close()
        self.buried = self._loop.run_in_executor(None, self._bury)
        self.buried.add_done_callback(lambda _: self._on_buried())

    def _bury(self) -> None:
        if self._process is not None:
            self._process.wait()
        if self._folder is not None:
            try:
                remove(self._folder)
            except OSError as error:
                logger.warning("The folder of an interpreter can't be removed: %s", error)

    def _launch(self) -> None:
        self._control, theirs = socket.socketpair()
        self._pipe, outputs = os.pipe()
        try:
            self._process = subprocess.Popen(
                command(self.limits, str(self._folder), theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=outputs,
                stderr=outputs,
                pass_fds=(theirs.fileno(),),
                cwd=self._folder,
                env={"PATH": os.defpath, "LANG": "C.UTF-8", "HOME": str(self._folder)},
                start_new_session=True,
            )
        except BaseException:
            os.close(self._pipe)
            self._control.close()
            raise
        finally:
            os.close(outputs)
            theirs.close()
        os.set_blocking(self._pipe, False)
        self._control.setblocking(False)
        self._loop.add_reader(self._pipe, self._on_output)
        self._loop.add_reader(self._control, self._on_word)

    async def _hear(self, start: float, seconds: float) -> str:
        """The worker's next word, which may take `seconds` from `start` on.

        Raises: InterpreterGoneError when it ends instead, takes too long or takes too much.
        """
        self._word = self._loop.create_future()
        self._hand_on()
        end = start + seconds
        while True:
            await asyncio.wait({self._word}, timeout=min(WATCH_SECONDS, max(0.0, end - time.monotonic())))
            if self._word.done():
                if word := self._word.result():
                    return word
                raise InterpreterGoneError(await self._cause_of_death())
            if excess := self._excess():
                raise InterpreterGoneError(excess)
            if time.monotonic() >= end:
                raise InterpreterGoneError(f"it took longer than {seconds:g} s")

    def _on_output(self) -> None:
        try:
            data = os.read(self._pipe, CHUNK)
        except BlockingIOError:
            return
        self.output.write(data)
        # At its end; or a flood, which is left in the pipe so that its writer waits there until it is ended.
        if not data or self.output.size > self.limits.flood_bytes:
            self._loop.remove_reader(self._pipe)

    def _read_output(self) -> None:
        """What was written before a word came lies in the pipe by then."""
        with contextlib.suppress(BlockingIOError):
            while self.output.size <= self.limits.flood_bytes and (data := os.read(self._pipe, CHUNK)):
                self.output.write(data)

    def _on_word(self) -> None:
        try:
            data = self._control.recv(MOST_SAID)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._said += data
        if not data or len(self._said) > MOST_SAID:
            self._is_mute = True
            self._loop.remove_reader(self._control)
        self._hand_on()

    def _hand_on(self) -> None:
        """Give the first line said to who waits for it; an empty word says that no more will come."""
        if self._word is None or self._word.done():
            return
        if b"\n" in self._said:
            word, _, self._said = self._said.partition(b"\n")
            self._word.set_result(word.decode(errors="replace"))
        elif self._is_mute:
            self._word.set_result("")

    def _excess(self) -> str | None:
        """What there is too much of."""
        limits = self.limits
        if self.output.size > limits.flood_bytes:
            return f"the code printed more than {limits.flood_bytes >> 20} MB"
        files, size = usage(self._folder, limits.files)
        if files > limits.files:
            return f"the code made more than {limits.files} files and folders, or nested them too deep"
        if size > limits.disk_bytes:
            return f"the files of the code take more than {limits.disk_bytes >> 20} MB"
        if self._threads() > limits.threads:
            return f"the code started more than {limits.threads} threads"
        return None

    def _threads(self) -> int:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
                if line.startswith("Threads:"):
                    return int(line.split()[1])
        return 0

    async def _cause_of_death(self) -> str:
        """Its socket is closed: by its end, or by its code."""
        for _ in range(LOOKS):
            # It stays a zombie, so that its number remains its own until all of its group is killed.
            death = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if death is not None:
                break
            await asyncio.sleep(WATCH_SECONDS)
        else:
            return "the code has cut its connection"
        if death.si_code == os.CLD_EXITED:
            return f"the code ended it with exit code {death.si_status}"
        if death.si_status in (signal.SIGXCPU, signal.SIGKILL):
            return f"it had used its {self.limits.cpu_seconds} s of CPU time, or the machine is out of memory"
        return f"it was ended by signal {death.si_status} ({signal.strsignal(death.si_status)})"

    def _signal(self, number: int) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
