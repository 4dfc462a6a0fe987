"""The python tool: cancellation, many at once, nothing left over; what it is called and how it refuses."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import uvloop
from cells import QUICK, assert_nothing_left, workers
from openai_harmony import Author, Message, Role, TextContent, ToolNamespaceConfig

from vllm_gptoss.tools import interpreter as interpreters
from vllm_gptoss.tools import python as module
from vllm_gptoss.tools.interpreter import NotContainedError
from vllm_gptoss.tools.limits import Limits
from vllm_gptoss.tools.python import LOST, SILENT, TAKEN, Interpreters
from vllm_gptoss.tools.workdir import remove

pytestmark = pytest.mark.usefixtures("room")

ROOT = Path(__file__).parents[2]


def test_a_call_that_is_cancelled_ends_the_interpreter(room):
    async def cancelled():
        live = Interpreters(live=1)
        async with live.session() as python:
            await python.run("x = 1")
            call = asyncio.create_task(python.run("while True: pass"))
            await asyncio.sleep(0.3)
            (worker,) = workers(room)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await asyncio.sleep(0.3)
            assert_nothing_left(room)
            assert await python.run("print('x' in globals())") == (
                f"[The interpreter has ended: a call was broken off. {LOST}]\nFalse\n"
            )
            assert worker not in workers(room)
            assert await python.run("1") == "1\n"

    asyncio.run(cancelled())


def test_a_start_that_is_cancelled_leaves_its_place(room):
    async def cancelled():
        live = Interpreters(live=1)

        async def once():
            async with live.session() as python:
                await python.run("1")

        for delay in (0, 0.001, 0.01, 0.03, 0.06):
            call = asyncio.create_task(once())
            await asyncio.sleep(delay)
            call.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await call
        async with live.session() as python:
            return await asyncio.wait_for(python.run("'free'"), 10)

    assert asyncio.run(cancelled()) == "'free'\n"


def test_live_interpreters_are_bounded(room, monkeypatch):
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.3)

    async def crowd():
        live = Interpreters(live=2)
        async with live.session() as one, live.session() as two, live.session() as three:
            assert [await one.run("1"), await two.run("2"), await three.run("3")] == ["1\n", "2\n", TAKEN]
            assert len(workers(room)) == 2
            await one.close()
            assert await three.run("3") == "3\n"
            waiting = asyncio.create_task(one.run("1"))
            await asyncio.sleep(0.1)
            await two.close()
            assert await waiting == "1\n"

    asyncio.run(crowd())


def test_many_at_once_and_calls_of_one_session_in_a_row(room):
    async def crowd():
        live = Interpreters(live=4)
        sessions = [live.session() for _ in range(4)]
        start = time.monotonic()
        answers = await asyncio.gather(*(s.run(f"import time; time.sleep(0.8); {n}") for n, s in enumerate(sessions)))
        took = time.monotonic() - start
        await sessions[0].run("order = []")
        await asyncio.gather(*(sessions[0].run(f"order.append({n})") for n in range(5)))
        order = await sessions[0].run("order")
        await asyncio.gather(*(session.close() for session in sessions))
        return answers, took, order

    answers, took, order = asyncio.run(crowd())
    assert answers == [f"{n}\n" for n in range(4)]
    assert took < 3 * 0.8
    assert order == "[0, 1, 2, 3, 4]\n"


def test_under_uvloop_as_in_a_server(room):
    async def session():
        async with Interpreters(QUICK).session() as python:
            first = [await python.run(cell) for cell in ("x = 1", "x", "while True: print('y' * 100)", "'fresh'")]
            call = asyncio.create_task(python.run("while True: pass"))
            await asyncio.sleep(0.1)
            call.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await call
            return first

    silent, value, flood, fresh = uvloop.run(session())
    assert (silent, value, fresh) == (SILENT, "1\n", "'fresh'\n")
    assert "The interpreter has ended" in flood


def test_a_server_that_is_killed_takes_its_interpreters_along(room):
    script = f"""
import asyncio, sys, tempfile
tempfile.tempdir = {str(room)!r}
from vllm_gptoss.tools.python import Interpreters
async def main():
    live = Interpreters()
    idle = live.session()
    await idle.run("1")
    print(flush=True)
    await live.session().run("while True: pass")
asyncio.run(main())
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    server = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment)
    server.stdout.readline()
    end = time.monotonic() + 10
    while len(found := set(workers(room)) - {server.pid}) < 2 and time.monotonic() < end:
        time.sleep(0.02)
    assert len(found) == 2
    server.send_signal(signal.SIGKILL)
    server.communicate()
    while workers(room) and time.monotonic() < end:
        time.sleep(0.02)
    assert workers(room) == []
    for folder in room.glob(f"{interpreters.FOLDER_PREFIX}*"):  # As the docstring says, these stay.
        remove(folder)


def test_the_description_is_kept():
    python = Interpreters().session()
    assert python.config == ToolNamespaceConfig.python()
    assert f"time out after {Limits().wall_seconds} seconds" in python.config.description


def test_messages():
    async def session():
        async with Interpreters().session() as python:
            call = Message(author=Author(role=Role.ASSISTANT), content=[TextContent(text="6 * 7")], channel="analysis")
            return await python.process(call.with_recipient("python").with_content_type("code"))

    (found,) = asyncio.run(session())
    assert found.author == Author(role=Role.TOOL, name="python")
    assert (found.recipient, found.channel, found.content[0].text) == ("assistant", "analysis", "42\n")


def test_a_machine_that_can_not_contain_it_is_refused(room, monkeypatch):
    """What this machine lacks is made up; `test_python_walls.py` takes real walls away."""
    monkeypatch.setattr(interpreters, "ALL", interpreters.ALL | {"moonlight"})

    async def check(uncontained):
        live = Interpreters(uncontained=uncontained)
        async with live.session() as python:
            printed = await python.run("1")
        await live.check()
        return printed

    with pytest.raises(NotContainedError, match="can't contain code in: moonlight"):
        asyncio.run(check(frozenset()))
    assert asyncio.run(check(frozenset({"moonlight"}))) == "1\n"

    async def call():
        async with Interpreters().session() as python:
            return await python.run("1")

    assert asyncio.run(call()).startswith("The python tool is not available on this server: this machine can't contain")


def test_no_room_for_a_folder(room, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(room / "nowhere"))

    async def twice():
        live = Interpreters(live=1)
        return [await live.session().run("1") for _ in range(2)]

    for answer in asyncio.run(twice()):
        assert answer.startswith("The python tool is not available on this server: [Errno 2]")
