"""Harmony output: token ids in; reasoning, content and calls out, with nothing lost."""
