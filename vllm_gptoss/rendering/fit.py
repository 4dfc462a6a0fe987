"""A conversation that is too long loses its oldest steps, whole.

    preamble | step step ... | the last question | step step ... step
    stays      go first        stays               go next        stays

A step is what the assistant says up to its calls, with their results, or what somebody else says. Cutting tokens off
either end, as is done with plain text, would take the instructions or the end of the last question.
"""

import bisect
from collections.abc import Sequence

from openai_harmony import Message, Role

from vllm_gptoss.rendering.prompt import Ending, RenderError, render_prompt


def fitting(messages: Sequence[Message], limit: int, ending: Ending = Ending.ASSISTANT) -> list[int]:
    """Token ids of the prompt without as many of the oldest steps as it takes to have at most `limit`.

    Raises: RenderError when what has to stay is longer.
    """
    ids = render_prompt(messages, ending)
    if len(ids) <= limit:
        return ids
    preamble, steps = _steps(messages)
    questions = [i for i, step in enumerate(steps) if step[0].author.role == Role.USER]
    stays = {questions[-1] if questions else 0, len(steps) - 1}
    leave = [i for i in range(len(steps)) if i not in stays]

    def without(count: int) -> list[int]:
        gone = set(leave[:count])
        kept = (message for i, step in enumerate(steps) if i not in gone for message in step)
        return render_prompt([*preamble, *kept], ending)

    count = bisect.bisect_left(range(len(leave)), True, key=lambda count: len(without(count)) <= limit)
    ids = without(count)
    if len(ids) > limit:
        raise RenderError(
            f"the prompt can't be truncated to {limit} tokens: its instructions, tools and last message take {len(ids)}"
        )
    return ids


def _steps(messages: Sequence[Message]) -> tuple[list[Message], list[list[Message]]]:
    """The system message with the developer's behind it, and all else in steps."""
    roles = [message.author.role for message in messages]
    start = next((i for i, role in enumerate(roles) if role not in (Role.SYSTEM, Role.DEVELOPER)), len(roles))
    steps: list[list[Message]] = []
    for message, role, before in zip(messages[start:], roles[start:], [None, *roles[start:]], strict=False):
        goes_on = role == Role.TOOL or (role == Role.ASSISTANT and before == Role.ASSISTANT)
        if steps and goes_on:
            steps[-1].append(message)
        else:
            steps.append([message])
    return list(messages[:start]), steps
