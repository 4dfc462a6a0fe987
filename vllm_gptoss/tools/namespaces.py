"""A user, mount, network and IPC namespace of one's own, where the kernel lets anybody have them.

Containers often forbid this. Nothing that `confine.py` reports rests on it: it is a second wall around the network,
and makes the working folder known as `/mnt/data`, the drive that harmony's description of the tool tells models of.
"""

import contextlib
import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

NEW_MOUNTS, NEW_IPC, NEW_USERS, NEW_NETWORK = 0x00020000, 0x08000000, 0x10000000, 0x40000000
BIND, RECURSIVE, PRIVATE = 4096, 16384, 1 << 18
"""Flags of `mount(2)`."""
DRIVE = "/mnt/data"


def enter() -> bool:
    """Move this process, which must have one thread, into namespaces of its own; False where that is forbidden."""
    user, group = os.getuid(), os.getgid()
    if ctypes.CDLL(None).unshare(NEW_USERS | NEW_MOUNTS | NEW_NETWORK | NEW_IPC) != 0:
        return False
    # Without a map there is no drive; the namespaces hold.
    with contextlib.suppress(OSError):
        for name, line in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            Path("/proc/self", name).write_text(line)
    return True


def mount_drive(folder: str, needed: Iterable[str]) -> bool:
    """Show `folder` at DRIVE, to this mount namespace alone; False where that can't be done.

    It hides all else in `/mnt`: if a path that is needed lies there, nothing is mounted.
    Raises: OSError when the namespace has no map of users.
    """
    above = os.path.dirname(DRIVE)
    if not os.path.isdir(above) or any(os.path.realpath(path).startswith(f"{above}/") for path in (folder, *needed)):
        return False
    libc = ctypes.CDLL(None)
    if libc.mount(b"none", b"/", None, RECURSIVE | PRIVATE, None) != 0:
        return False
    if libc.mount(b"tmpfs", above.encode(), b"tmpfs", 0, b"size=64k,mode=755") != 0:
        return False
    os.mkdir(DRIVE)
    return libc.mount(os.fsencode(folder), DRIVE.encode(), None, BIND, None) == 0
