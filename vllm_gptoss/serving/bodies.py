"""Bodies of requests that vLLM ends over, in its validation or where something behind it can't have a value."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from vllm.exceptions import VLLMValidationError

HALF = re.compile("[\ud800-\udfff]")
"""JSON may hold one; Python joins two that belong together."""
REPLACEMENT = "\ufffd"
LARGEST = (1 << 63) - 1
"""What vLLM's messages to its engine take, and PyTorch."""
DEEPEST = 200
"""Levels of objects and arrays: Python recurses over them, at most 1000 calls deep."""
OF_ANY_SIZE = ("messages", "tools", "tool_choice", "response_format", "structured_outputs", "input", "text", "metadata")
"""Fields whose numbers are text to the model, or a schema's, which has a check of its own."""
CONVERSATION = ("messages", "input", "instructions", "previous_input_messages")
"""Fields that the model reads."""
TEXTS = {
    *("content", "text", "refusal", "reasoning", "reasoning_content", "summary", "instructions"),
    *("arguments", "action", "operation", "input", "code", "output", "outputs", "error"),
}
"""What is text within them: messages and their parts, arguments of calls, and what tools return."""


def checked(data: Any, validate: Callable[[Any], Any]) -> Any:
    """What `validate` makes of the fields; text of a conversation has U+FFFD where half of a surrogate pair was.

    Raises: VLLMValidationError that names a field with what no part of the server can take, and what `validate` raises.
    """
    mended = {}
    for field, value in data.items() if isinstance(data, Mapping) else ():
        problem = _problem(field) or _problem(value, field not in OF_ANY_SIZE)
        if problem and field in CONVERSATION:
            mended[field] = _mended(value, isinstance(value, str))
            problem = _problem(mended[field], field not in OF_ANY_SIZE)
        if problem:
            shown = str(field).encode(errors="replace").decode()[:80]
            raise VLLMValidationError(f"{shown} {problem}", parameter=shown)
    if isinstance(data, Mapping) and data.get("allowed_token_ids") and (form := _form(data)):
        raise VLLMValidationError(
            f"allowed_token_ids can't stand beside {form}, which needs tokens of its own: leave one of them out",
            parameter="allowed_token_ids",
        )
    return validate({**data, **mended} if mended else data)


def explained(data: Any, validate: Callable[[Any], Any]) -> Any:
    """vLLM's own validation; it looks into values before their types are checked, and ends over some.

    Raises: ValidationError by vLLM, and ValueError where it would end with another error.
    """
    try:
        return validate(data)
    except (AttributeError, TypeError, KeyError) as error:
        raise ValueError(f"a field has a value of a type that it can't have: {error}") from error


def _form(data: Mapping) -> str | None:
    """The field that asks for a form of answer; the engine ends a request that it has no token left for."""
    wanted = data.get("response_format")
    if isinstance(wanted, Mapping) and wanted.get("type") != "text":
        return "response_format"
    return "structured_outputs" if data.get("structured_outputs") else None


def _mended(value: Any, is_text: bool, depth: int = 0) -> Any:
    """The value, with no half of a surrogate pair in what is text of it."""
    if isinstance(value, str):
        return HALF.sub(REPLACEMENT, value) if is_text else value
    if depth > DEEPEST:
        return value
    if isinstance(value, Mapping):
        return {_mended(key, is_text): _mended(each, is_text or key in TEXTS, depth + 1) for key, each in value.items()}
    return [_mended(each, is_text, depth + 1) for each in value] if isinstance(value, list) else value


def _problem(value: Any, numbers: bool = False) -> str | None:
    """What is wrong with a value, or within it."""
    level, depth = [value], 0
    while level:
        inner = []
        for each in level:
            if isinstance(each, str):
                if not each.isascii() and HALF.search(each):
                    return (
                        "has half of a surrogate pair, such as \\ud800 without its other half, "
                        "which no tokenizer reads: send the whole character, or leave it out"
                    )
            elif isinstance(each, Mapping):
                inner += each.keys()
                inner += each.values()
            elif isinstance(each, list):
                inner += each
            elif numbers and isinstance(each, int) and abs(each) > LARGEST:
                return f"has a number beyond 64 bits: at most {LARGEST}"
        level, depth = inner, depth + 1
        if depth > DEEPEST:
            return f"is nested too deeply: objects and arrays may nest at most {DEEPEST} levels"
    return None
