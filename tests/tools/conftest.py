"""Where the interpreters of a test have their folders."""

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cells import assert_nothing_left

from vllm_gptoss.tools import landlock


@pytest.fixture
def room(tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder in which each interpreter has its own; each is gone at the end, and so is each process."""
    if not landlock.version():
        pytest.skip("this machine can't contain an interpreter")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert_nothing_left(tmp_path)


@pytest.fixture
def listener():
    """A port of the loopback interface, and the connections that it has seen."""
    seen = []
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
    ):
        datagrams.bind(server.getsockname())
        datagrams.settimeout(0.01)
        server.settimeout(0.01)
        yield server.getsockname()[1], seen
        for receive in (server.accept, lambda: datagrams.recvfrom(10)):
            try:
                seen.append(receive()[1])
            except TimeoutError:
                continue
    assert seen == []
