"""The demo from the outside, and its server with stand-ins for vLLM: whatever happens, no process remains."""

import contextlib
import http.client
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vllm_gptoss.demo.conversation import hold, weather_and_time_in_tokyo
from vllm_gptoss.demo.server import Server, ServerError, reserved_port, session_members, summary
from vllm_gptoss.demo.turn import Call, DemoError, Turn
from vllm_gptoss.tiny import dialogues

COMMAND = Path(sys.executable).with_name("vllm-gptoss")
MARK = "VLLM_GPTOSS_TEST_MARK"

STAND_IN = """
import http.server, os, signal, subprocess, sys, time
child = "import os, signal, time; {child}; print(flush=True); time.sleep(600)"
for _ in range(2):
    subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE).stdout.readline()
{before}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", {port}), Handler).serve_forever()
"""
"""Serves `/health` and has two children, as an API server has its engine and that one its workers."""

DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"


def marked(mark: str) -> list[int]:
    """Every process of the machine that inherited the mark, whatever session or parent it has now."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{MARK}={mark}".encode() in environ.read_bytes().split(b"\0"):
                found.append(int(environ.parent.name))
        except OSError:
            continue
    return found


def has_engine(mark: str) -> bool:
    """Whether vLLM's engine, a child of the API server, runs by the title that vLLM gives it."""
    found = False
    for pid in marked(mark):
        with contextlib.suppress(OSError):
            found |= b"EngineCore" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return found


@pytest.fixture
def env(tmp_path, shell):
    # SPT_NOENV keeps vLLM's renaming of its processes from overwriting the environment seen in /proc.
    return {**shell, MARK: str(tmp_path), "SPT_NOENV": "1"}


def stand_in(port: int, child: str = "pass", before: str = "") -> list[str]:
    return [sys.executable, "-c", STAND_IN.format(port=port, child=child, before=before)]


def assert_gone(mark: str, seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while (left := marked(mark)) and time.monotonic() < end:
        time.sleep(0.05)
    assert left == []


@pytest.mark.parametrize(
    ("child", "before"),
    [("pass", ""), ("os.setpgid(0, 0)", ""), (DEAF, DEAF)],
    ids=["plain", "children in their own group", "deaf to SIGTERM"],
)
def test_the_server_ends_with_all_its_children(child, before, env, tmp_path, monkeypatch):
    monkeypatch.setattr("vllm_gptoss.demo.server.STOP_SECONDS", 1.0)
    with (
        reserved_port() as port,
        Server(stand_in(port, child, before), port, tmp_path / "log", env) as server,
    ):
        server.wait_healthy(20)
        assert len(marked(str(tmp_path))) == 3
    assert_gone(str(tmp_path), 0)


def test_the_children_of_a_server_that_died_end_too(env, tmp_path):
    command = stand_in(1, before="sys.exit('ValueError: no such thing')")
    server = Server(command, 1, tmp_path / "log", env)
    with pytest.raises(ServerError, match=r"exit code 1(.|\n)*no such thing"), server:
        server.wait_healthy(20)
    assert_gone(str(tmp_path), 0)


def test_a_server_that_never_answers_is_given_up(env, tmp_path):
    command = stand_in(1, before="print('still loading', flush=True); time.sleep(600)")
    server = Server(command, 1, tmp_path / "log", env)
    with pytest.raises(ServerError, match=r"not ready within 2 s(.|\n)*still loading"), server:
        server.wait_healthy(2)
    assert_gone(str(tmp_path), 0)


def test_the_reserved_port_is_nobody_elses():
    with reserved_port() as port, reserved_port() as other:
        assert port != other
        with pytest.raises(OSError, match="refused"):
            http.client.HTTPConnection("127.0.0.1", port, timeout=2).connect()


def test_session_members_are_those_of_one_session():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    try:
        assert session_members(child.pid) == [child.pid]
        assert child.pid not in session_members(os.getsid(0))
    finally:
        child.communicate(b"\n", timeout=20)
    assert session_members(child.pid) == []


def test_the_summary_of_a_log_is_its_errors_without_tracebacks():
    record = "(EngineCore pid=2) ERROR 11-20 13:00:00 [core.py:1454] "
    log = (
        "WARNING errors like `OSError: [Errno 24] Too many open files`\n"
        f'{record}Traceback (most recent call last):\n{record}  File "x"\n{record}mine.Unsupported: no GPU\n'
        '(APIServer pid=1) Traceback (most recent call last):\n(APIServer pid=1)   File "y"\n'
        "(APIServer pid=1) RuntimeError: see above\n"
        "Traceback (most recent call last):\nmine.Unsupported: no GPU\n"
    )
    assert summary(log) == "\n  | mine.Unsupported: no GPU\n  | RuntimeError: see above"
    assert summary("a\nb") == "\n  | a\n  | b"
    assert summary("") == "\n  | (its log is empty)"


class Replay:
    """An API behind which the model says what it has learnt, but for one thing."""

    def __init__(self, spoil):
        self.spoil = spoil
        self.results = []

    def ask(self, text):
        return self.turn()

    def give(self, call, result):
        self.results.append(json.loads(result))
        return self.turn()

    def turn(self):
        weather = self.results[0] if self.results else {"temperature": 0, "sky": ""}
        time = self.results[1]["time"] if len(self.results) > 1 else ""
        learnt = dialogues.weather_and_time("Tokyo", *weather.values(), time).turns[len(self.results)]
        calls = [Call("id", learnt.call.name, learnt.call.arguments)] if learnt.call else []
        turn = Turn(learnt.reasoning, calls, learnt.answer or "")
        self.spoil(turn, len(self.results))
        return turn


def spoil(number, **fields):
    def change(turn, at):
        if at == number:
            for name, value in fields.items():
                setattr(turn, name, value)

    return change


def test_a_conversation_as_learnt_passes():
    shown = []
    hold(Replay(spoil(None)), weather_and_time_in_tokyo, lambda *piece: shown.append(piece))
    assert [label for label, _ in shown] == ["user", "result", "result"]
    assert re.fullmatch(r'{"time": "\d\d:\d\d"}', shown[-1][1])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (spoil(0, reasoning=""), "reasoning should be 'I need the weather"),
        (spoil(2, reasoning="I have none."), "reasoning should be 'I have both.', but is 'I have none.'"),
        (spoil(0, calls=[]), "tool calls should be"),
        (spoil(1, calls=[Call("id", "get_time", '{"city":"Paris"}')]), "tool calls should be"),
        (spoil(1, calls=[Call("id", "get_time", '{"city":')]), "tool calls should be"),
        (spoil(0, calls=[Call("id", "get_weather", '{"city":"Tokyo"}')] * 2), "tool calls should be"),
        (spoil(2, calls=[Call("id", "get_time", '{"city":"Tokyo"}')]), "tool calls should be"),
        (spoil(2, text=""), "text should be 'It is .* but is ''"),
        (spoil(2, text="It is 25:00 in Tokyo."), "text should be"),
    ],
)
def test_a_conversation_that_goes_otherwise_fails_the_demo(change, reason):
    with pytest.raises(DemoError, match=reason):
        hold(Replay(change), weather_and_time_in_tokyo, lambda label, piece: None)


def test_the_demo_serves_talks_and_ends(env, tmp_path):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [COMMAND, "demo"], env=env, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert_gone(str(tmp_path), 0)
    said = [line.split(maxsplit=1) for line in done.stdout.splitlines() if line.startswith("  ")]
    labels = [label for label, _ in said if label != "took"]
    one_call = ["user", "reasoning", "assistant", "call", "result", "reasoning", "assistant"]
    two_calls = ["user", *["reasoning", "call", "result"] * 2, "reasoning", "assistant"]
    assert labels == one_call + two_calls
    assert ["call", 'get_weather {"city":"Paris"}'] in said
    assert ["assistant", "It is 21 °C and cloudy in Paris."] in said
    assert "no process remains" in done.stdout
    # 90 s on two cores, counted so that a busy machine does not fail it.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 180


@pytest.fixture
def ctrl_c():
    """A terminal's Ctrl-C reaches children, also where a shell that runs the tests behind it has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_the_demo_and_every_process(env, tmp_path):
    demo = subprocess.Popen(
        [COMMAND, "demo"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        end = time.monotonic() + 200
        while not has_engine(str(tmp_path)) and demo.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
        assert has_engine(str(tmp_path))
        demo.send_signal(signal.SIGINT)
        _, err = demo.communicate(timeout=60)
    finally:
        demo.kill()
    assert demo.returncode == 130
    assert err == b"vllm-gptoss: interrupted\n"
    assert_gone(str(tmp_path), 0)


def test_a_server_that_cannot_start_is_one_reason_and_exit_code_1(env, tmp_path):
    env["VLLM_LOGGING_LEVEL"] = "nonsense"
    done = subprocess.run(
        [COMMAND, "demo"], env=env, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 1
    assert "vllm-gptoss demo failed: the server ended with exit code 1" in done.stderr
    assert "Unknown level: 'NONSENSE'" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 5
    log = Path(done.stderr.splitlines()[-1].removeprefix("  the server's log: "))
    assert "Traceback" in log.read_text()
    log.unlink()
    assert_gone(str(tmp_path), 0)
