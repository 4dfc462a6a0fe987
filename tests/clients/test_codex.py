"""OpenAI's Codex does what it is asked with its own shell, and says so: it writes a file, and lists a folder's."""

import json
import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vllm_gptoss.tiny import dialogues
from vllm_gptoss.tiny.dialogues import Dialogue

MODEL = "openai/gpt-oss-20b"
SECONDS = 600
PROVIDER = """
[model_providers.here]
name = "here"
base_url = "{url}"
wire_api = "responses"
"""
QUIET = {"check_for_update_on_startup": False, "analytics.enabled": False}
BRIEF = {
    "include_permissions_instructions": False,
    "skills.include_instructions": False,
    "skills.bundled.enabled": False,
    "features.multi_agent": False,
    "features.goals": False,
}
"""Codex's own instructions are 7,000 tokens long; the tiny model has learnt to see past 1,600."""

pytestmark = pytest.mark.skipif("CODEX" not in os.environ, reason="`make clients` installs Codex and names its program")


@pytest.fixture
def codex(url, shell, tmp_path) -> Callable[..., list[dict[str, Any]]]:
    """`codex(question, folder, settings, *flags)`: the items that `codex exec` completes."""

    def run(question: str, folder: Path, settings: dict[str, bool], *flags: str) -> list[dict[str, Any]]:
        home = tmp_path / "home"
        home.mkdir()
        (home / "config.toml").write_text(PROVIDER.format(url=url))
        (home / "brief.md").write_text("You are a coding agent.")
        said = {"model": MODEL, "model_provider": "here", **QUIET, **settings}
        if settings:
            said["model_instructions_file"] = str(home / "brief.md")
        options = [option for key, value in said.items() for option in ("-c", f"{key}={json.dumps(value)}")]
        ran = subprocess.run(
            [os.environ["CODEX"], "exec", "--json", "--skip-git-repo-check", *flags, *options, question],
            cwd=folder,
            env=shell | {"HOME": str(home), "CODEX_HOME": str(home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
        events = map(json.loads, ran.stdout.splitlines())
        return [event["item"] for event in events if event["type"] == "item.completed"]

    return run


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


def messages_of(items: list[dict[str, Any]]) -> list[str]:
    return [item["text"] for item in items if item["type"] == "agent_message"]


def command_of(items: list[dict[str, Any]], dialogue: Dialogue) -> dict[str, Any]:
    """The only command that was run: the one that the dialogue calls for, and it succeeded."""
    (command,) = [item for item in items if item["type"] == "command_execution"]
    asked = json.loads(dialogue.turns[0].call.arguments)["cmd"]
    assert shlex.split(command["command"])[-1] == asked
    assert command["exit_code"] == 0, command
    return command


@pytest.mark.parametrize(("word", "name"), [("hello", "notes.txt"), ("rain", "letter.txt")])
def test_codex_writes_a_file(codex, folder, word, name):
    dialogue = dialogues.write(word, name)
    # Its message about a sandbox that may write speaks of writing so much that the tiny model takes the question for
    # another one, about once in nine times.
    items = codex(dialogue.user, folder, BRIEF, "--sandbox=danger-full-access")
    command_of(items, dialogue)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {name: f"{word}\n"}
    assert messages_of(items) == [dialogue.turns[-1].answer]


@pytest.mark.parametrize("name", dialogues.FILES[:2])
def test_codex_tells_what_its_command_found(codex, folder, name):
    (folder / name).touch()
    dialogue = dialogues.files(name)
    items = codex(dialogue.user, folder, BRIEF)
    assert command_of(items, dialogue)["aggregated_output"] == f"{name}\n"
    assert messages_of(items) == [dialogue.turns[-1].answer]


def test_all_that_codex_sends_by_itself(codex, tmp_path):
    """Instructions, skills and every tool: whatever the model makes of them, it is one of its answers."""
    (said,) = messages_of(codex(dialogues.PLAIN[0].user, tmp_path, {}))
    answers = {turn.answer for dialogue in dialogues.DIALOGUES for turn in dialogue.turns}
    assert said in {*answers, dialogues.UNKNOWN.answer} - {None}
