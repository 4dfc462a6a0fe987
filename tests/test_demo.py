"""The demo from the outside, and its server with stand-ins for vLLM: whatever happens, no process remains."""

import http.client
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vllm_gptoss.demo.server import Server, ServerError, reserved_port, session_members, summary

COMMAND = Path(sys.executable).with_name("vllm-gptoss")
MARK = "VLLM_GPTOSS_TEST_MARK"

STAND_IN = """
import http.server, os, signal, subprocess, sys, time
child = "import os, signal, time; {child}; time.sleep(600)"
for _ in range(2):
    subprocess.Popen([sys.executable, "-c", child])
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


@pytest.fixture
def env(tmp_path):
    # SPT_NOENV keeps vLLM's renaming of its processes from overwriting the environment seen in /proc.
    return {**os.environ, MARK: str(tmp_path), "SPT_NOENV": "1"}


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
    log = "(Engine pid=1) Traceback (most recent call last):\n  File x\n(Engine pid=1) ValueError: bad\n"
    log += "(ApiServer pid=2) ValueError: bad\n"
    assert summary(log) == "\n  | ValueError: bad"
    assert summary("a\nb") == "\n  | a\n  | b"
    assert summary("") == "\n  | (its log is empty)"
