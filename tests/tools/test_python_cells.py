"""Cells, as in a notebook: what they print, what they keep, and what is said of those that fail."""

import asyncio
import os
import time

import pytest
from cells import QUICK, assert_nothing_left, last, run

from vllm_gptoss.tools.interpreter import MOST_CODE
from vllm_gptoss.tools.limits import Limits
from vllm_gptoss.tools.output import Output
from vllm_gptoss.tools.python import LOST, SILENT, Interpreters

pytestmark = pytest.mark.usefixtures("room")


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (("1 + 1",), "2\n"),
        (("'é😀'",), "'é😀'\n"),
        (("x = 1",), SILENT),
        (("None",), SILENT),
        (("",), SILENT),
        (("# nothing",), SILENT),
        (("print('a'); 5",), "a\n5\n"),
        (("for i in range(3):\n    print(i)",), "0\n1\n2\n"),
        (("x = 41", "def f():\n    return x + 1", "f()"), "42\n"),
        (("3 * 7", "_ + 1"), "22\n"),
        (("class A: pass", "import pickle; pickle.loads(pickle.dumps(A())).__class__ is A"), "True\n"),
        (("import sys; print('o'); print('e', file=sys.stderr); print('o')",), "o\ne\no\n"),
        (("import os; os.write(1, b'raw\\n'); os.write(2, b'err\\n'); 7",), "raw\nerr\n7\n"),
        (("import ctypes; ctypes.CDLL(None).printf(b'from C\\n'); 0",), "0\nfrom C\n"),
        (("import sys; sys.stdout.close(); sys.stderr = None", "print('back')"), "back\n"),
        (("import os; os.close(1); os.close(2)", "print('back')"), "back\n"),
        (("import os; _ = os.write(1, b'\\xff\\xfe\\n')",), "\ufffd\ufffd\n"),
        (("exit()", "1"), "1\n"),
        (("__name__",), "'__main__'\n"),
        (("open('m.py', 'w').write('v = 3')", "import m; m.v"), "3\n"),
        (("import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    return 8", "asyncio.run(f())"), "8\n"),
        (("from concurrent.futures import ThreadPoolExecutor as T; list(T(3).map(abs, [-1, 2]))",), "[1, 2]\n"),
        (("import numpy as np; (np.arange(4).reshape(2, 2) @ np.eye(2)).tolist()",), "[[0.0, 1.0], [2.0, 3.0]]\n"),
    ],
)
def test_cells(cells, expected):
    assert last(*cells) == expected


def test_errors_are_shown_as_in_a_notebook_and_state_is_kept():
    cells = ["x = 1", "def f(y):\n    return y / 0", "x = 2\nprint('before')\nf(3)", "x", "if", "f('\x00')", "input()"]
    *_, error, kept, syntax, null, closed = run(*cells)
    assert error == (
        "before\nTraceback (most recent call last):\n"
        '  File "<cell 3>", line 3, in <module>\n    f(3)\n'
        '  File "<cell 2>", line 2, in f\n    return y / 0\n           ~~^~~\n'
        "ZeroDivisionError: division by zero\n"
    )
    assert kept == "2\n"
    assert syntax == '  File "<cell 5>", line 1\n    if\n      ^\nSyntaxError: invalid syntax\n'
    assert "null bytes" in null
    assert closed.endswith("EOFError: EOF when reading a line\n")


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("raise SystemExit(3)", "SystemExit: 3\n"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt\n"),
        ("raise BaseException('x')", "BaseException: x\n"),
        ("def f(): f()\nf()", "RecursionError: maximum recursion depth exceeded\n"),
        ("class E(Exception):\n    def __str__(self): raise E\nraise E", "<exception str() failed>\n"),
        ("class R:\n    def __repr__(self): 1 / 0\nR()", "ZeroDivisionError: division by zero\n"),
        ("'\\ud800'.encode()", "surrogates not allowed\n"),
        ("(" * 100, "was never closed\n"),
        ("(" * 1000, "too many nested parentheses\n"),
        ("-" * 60_000 + "1", "\n"),
    ],
)
def test_what_code_raises(cell, said):
    printed, kept = run(cell, "'kept'")
    assert printed.endswith(said)
    assert kept == "'kept'\n"


def test_what_can_not_be_a_cell():
    long, surrogate, longest = run("x" * (MOST_CODE + 1), "'\ud800'", f"#{'x' * (MOST_CODE - 3)}\n7")
    assert (
        long == f"The code was not run: the code has {MOST_CODE + 1:,} bytes; {MOST_CODE:,} are possible in one call."
    )
    assert surrogate.startswith("The code was not run: 'utf-8' codec")
    assert longest == "7\n"


def test_the_environment_has_three_variables(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    found = eval(last("import os, sys; dict(os.environ), os.getcwd(), sys.argv"))
    (environment, folder, arguments) = found
    assert environment == {"PATH": os.defpath, "LANG": "C.UTF-8", "HOME": folder}
    assert arguments == [""]


def test_sessions_know_nothing_of_each_other(room):
    async def two():
        live = Interpreters(QUICK)
        async with live.session() as one, live.session() as other:
            await one.run("x = 1; open('f', 'w').write('x')")
            assert len(list(room.glob("*"))) == 1, "an interpreter starts with its first call"
            return await other.run("import os; print(os.listdir()); x")

    assert asyncio.run(two()).splitlines()[0] == "[]"
    assert_nothing_left(room)


# Output


def test_output_is_cut_in_the_middle():
    limits = Limits(output_bytes=100)
    printed = last("print('a' * 50 + 'b' * 900 + 'c' * 49)", limits=limits)
    assert printed == "a" * 50 + "\n[... 900 of 1,000 bytes of output cut here ...]\n" + "c" * 49 + "\n"
    assert last("print('x' * 99)", limits=limits) == "x" * 99 + "\n"


def test_a_flood_ends_the_interpreter():
    start = time.monotonic()
    printed = last("while True: print('flood' * 1000)", limits=Limits(wall_seconds=20))
    assert time.monotonic() - start < 10
    assert printed.startswith("floodflood")
    assert printed.endswith(f"[The interpreter has ended: the code printed more than 16 MB. {LOST}]")
    assert len(printed) < Limits().output_bytes + 300


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 25])
@pytest.mark.parametrize("letter", ["x", "é", "😀"])
@pytest.mark.parametrize("step", [1, 3, 100])
def test_output_within_its_limit(size, letter, step):
    output = Output(10)
    data = (letter * size).encode()
    for start in range(0, len(data), step):
        output.write(data[start : start + step])
    if len(data) <= 10:
        assert output.text == letter * size
    else:
        head, note, tail = output.text.split("\n")
        assert set(head + tail) <= {letter}
        assert len((head + tail).encode()) > 10 - 2 * len(letter.encode())
        assert f"{len(data) - 10:,} of {len(data):,}" in note
