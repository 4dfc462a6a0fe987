"""Small gpt-oss checkpoints: one that has learnt to talk, and random ones that exercise the arithmetic.

Both have the layout of a published folder: a loader or a server cannot tell them from one.
"""

from pathlib import Path
from typing import Any


def write_tiny(folder: Path) -> None:
    """Write the tiny checkpoint: two layers that know the conversations of `dialogues.py` by heart."""
    from vllm_gptoss.tiny.trained import write_tiny

    write_tiny(folder)


def write_random(folder: Path, **options: Any) -> None:
    """Write a random checkpoint; the options are those of `random_weights.write_random`."""
    from vllm_gptoss.tiny.random_weights import write_random

    write_random(folder, **options)
