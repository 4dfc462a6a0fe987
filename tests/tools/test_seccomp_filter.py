"""The filter of system calls: its numbers, and what it says of calls, run as the kernel would."""

import os
import re
import signal
import socket
from pathlib import Path

import pytest

from vllm_gptoss.tools import seccomp

HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


@pytest.mark.parametrize("machine", list(HEADERS))
def test_numbers_are_those_of_the_kernel(machine):
    if not HEADERS[machine].exists():
        pytest.skip(f"{HEADERS[machine]} is not installed")
    lines = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", HEADERS[machine].read_text())
    known = {name: int(number) for name, number in reversed(lines)}
    column = list(seccomp.ARCHITECTURES).index(machine)
    assert {name: known.get(name) for name in seccomp.REFUSED} == {
        name: numbers[column] for name, numbers in seccomp.REFUSED.items()
    }
    assert all(known[name] == number for name, number in seccomp.NEWER.items())
    names = [
        "clone",
        "kill",
        "tgkill",
        "prlimit64",
        "socketpair",
        "sendto",
        "ioctl",
        "fcntl",
        "prctl",
        "open",
        "openat",
    ]
    assert [known.get(name) for name in names] == [only.numbers[column] for only in seccomp.conditions(1)]


@pytest.mark.parametrize("machine", list(HEADERS))
def test_each_jump_of_the_filter_lands_within_it(machine):
    code = seccomp.program(machine, 42)
    count = len(code) // 8
    assert len(code) % 8 == 0
    assert count < 4096, "the kernel takes no longer one"
    for at in range(count):
        kind, yes, no = int.from_bytes(code[at * 8 : at * 8 + 2], "little"), code[at * 8 + 2], code[at * 8 + 3]
        if kind in (seccomp.EQUAL, seccomp.GREATER_OR_EQUAL):
            assert max(yes, no) + at + 1 < count
    with pytest.raises(ValueError, match="s390x"):
        seccomp.program("s390x", 42)


def verdict(machine: str, number: int, *arguments: int, architecture: int | None = None) -> str:
    """What the filter for process 42 says of a call: run as the kernel would."""
    data = [number, seccomp.ARCHITECTURES[machine] if architecture is None else architecture, 0, 0]
    for argument in (*arguments, *[0] * (6 - len(arguments))):
        data += [argument & 0xFFFFFFFF, argument >> 32 & 0xFFFFFFFF]
    code, at, held = seccomp.program(machine, 42), 0, 0
    while True:
        kind, yes, no, value = (
            int.from_bytes(code[at * 8 + start : at * 8 + stop], "little")
            for start, stop in ((0, 2), (2, 3), (3, 4), (4, 8))
        )
        at += 1
        if kind == seccomp.LOAD:
            held = data[value // 4]
        elif kind == seccomp.AND:
            held &= value
        elif kind == seccomp.EQUAL:
            at += yes if held == value else no
        elif kind == seccomp.GREATER_OR_EQUAL:
            at += yes if held >= value else no
        else:
            return {seccomp.ALLOW: "allow", seccomp.FAIL | 1: "EPERM", seccomp.FAIL | 38: "ENOSYS"}[value]


@pytest.mark.parametrize("machine", list(HEADERS))
def test_verdicts(machine):
    column = list(seccomp.ARCHITECTURES).index(machine)
    for name, numbers in seccomp.REFUSED.items():
        if numbers[column] is not None:
            assert verdict(machine, numbers[column]) == "EPERM", name
    clone, kill, _, prlimit, pair, sendto, ioctl, fcntl, prctl, _, openat = (
        only.numbers[column] for only in seccomp.conditions(42)
    )
    trunc, mode = os.O_TRUNC, os.O_ACCMODE
    for expected, number, *arguments in (
        ("allow", clone, 0x3D0F00),
        ("EPERM", clone, signal.SIGCHLD),
        ("allow", kill, 42),
        ("EPERM", kill, 41),
        ("EPERM", kill, 0),
        ("EPERM", kill, (1 << 64) - 1),
        ("allow", prlimit, 0),
        ("EPERM", prlimit, 42),
        ("allow", pair, 1, socket.SOCK_STREAM | socket.SOCK_CLOEXEC),
        ("EPERM", pair, 1, socket.SOCK_DGRAM),
        ("allow", sendto, 3, 0, 0, 0, 0),
        ("EPERM", sendto, 3, 0, 0, 0, 8),
        ("EPERM", sendto, 3, 0, 0, 0, 1 << 32),
        ("allow", ioctl, 1, 0x5401),
        ("EPERM", ioctl, 1, 0x5412),
        ("allow", fcntl, 1, 1),
        ("EPERM", fcntl, 1, 8),
        ("allow", prctl, 15),
        ("EPERM", prctl, 1),
        ("allow", openat, 0, 0, os.O_RDONLY),
        ("allow", openat, 0, 0, os.O_WRONLY | os.O_CREAT | trunc),
        ("EPERM", openat, 0, 0, os.O_RDONLY | trunc),
        ("EPERM", openat, 0, 0, mode | trunc),
        ("allow", 436),
        ("ENOSYS", 435),
        ("ENOSYS", 424),
        ("ENOSYS", 500),
        ("ENOSYS", 41 | 1 << 30),
    ):
        assert verdict(machine, number, *arguments) == expected, (number, arguments)
    assert verdict(machine, 0, architecture=0x40000003) == "ENOSYS", "another table of calls"
