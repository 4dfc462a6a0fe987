"""Every kernel compiles for every GPU it is for, fits it, and on Hopper keeps its values in registers."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aot
import pytest

CASES = [(name, capability) for name, launch in aot.LAUNCHES.items() for capability in launch.capabilities]


@pytest.fixture(scope="session")
def compiled(request, tmp_path_factory) -> Iterator[dict[tuple[str, int], list[dict]]]:
    """Rows of each launch and capability, from a process that does not interpret; their table ends the session."""
    env = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    env["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    done = subprocess.run([sys.executable, Path(aot.__file__)], env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    found = {}
    for row in rows:
        found.setdefault((row["launch"], row["capability"]), []).append(row)
    yield found
    rows = [row for row in rows if row["launch"] != aot.SPILLING]
    with request.config.pluginmanager.get_plugin("capturemanager").global_and_fixture_disabled():
        print(f"\n\n{table(rows)}")


def table(rows: list[dict]) -> str:
    lines = [f"{'launch':34}{'kernel':28}{'sm':>5}{'warps':>7}{'registers':>11}{'shared':>9}{'stack':>7}"]
    for row in rows:
        if "error" not in row:
            cells = f"{row['launch']:34}{row['kernel']:28}{row['capability']:>5}{row['warps']:>7}"
            lines.append(f"{cells}{row['registers']:>11}{row['shared']:>9}{row['stack']:>7}")
    return "\n".join(lines)


@pytest.mark.parametrize(("name", "capability"), CASES, ids=str)
def test_it_compiles(name, capability, compiled):
    rows = compiled[name, capability]
    assert not [row["error"] for row in rows if "error" in row]
    for row in rows:
        assert row["shared"] <= aot.SHARED_LIMITS[capability] << 10
        # Of the other GPUs the table tells.
        assert capability != 90 or not row["stack"], f"{row['kernel']} spills {row['stack']} bytes"


@pytest.mark.parametrize("capability", aot.SHARED_LIMITS)
def test_spills_are_seen(capability, compiled):
    (row,) = compiled[aot.SPILLING, capability]
    assert row["stack"] > 0
