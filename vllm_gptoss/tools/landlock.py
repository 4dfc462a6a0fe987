"""Landlock: which files a process may read and write, decided by the process itself and never widened again.

It governs opening, creating, removing, linking and renaming, not `stat` of a path that is known, nor modes, owners and
times (`seccomp.py` refuses to change those). Signals, abstract sockets and TCP join as the kernel has them.

Source: `linux/landlock.h` and the kernel's documentation of its user space interface.
"""

import contextlib
import ctypes
import os
from collections.abc import Iterable

CREATE, ADD_RULE, RESTRICT = 444, 445, 446
"""System calls, the same numbers on all architectures."""
VERSION_FLAG, PATH_BENEATH = 1, 1

WRITE_FILE, READ_FILE, READ_DIR = 1 << 1, 1 << 2, 1 << 3
TRUNCATE, IOCTL_DEV = 1 << 14, 1 << 15
OF_FILES = 1 | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
"""The rights that a rule for a single file may name; the lowest is EXECUTE."""
RIGHTS_SINCE = {1: (1 << 13) - 1, 2: 1 << 13, 3: TRUNCATE, 5: IOCTL_DEV}
"""Version of Landlock: the rights that it knows more than the one before."""
TCP, TCP_SINCE = 0b11, 4
SIGNALS_AND_ABSTRACT_SOCKETS, SCOPES_SINCE = 0b11, 6


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("rights", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """What the kernel has, 0 for nothing."""
    return max(0, ctypes.CDLL(None).syscall(CREATE, None, ctypes.c_size_t(0), VERSION_FLAG))


def restrict(read: Iterable[str], write: Iterable[str], own: str) -> bool:
    """Leave this thread and its future ones the paths named: to read, to read and write, and the folder `own` for all.

    Paths that are not there are passed over. The process must have given up new privileges. False where the kernel
    has no Landlock; nothing is restricted then.
    """
    known = version()
    if not known:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    rights = sum(right for since, right in RIGHTS_SINCE.items() if since <= known)
    ruleset = _Ruleset(
        rights, TCP if known >= TCP_SINCE else 0, SIGNALS_AND_ABSTRACT_SOCKETS if known >= SCOPES_SINCE else 0
    )
    size = 8 if known < TCP_SINCE else 16 if known < SCOPES_SINCE else 24
    handle = libc.syscall(CREATE, ctypes.byref(ruleset), ctypes.c_size_t(size), 0)
    if handle < 0:
        return False
    reading, writing = READ_FILE | READ_DIR, READ_FILE | READ_DIR | WRITE_FILE | TRUNCATE
    wanted = [*((path, reading) for path in read), *((path, writing) for path in write), (own, rights)]
    try:
        for path, granted in wanted:
            with contextlib.suppress(FileNotFoundError):
                _add(libc, handle, path, granted & rights)
        return libc.syscall(RESTRICT, handle, 0) == 0
    finally:
        os.close(handle)


def _add(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        beneath = _Beneath(rights if os.path.isdir(path) else rights & OF_FILES, parent)
        if libc.syscall(ADD_RULE, ruleset, PATH_BENEATH, ctypes.byref(beneath), 0) != 0:
            raise OSError(ctypes.get_errno(), f"Landlock refuses a rule for {path}")
    finally:
        os.close(parent)
