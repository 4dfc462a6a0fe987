"""Cells run in real interpreters, whose folders are all in one place."""

import asyncio
import contextlib
from pathlib import Path

from vllm_gptoss.tools.interpreter import FOLDER_PREFIX
from vllm_gptoss.tools.limits import Limits
from vllm_gptoss.tools.python import Interpreters

QUICK = Limits(wall_seconds=1.0)


def workers(room: Path) -> list[int]:
    """Processes that were started for a folder in `room`; a zombie is one too."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(room).encode() in command.read_bytes():
                found.append(int(command.parent.name))
    return found


def assert_nothing_left(room: Path) -> None:
    assert list(room.glob(f"{FOLDER_PREFIX}*")) == []
    assert workers(room) == []


def run(*cells: str, limits: Limits | None = None) -> list[str]:
    """What the cells answer, in one session."""

    async def session():
        async with Interpreters(limits).session() as python:
            return [await python.run(cell) for cell in cells]

    return asyncio.run(session())


def last(*cells: str, limits: Limits | None = None) -> str:
    return run(*cells, limits=limits)[-1]
