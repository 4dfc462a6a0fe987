"""The README names what is there, and nothing else."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PACKAGE = ROOT / "vllm_gptoss"


def listed_files() -> set[str]:
    """Paths below the package that the table of files has a line for."""
    table = README.split("## Files")[1].split("\n## ")[0]
    room, files = "", set()
    for cell in re.findall(r"^\| (.*?) \|", table, flags=re.MULTILINE):
        if cell.startswith("**"):
            named = re.search(r"`(\w+/)`", cell)
            room = named[1] if named else ""
        files |= {room + name for name in re.findall(r"`(\w+\.py)`", cell)}
    return files


def test_the_table_lists_each_file():
    there = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"}
    assert listed_files() == there


def test_links_lead_somewhere():
    links = re.findall(r"\]\((?!http|#)([^)]+)\)", README)
    assert links
    assert all((ROOT / link).exists() for link in links)
