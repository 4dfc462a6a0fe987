"""Each wall around an interpreter alone, and what is reported where one is missing."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cells import last

from vllm_gptoss.tools import confine
from vllm_gptoss.tools.interpreter import Interpreter
from vllm_gptoss.tools.limits import Limits

pytestmark = pytest.mark.usefixtures("room")

ROOT = Path(__file__).parents[2]


def alone(script: str) -> subprocess.CompletedProcess:
    """Run by a Python of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=20)


NO_NEW_PRIVILEGES = "import ctypes; ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)\n"


def test_the_filter_alone(listener):
    done = alone(
        f"{NO_NEW_PRIVILEGES}from vllm_gptoss.tools import seccomp; import socket, os\n"
        f"socket.create_connection(('127.0.0.1', {listener[0]})).close() if not seccomp.install() else None\n"
        "try: socket.socket()\nexcept PermissionError: print('refused')"
    )
    assert done.stdout == "refused\n", done.stderr


def test_namespaces_alone(listener):
    done = alone(
        "from vllm_gptoss.tools import namespaces; import socket\n"
        "if not namespaces.enter(): print('forbidden'); raise SystemExit\n"
        f"try: socket.create_connection(('127.0.0.1', {listener[0]}), 2)\n"
        "except OSError as error: print(error.strerror)"
    )
    assert done.stdout in ("Network is unreachable\n", "forbidden\n"), done.stderr


def test_landlock_alone(room):
    (room / "own").mkdir()
    done = alone(
        f"{NO_NEW_PRIVILEGES}from vllm_gptoss.tools import landlock; import os\n"
        f"os.chdir({str(room)!r}); assert landlock.restrict(['/usr', '/nowhere'], [], 'own')\n"
        "open('own/x', 'w').close(); os.listdir('/usr')\n"
        "for path in ('x', '/usr/x'):\n    try: open(path, 'w')\n    except PermissionError: print('refused')"
    )
    assert done.stdout == "refused\n" * 2, done.stderr


@pytest.mark.parametrize(
    ("broken", "contained"),
    [
        ("pass", confine.ALL),
        ("seccomp.install = lambda: True", {"files"}),
        ("seccomp.install = lambda: False", set()),
        ("landlock.restrict = lambda *paths: True", {"network", "processes"}),
        ("landlock.restrict = lambda *paths: False", {"network", "processes"}),
        ("namespaces.enter = lambda: False", confine.ALL),
        ("confine._give_up_capabilities = lambda libc: None", confine.ALL),
    ],
)
def test_what_is_reported_is_what_holds(broken, contained, room):
    """Walls that only claim to stand are found out."""
    (room / "own").mkdir()
    done = alone(
        "import json, os\nfrom vllm_gptoss.tools import confine, landlock, namespaces, seccomp\n"
        f"from vllm_gptoss.tools.limits import Limits\n{broken}\n"
        f"print(json.dumps(sorted(confine.confine(Limits(), {str(room / 'own')!r}, os.getppid()))))"
    )
    assert set(json.loads(done.stdout)) == set(contained), done.stderr


def test_this_machine_contains_all():
    async def start():
        interpreter = Interpreter(Limits(), on_buried=lambda: None)
        await interpreter.start()
        interpreter.end()
        await interpreter.buried

    asyncio.run(start())


def test_a_worker_without_a_parent_ends():
    done = alone(
        "from vllm_gptoss.tools.confine import confine\nfrom vllm_gptoss.tools.limits import Limits\n"
        "confine(Limits(), '/tmp', 1 << 22)"
    )
    assert done.returncode == 1
    assert "the parent is gone already" in done.stderr


def test_a_tighter_limit_of_the_operator_stays():
    done = alone(
        "import os, resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "from vllm_gptoss.tools import confine\nfrom vllm_gptoss.tools.limits import Limits\n"
        "confine._set_limits(Limits())\nprint(resource.getrlimit(resource.RLIMIT_FSIZE))"
    )
    assert done.stdout == f"({1 << 20}, {1 << 20})\n", done.stderr


def test_the_drive_of_the_description():
    """Only where the kernel lets anybody have a mount namespace; `python.py` says so."""
    code = "import os; os.path.isdir('/mnt/data') and (open('/mnt/data/f', 'w').close(), os.listdir())[1]"
    script = "from vllm_gptoss.tools import namespaces; print(namespaces.enter())"
    expected = "['f']\n" if alone(script).stdout.strip() == "True" and Path("/mnt").is_dir() else "False\n"
    assert last(code) == expected


def test_a_thread_of_the_server_can_start_interpreters(room):
    """The process dies with the thread that started it: one that lives as long as its event loop does."""
    answers = []
    thread = threading.Thread(target=lambda: answers.append(last("1 + 1")))
    thread.start()
    thread.join()
    assert answers == ["2\n"]
