"""The official Python client of OpenAI does a task with functions: ask, run what is called, send results, be told."""

import json
from collections.abc import Callable, Iterator

import openai
import pytest
from pydantic import BaseModel

MODEL = "openai/gpt-oss-20b"
TURNS = 4
"""More than any task takes."""

Run = Callable[[str, str], str]
"""A function's name and its arguments as JSON, to its result."""


class GetWeather(BaseModel):
    """The weather in a city right now."""

    city: str


class GetTime(BaseModel):
    """The local time in a city."""

    city: str


CHAT_TOOLS = [
    openai.pydantic_function_tool(GetWeather, name="get_weather"),
    openai.pydantic_function_tool(GetTime, name="get_time"),
]
RESPONSES_TOOLS = [{"type": "function", **tool["function"]} for tool in CHAT_TOOLS]


def chat_message(client: openai.OpenAI, messages: list):
    completion = client.chat.completions.create(model=MODEL, messages=messages, tools=CHAT_TOOLS)
    return completion.choices[0].message


def chat_message_streamed(client: openai.OpenAI, messages: list):
    with client.chat.completions.stream(model=MODEL, messages=messages, tools=CHAT_TOOLS) as stream:
        return stream.get_final_completion().choices[0].message


def response(client: openai.OpenAI, items: list, **options):
    return client.responses.create(model=MODEL, input=items, tools=RESPONSES_TOOLS, **options)


def response_streamed(client: openai.OpenAI, items: list, **options):
    with client.responses.stream(model=MODEL, input=items, tools=RESPONSES_TOOLS, **options) as stream:
        return stream.get_final_response()


def by_chat(ask: Callable, client: openai.OpenAI, question: str, run: Run) -> str | None:
    """The answer; messages go back as the client's own objects."""
    messages: list = [{"role": "user", "content": question}]
    for _ in range(TURNS):
        message = ask(client, messages)
        messages.append(message)
        if not message.tool_calls:
            return message.content
        for call in message.tool_calls:
            result = run(call.function.name, call.function.arguments)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    return None


def by_responses(ask: Callable, client: openai.OpenAI, question: str, run: Run) -> str | None:
    """The answer; the client keeps all items."""
    items: list = [{"role": "user", "content": question}]
    for _ in range(TURNS):
        answer = ask(client, items, store=False)
        items += answer.output
        outputs = list(outputs_of(answer, run))
        if not outputs:
            return answer.output_text
        items += outputs
    return None


def by_stored_responses(ask: Callable, client: openai.OpenAI, question: str, run: Run) -> str | None:
    """The answer; the server keeps what was said."""
    answer = ask(client, [{"role": "user", "content": question}])
    for _ in range(TURNS):
        outputs = list(outputs_of(answer, run))
        if not outputs:
            return answer.output_text
        answer = ask(client, outputs, previous_response_id=answer.id)
    return None


def outputs_of(answer, run: Run) -> Iterator[dict[str, str]]:
    for item in answer.output:
        if item.type == "function_call":
            output = run(item.name, item.arguments)
            yield {"type": "function_call_output", "call_id": item.call_id, "output": output}


@pytest.fixture(scope="module")
def official(url) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key="none", timeout=120, max_retries=0) as client:
        yield client


@pytest.mark.parametrize(
    ("loop", "ask"),
    [
        (by_chat, chat_message),
        (by_chat, chat_message_streamed),
        (by_responses, response),
        (by_responses, response_streamed),
        (by_stored_responses, response),
        (by_stored_responses, response_streamed),
    ],
    ids=lambda way: way.__name__,
)
def test_a_task_with_the_openai_client(official, task, calls, results, loop, ask):
    called = []

    def run(name: str, arguments: str) -> str:
        called.append((name, json.loads(arguments)))
        return results[name]

    assert loop(ask, official, task.user, run) == task.turns[-1].answer
    assert called == calls
