"""A process shuts itself in, before it runs the code of a model, and tries whether that holds.

What is tried, and reported by these names:

- `network`: no socket can be made or connected, of any family; a pair of connected ones can.
- `processes`: no process can be started, no signal sent to another one, and none looked into.
- `files`: only the working folder can be written. Read can be, besides it: Python with its packages, the libraries of
  the system, a few files of `/etc`, the CPUs' description in `/sys`, and this process in `/proc`.

Besides, and never reported as more than that: capabilities are given up, limits are set, the process keeps to one core,
and where the kernel lets it, it has namespaces of its own (`namespaces.py`).

Not contained: whether a path exists and what `stat` says of it; the clock; what else can be learnt from a CPU that is
shared; and faults of the kernel itself. This is a wall against mistakes and against code that a web page has talked
a model into, not one between hostile tenants of a machine: for those, put the whole server into a machine of its own.
Linux on x86_64 and aarch64 alone; the filter for aarch64 has not been run yet.
"""

import contextlib
import ctypes
import errno
import os
import random
import resource
import signal
import socket
import sys
import sysconfig
import tempfile

from vllm_gptoss.tools import landlock, namespaces, seccomp
from vllm_gptoss.tools.limits import Limits

NETWORK, PROCESSES, FILES = "network", "processes", "files"
ALL = frozenset({NETWORK, PROCESSES, FILES})

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
CAPABILITY_VERSION = 0x20080522

READABLE = (
    *("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/etc/mime.types"),
    *("/sys/devices/system/cpu", "/dev/random", "/dev/urandom"),
)
WRITABLE = ("/dev/null", "/dev/zero", "/dev/full")


def confine(limits: Limits, folder: str, parent: int) -> frozenset[str]:
    """Shut this process in and return what of `ALL` it is now contained in.

    `folder` becomes its working folder; `parent` is the process with which it dies. It must have one thread.
    """
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the parent is gone already")
    os.chdir(folder)
    _set_limits(limits)
    # One core, so that libraries start one thread and reserve memory for one.
    os.sched_setaffinity(0, {random.choice(list(os.sched_getaffinity(0)))})
    readable = _readable()
    if namespaces.enter():
        with contextlib.suppress(OSError):
            namespaces.mount_drive(folder, readable)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    has_landlock = landlock.restrict(readable, WRITABLE, folder)
    _give_up_capabilities(libc)
    has_filter = seccomp.install()
    return frozenset(
        name
        for name, holds in (
            (NETWORK, _has_no_network()),
            (PROCESSES, _has_no_processes(parent)),
            (FILES, has_landlock and has_filter and _has_no_files(folder)),
        )
        if holds
    )


def _readable() -> list[str]:
    """Python, the packages of this environment, and what they need of the system."""
    paths = sysconfig.get_paths()
    python = [sys.prefix, sys.base_prefix, *(paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))]
    return [*READABLE, f"/proc/{os.getpid()}", *python]


def _set_limits(limits: Limits) -> None:
    for kind, soft, hard in (
        # The soft limit says with its signal what has happened; one second later the process is killed.
        (resource.RLIMIT_CPU, limits.cpu_seconds, limits.cpu_seconds + 1),
        (resource.RLIMIT_AS, limits.memory_bytes, limits.memory_bytes),
        (resource.RLIMIT_FSIZE, limits.file_bytes, limits.file_bytes),
        (resource.RLIMIT_NOFILE, limits.open_files, limits.open_files),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        # An operator's own limit may be tighter and can't be raised.
        most = resource.getrlimit(kind)[1]
        if most != resource.RLIM_INFINITY:
            soft, hard = min(soft, most), min(hard, most)
        resource.setrlimit(kind, (soft, hard))


def _give_up_capabilities(libc: ctypes.CDLL) -> None:
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    libc.capset(header, (ctypes.c_uint32 * 6)())


def _has_no_network() -> bool:
    return all(_is_refused(socket.socket, family) for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX))


def _has_no_processes(parent: int) -> bool:
    def fork() -> None:
        if (child := os.fork()) == 0:
            os._exit(0)
        os.waitpid(child, 0)

    return _is_refused(fork) and _is_refused(os.kill, parent, 0)


def _has_no_files(folder: str) -> bool:
    return _is_refused(tempfile.TemporaryFile, dir=os.path.dirname(folder)) and _is_refused(os.listdir, "/")


def _is_refused(attempt, *args, **options) -> bool:
    try:
        attempt(*args, **options)
    except OSError as error:
        return error.errno in (errno.EPERM, errno.EACCES)
    return False
