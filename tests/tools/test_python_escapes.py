"""What code in an interpreter can't do: tried from within, by Python's ways and by bare system calls."""

import platform
import re
import socket

import pytest
from cells import last as run

pytestmark = pytest.mark.usefixtures("room")

BARE = """
import ctypes, os, errno
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    ctypes.set_errno(0)
    result = libc.syscall(number, *args)
    return errno.errorcode[ctypes.get_errno()] if result == -1 else result
"""
"""`call(number, ...)`: a system call past all of Python."""
NUMBERED_HERE = pytest.mark.skipif(platform.machine() != "x86_64", reason="these are the numbers of x86_64")


# Network


@pytest.mark.parametrize(
    "attempt",
    [
        "import socket; socket.create_connection(('127.0.0.1', {port}), 2)",
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1:{port}/', timeout=2)",
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port}))",
        "import socket; socket.socket(socket.AF_INET6)",
        "import socket; socket.socket(socket.AF_UNIX).connect('/var/run/docker.sock')",
        "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
        "import socket; socket.socketpair(type=socket.SOCK_DGRAM)",
        "import socket; socket.create_server(('127.0.0.1', 0))",
        "import asyncio; asyncio.run(asyncio.open_connection('127.0.0.1', {port}))",
    ],
)
def test_no_network(attempt, listener):
    assert "Operation not permitted" in run(attempt.format(port=listener[0])).splitlines()[-1]


def test_a_socket_that_is_there_leads_nowhere_else(room, listener):
    (room / "server.sock").unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(room / "server.sock"))
        server.setblocking(False)
        code = f"""
import socket
one, other = socket.socketpair()
found = []
for attempt in (
    lambda: one.connect({str(room / "server.sock")!r}),
    lambda: one.sendto(b"x", {str(room / "server.sock")!r}),
    lambda: one.sendmsg([b"x"]),
    lambda: one.bind("\\0abstract"),
):
    try: attempt()
    except OSError as error: found.append(error.errno)
one.send(b"kept"), found, other.recv(4)
"""
        assert run(code) == "(4, [1, 1, 1, 1], b'kept')\n"
        with pytest.raises(BlockingIOError):
            server.recv(1)


@NUMBERED_HERE
def test_bare_calls_make_no_socket():
    # socket, io_uring_setup, and socket by the numbers of x32 and of the 32-bit table
    assert run(
        f"{BARE}call(41, 2, 1, 0), call(425, 8, bytes(200)), call(41 | 1 << 30, 2, 1, 0), call(359, 2, 1, 0)"
    ) == ("('EPERM', 'ENOSYS', 'ENOSYS', 'ENOSYS')\n")


# Processes


@pytest.mark.parametrize(
    "attempt",
    [
        "import os\nwhile True: os.fork()",
        "import subprocess; subprocess.run(['true'])",
        "import subprocess; subprocess.Popen('true', shell=True)",
        "import os; os.posix_spawn('/bin/true', ['true'], {})",
        "import os; os.execv('/bin/true', ['true'])",
        "import os; os.forkpty()",
        "import multiprocessing as m; m.get_context('fork').Process(target=print).start()",
        "import os; os.kill(os.getppid(), 9)",
        "import os; os.kill(-1, 9)",
        "import os; os.kill(0, 9)",
        "import os; os.killpg(os.getpgid(os.getppid()), 9)",
        "import os, signal; signal.pidfd_send_signal(os.pidfd_open(os.getppid()), 9)",
        "import os, resource; resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (0, 0))",
        "import os; os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
        "import os; os.sched_setaffinity(os.getppid(), {0})",
        "import os; os.setsid()",
        "import os; os.setpgid(0, 0)",
        "import fcntl, os; fcntl.fcntl(1, fcntl.F_SETOWN, os.getppid())",
        "import fcntl; fcntl.fcntl(open('/usr/lib/os-release'), fcntl.F_SETLEASE, fcntl.F_WRLCK)",
        "import fcntl, os, struct; fcntl.ioctl(1, 0x8901, struct.pack('i', os.getppid()))",
        "import os; open(f'/proc/{os.getppid()}/environ').read()",
        "import os; open(f'/proc/{os.getppid()}/mem', 'rb')",
        "import os; os.listdir('/proc')",
        "import os; os.memfd_create('x')",
    ],
)
def test_no_other_process(attempt):
    *lines, error = run(attempt).splitlines()
    assert re.search(r"Operation not permitted|Permission denied|Function not implemented", error), [*lines, error]


@NUMBERED_HERE
def test_bare_calls_make_no_process():
    # fork, vfork, clone, clone3, execveat, ptrace, process_vm_readv, shmget, msgget, prctl(PR_SET_PDEATHSIG)
    code = (
        "call(57), call(58), call(56, 17, 0, 0, 0, 0), call(435, bytes(88), 88), call(322, -100, b'/bin/true', 0, 0, 0)"
    )
    assert run(BARE + code) == "('EPERM', 'EPERM', 'EPERM', 'ENOSYS', 'EPERM')\n"
    code = (
        "p = os.getppid()\ncall(101, 16, p, 0, 0), call(310, p, 0, 0, 0, 0, 0), call(29, 1, 1, 512), call(68, 1, 512)"
    )
    assert run(BARE + code) == "('EPERM', 'EPERM', 'EPERM', 'EPERM')\n"
    assert run(f"{BARE}call(157, 1, 0, 0, 0, 0), call(317, 0, 0, 0), call(272, 1 << 28), call(126, 0, 0) != 0") == (
        "('EPERM', 'EPERM', 'EPERM', True)\n"
    )


def test_one_core():
    assert run("import os; len(os.sched_getaffinity(0))") == "1\n"


def test_a_signal_to_itself_is_its_own_affair():
    code = "import os, signal\nsignal.signal(signal.SIGUSR1, lambda *_: print('got it'))\n"
    assert run(f"{code}os.kill(os.getpid(), signal.SIGUSR1)") == "got it\n"


# Files


@pytest.mark.parametrize(
    "attempt",
    [
        "open('../outside', 'w')",
        "open('../beside', 'r')",
        "open('../beside', 'a')",
        "import os; os.open('../beside', os.O_RDONLY | os.O_TRUNC)",
        "import os; os.truncate('../beside', 0)",
        "import os; os.remove('../beside')",
        "import os; os.rename('../beside', 'here')",
        "import os; os.link('../beside', 'here')",
        "import os; os.symlink('x', '../link')",
        "import os; os.mkdir('../folder')",
        "import os; os.mkfifo('../fifo')",
        "import os; os.chmod('../beside', 0)",
        "import os; os.chown('../beside', 1, 1)",
        "import os; os.utime('../beside', (0, 0))",
        "import os; os.setxattr('../beside', 'user.x', b'x')",
        "import os; os.symlink('../beside', 'link'); open('link').read()",
        "import os; os.listdir('..')",
        "import os; os.listdir('/')",
        "open('/etc/passwd')",
        "open('/proc/1/cmdline')",
        "open('/proc/self/cwd' + '/..' * 32 + '/etc/passwd')",
        "open('/dev/shm/x', 'w')",
        "open('/tmp/x', 'w')",
        "import sys; open(sys.prefix + '/x', 'w')",
        "import os; os.chroot('.')",
    ],
)
def test_no_other_files(attempt, room):
    (room / "beside").write_text("precious")
    before = (room / "beside").stat()
    # Landlock takes another folder for another device.
    printed = run(attempt)
    assert re.search(r"Permission denied|Operation not permitted|cross-device link", printed.splitlines()[-1]), printed
    after = (room / "beside").stat()
    assert (room / "beside").read_text() == "precious"
    assert (before.st_mode, before.st_uid, before.st_mtime) == (after.st_mode, after.st_uid, after.st_mtime)
    assert [path.name for path in room.iterdir()] == ["beside"]


def test_its_own_files_are_its_own():
    code = """
import os, shutil, tempfile, pathlib
os.makedirs("a/b"); pathlib.Path("a/b/c").write_text("x"); os.rename("a/b/c", "d"); shutil.copyfile("d", "e")
os.symlink("d", "f"); os.link("d", "g"); open("d", "r+").truncate(0); open("/dev/null", "w").write("x")
with tempfile.TemporaryDirectory() as t: inside = t.startswith(os.getcwd())
shutil.rmtree("a"); sorted(os.listdir()), inside
"""
    assert run(code) == "(['d', 'e', 'f', 'g'], True)\n"


def test_no_capabilities_and_no_way_to_new_ones():
    found = dict(re.findall(r"(\w+):\s+(\w+)", run("print(open('/proc/self/status').read())")))
    assert {found[name] for name in ("CapPrm", "CapEff", "CapInh")} == {"0" * 16}
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")


def test_limits_can_not_be_raised():
    code = """
import resource
for kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE):
    try: resource.setrlimit(kind, (resource.RLIM_INFINITY,) * 2)
    except (ValueError, OSError): print("kept")
"""
    assert run(code) == "kept\n" * 4


def test_threads_are_as_confined():
    code = """
import socket, threading
def attempt():
    try: socket.socket()
    except OSError as error: print(error)
thread = threading.Thread(target=attempt); thread.start(); thread.join()
"""
    assert run(code) == "[Errno 1] Operation not permitted\n"
