"""The rooms of the package and what each may import, read from the source and never run."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "vllm_gptoss"

ROOMS = {
    # room: what of ours it may import; whether it may import vLLM
    "__init__": (set(), False),
    "plugin": ({"compat", "installation", "model"}, True),
    "installation": (set(), True),
    "seam": (set(), False),
    "compat": ({"seam", "model", "parsers", "grammar", "tools", "serving"}, True),
    "cli": ({"tiny", "demo"}, False),
    "__main__": ({"cli"}, False),
    "ops": ({"kernels"}, True),
    "kernels": ({"kernels"}, False),
    "model": ({"model", "ops"}, True),
    "parsers": ({"parsers"}, True),
    "grammar": ({"grammar", "parsers"}, True),
    "rendering": ({"rendering", "parsers"}, True),
    "serving": ({"serving", "rendering", "parsers"}, True),
    "tools": ({"tools", "parsers"}, True),
    "cpu": ({"cpu", "ops"}, True),
    "tiny": ({"tiny", "kernels", "model", "rendering", "serving"}, False),
    "demo": ({"demo", "tiny"}, False),
}

MUST_NOT_KNOW_VLLM = (
    *("model/config.py", "model/tensors.py", "model/checkpoint.py"),
    *(f"tools/{path.name}" for path in (PACKAGE / "tools").glob("*.py") if path.stem not in ("serving", "items")),
    *(f"rendering/{path.name}" for path in (PACKAGE / "rendering").glob("*.py") if path.stem != "serving"),
    *("serving/json_input.py", "serving/model_names.py"),
    *("grammar/turn.py", "grammar/schema.py", "grammar/compiler.py"),
    *("parsers/header.py", "parsers/harmony.py", "parsers/stop.py", "parsers/answer.py"),
)
"""Files of a room that knows vLLM which are read and tested without it."""

AT_TRAINING_TIME = ("tiny/train.py", "tiny/render.py")
"""Renders requests as vLLM's server holds them, once, on the machine of whoever trains."""

FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    tree = ast.parse((PACKAGE / path).read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room_of(path: Path) -> str:
    return path.parts[0].removesuffix(".py")


def rooms_imported(names: set[str]) -> set[str]:
    ours = {name.split(".")[1] for name in names if name.startswith("vllm_gptoss.")}
    return {name for name in ours if not name.startswith("__")} & {room_of(path) for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_point_down_only(path):
    allowed, may_know_vllm = ROOMS[room_of(path)]
    assert rooms_imported(imports(path)) <= allowed | {room_of(path)}
    if not may_know_vllm or str(path) in MUST_NOT_KNOW_VLLM:
        knows_vllm = any(name.split(".")[0] == "vllm" for name in imports(path))
        assert not knows_vllm or str(path) in AT_TRAINING_TIME, f"{path} must not import vLLM"


def test_nothing_imports_the_plugin():
    assert not [path for path in FILES if "vllm_gptoss.plugin" in imports(path)]


def test_the_plugin_imports_nothing_at_the_top():
    assert imports(Path("plugin.py"), top_level_only=True) == set()


@pytest.mark.parametrize("path", FILES, ids=str)
def test_no_work_at_import(path):
    """At the top of a module stand definitions, imports, constants and tables; no call runs alone."""
    tree = ast.parse((PACKAGE / path).read_text())
    for node in tree.body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_main = isinstance(node, ast.If) and ast.unparse(node.test) in (
            "__name__ == '__main__'",
            "TYPE_CHECKING",
        )
        # One of two modules under one name.
        is_choice = isinstance(node, ast.If) and ast.unparse(node.test) == "triton.knobs.runtime.interpret"
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        allowed = (ast.Import, ast.ImportFrom, *functions, ast.ClassDef, ast.Assign, ast.AnnAssign)
        assert is_docstring or is_main or is_choice or isinstance(node, allowed), f"{path}:{node.lineno} runs at import"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_files_stay_small(path):
    assert len((PACKAGE / path).read_text().splitlines()) <= 300


def test_no_room_for_leftovers():
    names = {path.stem for path in FILES}
    assert not names & {"utils", "common", "helpers", "misc"}
    assert not [name for name in names if name.endswith(("_v2", "_new", "_fast", "_old"))]
