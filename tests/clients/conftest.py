"""One server for all clients, the tasks that they are given, and the programs that are no part of `.venv`."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vllm_gptoss.demo.server import Server, reserved_port, serve_command
from vllm_gptoss.tiny import dialogues
from vllm_gptoss.tiny.dialogues import Dialogue

MODEL = "openai/gpt-oss-20b"
# Codex comes with 7,000 tokens, and no client says a temperature.
OPTIONS = ("--max-model-len=16384", "--max-num-seqs=4", "--kv-cache-memory-bytes=64M")
GREEDY = ("--override-generation-config", '{"temperature": 0}')
SECONDS = 600

TASKS = (dialogues.weather("Paris", 23, "foggy"), dialogues.weather_and_time("Tokyo", 9, "cloudy", "07:45"))
"""A call and two calls one after the other; the results are none of the usual ones."""


@pytest.fixture(scope="session")
def url(tiny_checkpoint, tmp_path_factory, shell) -> Iterator[str]:
    """The address of a `vllm serve` that knows the tiny checkpoint by the name of gpt-oss."""
    log = tmp_path_factory.mktemp("clients") / "server.log"
    with (
        reserved_port() as port,
        Server(
            serve_command(tiny_checkpoint, port, MODEL, *OPTIONS, *GREEDY),
            port,
            log,
            shell | {"VLLM_ENABLE_RESPONSES_API_STORE": "1"},
        ) as server,
    ):
        server.wait_healthy(SECONDS)
        yield f"{server.url}/v1"
        server.check_alive()


@pytest.fixture(params=TASKS, ids=lambda task: task.name)
def task(request) -> Dialogue:
    return request.param


@pytest.fixture
def calls(task) -> list[tuple[str, dict[str, Any]]]:
    """What the task's functions are to be called with, in order."""
    return [(turn.call.name, json.loads(turn.call.arguments)) for turn in task.turns if turn.call]


@pytest.fixture
def results(task) -> dict[str, str]:
    """What each of the task's functions returns."""
    return {turn.call.name: turn.call.result for turn in task.turns if turn.call}


@pytest.fixture
def done_by(url, task, results, shell) -> Callable[..., dict[str, Any]]:
    """`done_by(python, "agents_client.py", **options)`: what a script says that does the task, in a Python that has
    the client."""

    def run(python: str, script: str, **options: Any) -> dict[str, Any]:
        asked = {"url": url, "model": MODEL, "question": task.user, "results": results, **options}
        path = Path(__file__).with_name(script)
        env = shell | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # else it fetches a list of prices
        ran = subprocess.run(
            [python, path], input=json.dumps(asked), capture_output=True, text=True, env=env, timeout=SECONDS
        )
        assert ran.returncode == 0, ran.stderr[-3000:]
        return json.loads(ran.stdout)

    return run
