"""Cases of the public compatibility test of gpt-oss as dialogues, read from a copy of it: none of them is kept here.

Each case offers one tool and asks one question; the model is to call the tool with the expected arguments.

Source: the folder `compatibility-test` of the repository openai/gpt-oss, after `npm install` and `npm install
--no-save tsx` in it.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

from vllm_gptoss.tiny.dialogues import Call, Dialogue, Turn

PRINT_TOOLS = "import('./tools.ts').then((tools) => console.log(JSON.stringify(tools.TOOLS)))"


def dialogues_of(folder: Path) -> tuple[Dialogue, ...]:
    """One dialogue a case: a thought and a call, and after the tool's answer a thought and a last word.

    Raises: FileNotFoundError for a folder without the cases; CalledProcessError where node can't read the tools.
    """
    lines = (folder / "cases.jsonl").read_text().splitlines()
    tools = _tools(folder)
    return tuple(_dialogue(number, json.loads(line), tools) for number, line in enumerate(filter(None, lines)))


def _tools(folder: Path) -> dict[str, dict[str, Any]]:
    command = ["npx", "tsx", "--eval", PRINT_TOOLS]
    printed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    return {tool["name"]: tool for tool in json.loads(printed)}


def _dialogue(number: int, case: dict[str, str], tools: dict[str, dict[str, Any]]) -> Dialogue:
    tool = tools[case["tool_name"]]
    offered = {key: tool[key] for key in ("name", "description", "parameters")}
    call = Call(tool["name"], case["expected_arguments"], tool["output"])
    turns = (
        Turn(f"This is for {tool['name']}.", call=call),
        Turn("The tool has answered.", answer="Done: the tool has answered."),
    )
    return Dialogue(f"compatibility_{number}", case["input"], turns, tools=(offered,))
