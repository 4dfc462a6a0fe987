"""What stands in front of a conversation: the system message, and the developer's.

    system      identity, dates, reasoning effort, built-in tools, valid channels
    developer   # Instructions, # Tools (functions), # Response Formats

Both are text here, so that what the harmony library's types cannot say can be said; where they can, the text is theirs.

Source: OpenAI's guide to the harmony response format, "System message format", "Developer message format" and
"Structured output".
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

IDENTITY = "You are ChatGPT, a large language model trained by OpenAI."
KNOWLEDGE_CUTOFF = "2024-06"

EFFORTS = {
    "none": "low",
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}
"""The efforts that clients ask for, and the nearest of the three that the model was trained on."""
DEFAULT_EFFORT = "medium"

CHANNELS = "# Valid channels: analysis, commentary, final. Channel must be included for every message."
FUNCTIONS_IN_COMMENTARY = "Calls to these tools must go to the commentary channel: 'functions'."


class UnknownEffortError(ValueError):
    """No reasoning effort of this name."""


class ResponseFormat(NamedTuple):
    """What a final answer must look like."""

    name: str
    schema: Mapping[str, Any]
    description: str | None = None


def trained_effort(effort: str | None) -> str:
    """The effort that the prompt names.

    Raises: UnknownEffortError, naming those that are known.
    """
    if effort is None:
        return DEFAULT_EFFORT
    if not isinstance(effort, str) or effort not in EFFORTS:
        raise UnknownEffortError(f"reasoning effort {effort!r} is none of {', '.join(EFFORTS)}")
    return EFFORTS[effort]


def system_text(
    date: str | None,
    effort: str | None = None,
    identity: str | None = None,
    builtin_tools: Sequence[str] = (),
    has_functions: bool = False,
) -> str:
    """The system message. `date` as YYYY-MM-DD; `builtin_tools` as sections `## name` and what follows.

    Raises: UnknownEffortError.
    """
    dates = f"{identity or IDENTITY}\nKnowledge cutoff: {KNOWLEDGE_CUTOFF}"
    sections = [f"{dates}\nCurrent date: {date}" if date else dates, f"Reasoning: {trained_effort(effort)}"]
    if builtin_tools:
        sections += ["# Tools", *builtin_tools]
    sections.append(f"{CHANNELS}\n{FUNCTIONS_IN_COMMENTARY}" if has_functions else CHANNELS)
    return "\n\n".join(sections)


def developer_text(
    instructions: str | None = None, tools: str | None = None, response_format: ResponseFormat | None = None
) -> str | None:
    """The developer message, or None where there is nothing to say. `tools` is the section of tools.py."""
    sections = []
    if instructions:
        sections.append(f"# Instructions\n\n{instructions}")
    if tools:
        sections.append(tools)
    if response_format:
        sections.append(f"# Response Formats\n\n{_format_section(response_format)}")
    return "\n\n".join(sections) or None


def _format_section(wanted: ResponseFormat) -> str:
    lines = [f"## {wanted.name}\n"]
    lines += [f"// {line}" for line in (wanted.description or "").splitlines()]
    # As the published prompts have it: one line, keys in the order that they came in.
    lines.append(json.dumps(wanted.schema, ensure_ascii=False, separators=(",", ":")))
    return "\n".join(lines)
