"""The examples run as they stand."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from openai_harmony import HarmonyEncodingName, load_harmony_encoding

from vllm_gptoss.tiny.dialogues import RIDDLE

OFFLINE = Path(__file__).parents[1] / "examples" / "offline_prefill.py"

THOUGHT = "<|channel|>analysis<|message|>t<|end|><|start|>assistant"


@pytest.fixture(scope="module")
def offline():
    spec = importlib.util.spec_from_file_location(OFFLINE.stem, OFFLINE)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        # The example sets it where it is not set, for a process of its own.
        patch.setenv("VLLM_LOGGING_STREAM", "ext://sys.stderr")
        spec.loader.exec_module(module)
    return module


def test_offline_prefill_prints_the_reasoning_and_the_answer_as_json_lines(shell):
    done = subprocess.run(
        [sys.executable, OFFLINE], env=shell, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr[-2000:]
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    (turn,) = RIDDLE.turns
    assert [(message["channel"], message["content"][0]["text"]) for message in messages] == [
        ("analysis", turn.reasoning),
        ("final", turn.answer),
    ]


@pytest.mark.parametrize(
    ("generated", "texts"),
    [
        (f"{THOUGHT}<|channel|>final<|message|>Hi<|return|>", ["t", "Hi"]),
        (f"{THOUGHT}<|channel|>final<|message|>Hi", ["t", "Hi"]),
        (f"{THOUGHT}<|channel|>final<|message|>Hi<|return|><|return|>", ["t", "Hi"]),
        (f"{THOUGHT}<|channel|>fin", ["t"]),
        (THOUGHT, ["t"]),
        ("<|channel|>analysis<|message|>t", ["t"]),
        (
            f"{THOUGHT}<|channel|>commentary to=functions.f <|constrain|>json<|message|>{{}}<|call|>",
            ["t", "{}"],
        ),
        ("<|channel|>analysis<|message|>t<|end|>no header", ["t"]),
        ("no harmony at all", []),
        ("<|return|>", []),
        ("", []),
    ],
)
def test_offline_prefill_parses_whatever_was_generated(offline, generated, texts):
    encoding = load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)
    messages = offline.parse(encoding, encoding.encode(generated, allowed_special="all"))
    assert [message.content[0].text for message in messages] == texts
