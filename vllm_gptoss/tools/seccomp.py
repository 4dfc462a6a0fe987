"""A filter of system calls that leaves a process to itself: no network, no other process, no change of foreign files.

Up to number 423 the list of calls is closed, and those refused here are the ones that reach beyond the process. From
424 on, where numbers are the same on all architectures, only the few in `NEWER` are let through; what later kernels
add is unknown to the process. A refused call fails with EPERM, an unknown one with ENOSYS, for which libc has other
ways. The filter holds for all threads to come and can't be taken off.

Numbers: Linux' `asm/unistd_64.h` for x86_64, `asm-generic/unistd.h` for aarch64. Format: `seccomp(2)`.
"""

import ctypes
import errno
import os
import platform
import struct
from typing import NamedTuple

LOAD, EQUAL, GREATER_OR_EQUAL, AND, RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
"""Instructions of classic BPF, on 32 bits: LD|W|ABS, JMP|JEQ|K, JMP|JGE|K, ALU|AND|K, RET|K."""
ALLOW, FAIL = 0x7FFF0000, 0x00050000
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16
"""Offsets in `struct seccomp_data`; both architectures are little-endian."""
ALL = 0xFFFFFFFF

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2

FIRST_NEWER = 424
NEWER = {"close_range": 436, "faccessat2": 439, "epoll_pwait2": 441, "futex_waitv": 449}

REFUSED = {
    # name: (x86_64, aarch64), None where there is no such call
    **{"socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "accept": (43, 202)},
    **{"accept4": (288, 242), "sendmsg": (46, 211), "sendmmsg": (307, 269)},
    # Other programs and processes.
    **{"fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281), "uselib": (134, None)},
    **{"tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "ptrace": (101, 117)},
    **{"process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272), "setsid": (112, 157)},
    **{"setpgid": (109, 154), "setpriority": (141, 140), "ioprio_set": (251, 30), "sched_setparam": (142, 118)},
    **{"sched_setscheduler": (144, 119), "sched_setattr": (314, 274), "sched_setaffinity": (203, 122)},
    **{"migrate_pages": (256, 238), "move_pages": (279, 239)},
    # What outlives a process, or is memory that no limit counts.
    **{"shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190), "msgget": (68, 186)},
    **{"semop": (65, 193), "semctl": (66, 191), "semtimedop": (220, 192), "shmdt": (67, 197)},
    **{"msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187)},
    **{"mq_open": (240, 180), "mq_unlink": (241, 181), "memfd_create": (319, 279)},
    **{"add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219)},
    # Changes of files that Landlock does not govern, and views of them.
    **{"chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "chown": (92, None), "fchown": (93, 55)},
    **{"lchown": (94, None), "fchownat": (260, 54), "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7)},
    **{"removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16), "utime": (132, None)},
    **{"utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88), "truncate": (76, 45)},
    **{"inotify_init": (253, None), "inotify_init1": (294, 26), "fanotify_init": (300, 262), "quotactl": (179, 60)},
    **{"name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "sync": (162, 81), "syncfs": (306, 267)},
    # The system.
    **{"unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "chroot": (161, 51)},
    **{"pivot_root": (155, 41), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282)},
    **{"modify_ldt": (154, None), "personality": (135, 92), "seccomp": (317, 277), "syslog": (103, 116)},
    **{"kexec_load": (246, 104), "init_module": (175, 105), "finit_module": (313, 273), "reboot": (169, 142)},
}


class Only(NamedTuple):
    """The call is made when an argument, masked, is (or, with `allows` false, is not) one of the values."""

    numbers: tuple[int | None, int | None]
    argument: int
    values: tuple[int, ...]
    mask: int = ALL
    allows: bool = True
    is_pointer: bool = False
    """All 64 bits must be zero."""


CLONE_THREAD = 0x10000
SOCK_STREAM, SOCK_TYPES = 1, 0xF
HARMLESS_IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX."""
REACHES_OTHERS = (8, 10, 15, 1024, 1026)
"""F_SETOWN, F_SETSIG, F_SETOWN_EX: the kernel sends a signal to a process that is named; F_SETLEASE: others who open
the file wait; F_NOTIFY: it tells what others do in a folder."""
PR_SET_PDEATHSIG = 1
TRUNCATES_WITHOUT_WRITING = (os.O_TRUNC, os.O_TRUNC | os.O_ACCMODE)
"""Flags of an `open` that Landlock before its third version took for reading."""


def conditions(pid: int) -> list[Only]:
    """Calls that are refused by what they ask for."""
    trunc = os.O_TRUNC | os.O_ACCMODE
    return [
        Only((56, 220), 0, (CLONE_THREAD,), CLONE_THREAD),
        Only((62, 129), 0, (pid,)),  # kill
        Only((234, 131), 0, (pid,)),  # tgkill
        Only((302, 261), 0, (0,)),  # prlimit64
        Only((53, 199), 1, (SOCK_STREAM,), SOCK_TYPES),  # socketpair: one of datagrams could be connected anew
        Only((44, 206), 4, (0,), is_pointer=True),  # sendto an address
        Only((16, 29), 1, HARMLESS_IOCTLS),
        Only((72, 25), 1, REACHES_OTHERS, allows=False),  # fcntl
        Only((157, 167), 0, (PR_SET_PDEATHSIG,), allows=False),
        Only((2, None), 1, TRUNCATES_WITHOUT_WRITING, trunc, allows=False),  # open
        Only((257, 56), 2, TRUNCATES_WITHOUT_WRITING, trunc, allows=False),  # openat
    ]


def program(machine: str, pid: int) -> bytes:
    """The filter for a process, as `struct sock_filter[]`.

    Raises: ValueError for another machine than x86_64 and aarch64.
    """
    column = list(ARCHITECTURES).index(machine)
    refuse, unknown = (RETURN, 0, 0, FAIL | errno.EPERM), (RETURN, 0, 0, FAIL | errno.ENOSYS)
    allow = (RETURN, 0, 0, ALLOW)
    code = [(LOAD, 0, 0, ARCHITECTURE), (EQUAL, 1, 0, ARCHITECTURES[machine]), unknown, (LOAD, 0, 0, NUMBER)]
    for number in NEWER.values():
        code += [(EQUAL, 0, 1, number), allow]
    # This takes in the numbers of x32 too, which begin at 2^30.
    code += [(GREATER_OR_EQUAL, 0, 1, FIRST_NEWER), unknown]
    for numbers in REFUSED.values():
        if numbers[column] is not None:
            code += [(EQUAL, 0, 1, numbers[column]), refuse]
    for only in conditions(pid):
        if only.numbers[column] is None:
            continue
        match, other = (allow, refuse) if only.allows else (refuse, allow)
        low = ARGUMENTS + 8 * only.argument
        body = [(LOAD, 0, 0, low + 4), (EQUAL, 1, 0, 0), other] if only.is_pointer else []
        body += [(LOAD, 0, 0, low), (AND, 0, 0, only.mask)]
        for value in only.values:
            body += [(EQUAL, 0, 1, value), match]
        code += [(EQUAL, 0, len(body) + 1, only.numbers[column]), *body, other]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in [*code, allow])


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def install() -> bool:
    """Put the filter on this thread and its future ones; False where this machine or kernel has none.

    The process must have given up new privileges.
    """
    if platform.machine() not in ARCHITECTURES:
        return False
    code = program(platform.machine(), os.getpid())
    instructions = ctypes.create_string_buffer(code, len(code))
    fprog = _Program(len(code) // 8, ctypes.addressof(instructions))
    return ctypes.CDLL(None).prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(fprog), 0, 0) == 0
