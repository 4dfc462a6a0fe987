"""Does one task with LiteLLM, in the environment that it is installed in.

Standard input: `url`, `model`, `question`, `results` of the functions, `streamed`. Standard output: the answer, and
what was called with what.
"""

import json
import sys
from typing import Any

import litellm

TURNS = 4
"""More than any task takes."""


def tool(name: str, description: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


TOOLS = [
    tool("get_weather", "The weather in a city right now."),
    tool("get_time", "The local time in a city."),
]


def main(url: str, model: str, question: str, results: dict[str, str], streamed: bool) -> dict[str, Any]:
    called: list = []
    messages: list = [{"role": "user", "content": question}]
    for _ in range(TURNS):
        options = {"model": f"hosted_vllm/{model}", "api_base": url, "messages": messages, "tools": TOOLS}
        answer = litellm.completion(stream=streamed, timeout=120, **options)
        if streamed:
            answer = litellm.stream_chunk_builder(list(answer), messages=messages)
        message = answer.choices[0].message
        messages.append(message.model_dump())
        if not message.tool_calls:
            return {"answer": message.content, "called": called}
        for call in message.tool_calls:
            called.append((call.function.name, json.loads(call.function.arguments)))
            result = results[call.function.name]
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    return {"answer": None, "called": called}


if __name__ == "__main__":
    print(json.dumps(main(**json.load(sys.stdin))))
