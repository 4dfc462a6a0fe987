"""Does one task with the Python Agents SDK, in the environment that it is installed in.

Standard input: `url`, `model`, `question`, `results` of the functions, `api` (chat or responses), `streamed`. Standard
output: the SDK's last word, the text of its stream, what was called with what, and the outputs that went back.
"""

import asyncio
import json
import sys
from typing import Any

from agents import Agent, MultiProvider, RunConfig, Runner, function_tool
from openai import AsyncOpenAI


def agent(model: str, results: dict[str, str], called: list) -> Agent:
    @function_tool
    def get_weather(city: str) -> str:
        """The weather in a city right now."""
        called.append(("get_weather", {"city": city}))
        return results["get_weather"]

    @function_tool
    def get_time(city: str) -> str:
        """The local time in a city."""
        called.append(("get_time", {"city": city}))
        return results["get_time"]

    return Agent(name="Agent", model=model, tools=[get_weather, get_time])


async def main(
    url: str, model: str, question: str, results: dict[str, str], api: str, streamed: bool
) -> dict[str, Any]:
    called: list = []
    client = AsyncOpenAI(base_url=url, api_key="none", timeout=120, max_retries=0)
    # The SDK's default: it takes the `openai/` off the name of the model.
    provider = MultiProvider(openai_client=client, openai_use_responses=api == "responses")
    options = {"run_config": RunConfig(model_provider=provider, tracing_disabled=True)}
    text = ""
    if streamed:
        result = Runner.run_streamed(agent(model, results, called), question, **options)
        async for event in result.stream_events():
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                text += event.data.delta
    else:
        result = await Runner.run(agent(model, results, called), question, **options)
    items = result.to_input_list()
    outputs = [item["output"] for item in items if item.get("type") == "function_call_output"]
    return {"answer": result.final_output, "streamed": text, "called": called, "outputs": outputs}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(**json.load(sys.stdin)))))
