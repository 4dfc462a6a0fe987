"""The process in which a model's code runs: it shuts itself in, then runs one cell after the other.

Its sides: standard input is closed; standard output and error are one pipe, which the parent reads; over a socket come
cells and go words that begin a line: `contained network processes files`, once, then `done` after each cell.

    cell: its length in bytes, as ASCII digits and a newline, then UTF-8
"""

import ast
import ctypes
import dataclasses
import io
import json
import linecache
import os
import socket
import sys
import traceback
import types

from vllm_gptoss.tools.confine import confine
from vllm_gptoss.tools.limits import Limits

CONTAINED, DONE = "contained", "done"


def command(limits: Limits, folder: str, control: int) -> list[str]:
    """The command line of a worker; `control` is the number of its socket."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    # -I: no variable of the environment and no folder of the caller has a say in what is imported.
    boot = f"import sys; sys.path.insert(0, {root!r}); from vllm_gptoss.tools import worker; worker.main()"
    settings = json.dumps([dataclasses.asdict(limits), folder, control, os.getpid()])
    return [sys.executable, "-I", "-c", boot, settings]


def main() -> None:
    values, folder, control, parent = json.loads(sys.argv[1])
    contained = confine(Limits(**values), folder, parent)
    connection = socket.socket(fileno=control)
    sys.path[0] = folder
    sys.argv = [""]
    shell = Shell()
    connection.sendall(f"{' '.join([CONTAINED, *sorted(contained)])}\n".encode())
    while (cell := _receive(connection)) is not None:
        shell.run(cell)
        connection.sendall(f"{DONE}\n".encode())


def _receive(connection: socket.socket) -> str | None:
    head = b""
    while not head.endswith(b"\n"):
        if not (byte := connection.recv(1)):
            return None
        head += byte
    body = b""
    while len(body) < int(head):
        if not (more := connection.recv(int(head) - len(body))):
            return None
        body += more
    return body.decode()


class Shell:
    """Runs cells in one `__main__`, as a notebook does: the value of a last expression is shown."""

    def __init__(self) -> None:
        self.count = 0
        self.module = types.ModuleType("__main__")
        sys.modules["__main__"] = self.module
        self._libc = ctypes.CDLL(None)
        self._streams = os.dup(1), os.dup(2)

    def run(self, cell: str) -> None:
        """Never raises: what goes wrong is printed as a notebook prints it."""
        self.count += 1
        self._open_streams()
        name = f"<cell {self.count}>"
        linecache.cache[name] = (len(cell), None, [f"{line}\n" for line in cell.split("\n")], name)
        try:
            self._execute(cell, name)
        except SystemExit as error:
            print(f"SystemExit: {error.code}", file=sys.stderr)
        except BaseException as error:
            _show(error, name)
        self._flush()

    def _execute(self, cell: str, name: str) -> None:
        tree = ast.parse(cell, name)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, name, "exec"), self.module.__dict__)
        if last is None:
            return
        value = eval(compile(ast.Expression(last.value), name, "eval"), self.module.__dict__)
        if value is not None:
            self.module.__dict__["_"] = value
            print(repr(value))

    def _open_streams(self) -> None:
        """New ones for each cell, whatever the one before has closed or put in their place."""
        for number, (kept, stream) in enumerate(zip(self._streams, ("stdout", "stderr"), strict=True), 1):
            os.dup2(kept, number)
            raw = io.FileIO(number, "w", closefd=False)
            file = io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", "backslashreplace", line_buffering=True)
            setattr(sys, stream, file)
            setattr(sys, f"__{stream}__", file)

    def _flush(self) -> None:
        for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
            try:
                stream.flush()
            except Exception:  # It was closed, or is something else by now.
                continue
        self._libc.fflush(None)


def _show(error: BaseException, cell: str) -> None:
    """The traceback from the cell on, without the frames of this file."""
    try:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename != cell:
            trace = trace.tb_next
        traceback.print_exception(type(error), error, trace)
    except BaseException:  # The exception's own methods may do anything.
        print(f"{type(error).__name__} (its traceback can't be shown)", file=sys.stderr)
