"""What the harmony library makes of functions: the text that this package keeps where it says what the schema says."""

from collections.abc import Iterable
from functools import cache

from openai_harmony import (
    DeveloperContent,
    HarmonyEncoding,
    HarmonyEncodingName,
    Message,
    Role,
    ToolDescription,
    load_harmony_encoding,
)

from vllm_gptoss.rendering.tools import Function

BEFORE, BEHIND = "<|start|>developer<|message|>", "<|end|>"


@cache
def encoding() -> HarmonyEncoding:
    return load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)


def library_section(functions: Iterable[Function]) -> str:
    described = [ToolDescription.new(each.name, each.description or "", each.parameters) for each in functions]
    message = Message.from_role_and_content(Role.DEVELOPER, DeveloperContent.new().with_function_tools(described))
    return encoding().decode_utf8(encoding().render(message)).removeprefix(BEFORE).removesuffix(BEHIND)
