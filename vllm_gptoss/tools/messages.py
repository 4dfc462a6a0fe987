"""Calls of built-in tools and their answers, as harmony messages.

An answer comes from whom the call was for, goes to the assistant, and stays on the channel of the call.
Source: OpenAI's guide to the harmony response format, "Built-in tools".
"""

from openai_harmony import Author, Message, Role, TextContent


def text_of(call: Message) -> str:
    """What the model wrote into the body of a call."""
    return "".join(content.text for content in call.content if isinstance(content, TextContent))


def answer(call: Message, text: str) -> Message:
    message = Message(
        author=Author(role=Role.TOOL, name=call.recipient), content=[TextContent(text=text)], channel=call.channel
    )
    return message.with_recipient("assistant")
