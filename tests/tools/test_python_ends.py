"""Ways in which an interpreter ends, or is kept within its limits: it is said, and the next call has a fresh one."""

import asyncio
import os
import subprocess
import sys
import time

import pytest
from cells import QUICK, last, run

from vllm_gptoss.tools.limits import Limits
from vllm_gptoss.tools.python import LOST, SILENT, Interpreters
from vllm_gptoss.tools.workdir import remove, usage

pytestmark = pytest.mark.usefixtures("room")


def ended(printed: str, reason: str) -> bool:
    return printed.endswith(f"[The interpreter has ended: {reason}. {LOST}]")


@pytest.mark.parametrize(
    ("cell", "reason", "limits"),
    [
        ("while True: pass", "it took longer than 1 s", QUICK),
        ("import time; time.sleep(60)", "it took longer than 1 s", QUICK),
        (
            "import signal\nfor s in set(signal.Signals) - {9, 19}: signal.signal(s, signal.SIG_IGN)\nwhile True: pass",
            "it took longer than 1 s",
            QUICK,
        ),
        ("import os; os._exit(3)", "the code ended it with exit code 3", Limits()),
        ("import ctypes; ctypes.string_at(0)", "it was ended by signal 11 (Segmentation fault)", Limits()),
        ("import os; os.abort()", "it was ended by signal 6 (Aborted)", Limits()),
        ("import os; os.kill(os.getpid(), 40)", "it was ended by signal 40 (Real-time signal 6)", Limits()),
        ("import os; os.closerange(3, 100)", "the code ended it with exit code 1", Limits()),
        ("import os; os.closerange(3, 100)\nwhile True: pass", "the code has cut its connection", Limits()),
    ],
)
def test_ends_are_said_and_the_next_call_is_fresh(cell, reason, limits):
    printed, fresh = run(f"x = 1\nprint('seen')\n{cell}", "print('x' in globals())", limits=limits)
    assert printed.startswith("seen\n")
    assert ended(printed, reason), printed
    assert fresh == "False\n"


def test_cpu_time_is_of_all_calls_together():
    burn = "import time\nstart = time.process_time()\nwhile time.process_time() < start + 0.7: pass"
    first, second = run(burn, burn, limits=Limits(cpu_seconds=1))
    assert first == SILENT
    assert ended(second, "it had used its 1 s of CPU time, or the machine is out of memory")


def test_memory_is_limited_and_the_interpreter_survives_it():
    bomb = "x = []\nwhile True: x.append(bytearray(1 << 20))"
    printed, kept = run(bomb, "del x; 'kept'", limits=Limits(memory_bytes=512 << 20))
    assert printed.endswith("MemoryError\n")
    assert kept == "'kept'\n"


def test_a_file_is_limited():
    write = "f = open('big', 'wb')\nfor _ in range(100): f.write(bytes(1 << 20))"
    printed, size = run(write, "import os; os.path.getsize('big') >> 20", limits=Limits(file_bytes=8 << 20))
    assert printed.endswith("OSError: [Errno 27] File too large\n")
    assert size == "8\n"


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("for n in range(10**6): open(str(n), 'w').close()", "the code made more than 50 files and folders, or nested"),
        (
            "for n in range(10**6): os.mkdir('d'); os.chdir('d')",
            "the code made more than 50 files and folders, or nested",
        ),
        ("for n in range(30): os.mkdir('d' * 255); os.chdir('d' * 255)\ntime.sleep(9)", "the code made more than 50"),
        (
            "for n in range(40): open(str(n), 'wb').write(bytes(1 << 20))\ntime.sleep(9)",
            "the files of the code take more",
        ),
        (
            "while True: threading.Thread(target=time.sleep, args=(60,)).start()",
            "the code started more than 20 threads",
        ),
    ],
)
def test_what_is_watched(cell, reason):
    limits = Limits(files=50, disk_bytes=20 << 20, threads=20, wall_seconds=20)
    start = time.monotonic()
    printed = last(f"import os, threading, time\nthreading.stack_size(1 << 16)\n{cell}", limits=limits)
    assert time.monotonic() - start < 8
    assert f"[The interpreter has ended: {reason}" in printed


def test_open_files_are_limited():
    printed, kept = run("x = [open('f', 'w') for _ in range(1000)]", "'kept'")
    assert "Too many open files" in printed
    assert kept == "'kept'\n"


def test_nothing_runs_between_two_calls():
    thread = "import threading, time\nn = 0\ndef count():\n    global n\n    while True: n += 1; time.sleep(0.01)\n"

    async def session():
        async with Interpreters().session() as python:
            before = int(await python.run(f"{thread}threading.Thread(target=count).start()\ntime.sleep(0.1)\nprint(n)"))
            await asyncio.sleep(0.5)
            return before, int(await python.run("print(n)"))

    before, after = asyncio.run(session())
    assert before >= 5
    assert after - before < 10


def test_no_word_of_a_worker_stops_the_clock():
    cell = """
import os, socket, time
(control,) = [fd for fd in map(int, os.listdir("/proc/self/fd")) if fd > 2 and os.path.islink(f"/proc/self/fd/{fd}")
              and os.readlink(f"/proc/self/fd/{fd}").startswith("socket")]
while True: os.write(control, b"x\\n"); time.sleep(0.05)
"""
    start = time.monotonic()
    assert ended(last(cell, limits=QUICK), "it took longer than 1 s")
    assert time.monotonic() - start < 4


@pytest.mark.parametrize("spam", ["done\\n", "x", "contained network\\n"])
def test_a_worker_that_says_too_much_harms_only_itself(spam):
    """Its socket is among its own file descriptors."""
    cell = f"""
import os, socket
for fd in range(3, 50):
    try:
        if os.readlink(f'/proc/self/fd/{{fd}}').startswith('socket'):
            while True: os.write(fd, b'{spam}' * 100)
    except OSError: pass
"""
    start = time.process_time()
    answers = run(cell, cell, "1 + 1", limits=QUICK)
    assert time.process_time() - start < 2
    assert all(isinstance(answer, str) for answer in answers)


def test_folders_that_are_hard_to_remove(tmp_path):
    folder = tmp_path / "hard"
    deep = "import os\nfor n in range(500): os.mkdir('d' * 200); os.chdir('d' * 200); open('f', 'w').close()"
    folder.mkdir()
    subprocess.run([sys.executable, "-c", deep], cwd=folder, check=True)
    locked = folder / "locked"
    (locked / "in").mkdir(parents=True)
    (locked / "in" / "file").touch()
    (locked / "in").chmod(0)
    locked.chmod(0)
    os.mkfifo(folder / "fifo")
    (folder / "link").symlink_to(tmp_path)
    (folder / "dangling").symlink_to("nowhere")
    (tmp_path / "beside").touch()
    assert usage(folder, 10**6)[0] > 10**6
    remove(folder)
    assert not folder.exists()
    assert (tmp_path / "beside").exists()
    remove(folder)


def test_usage(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(bytes(10_000))
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 1 << 30)
    (tmp_path / "link").symlink_to("/")
    files, size = usage(tmp_path, 100)
    assert files == 4
    assert 10_000 <= size < 100_000
    assert usage(tmp_path, 2)[0] == 3
