"""vLLM with the seams in place, for the tests of each."""

import asyncio

from openai_harmony import HarmonyEncodingName, load_harmony_encoding
from vllm.config import ModelConfig
from vllm.entrypoints.mcp.tool_server import DemoToolServer
from vllm.parser.parser_manager import ParserManager

from vllm_gptoss import plugin
from vllm_gptoss.seam import stock_of

HARMONY = load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)


def model_config(folder) -> ModelConfig:
    plugin.register()
    return ModelConfig(model=str(folder), skip_tokenizer_init=True)


def compose(**options):
    plugin.register()
    names = {"tool_parser_name": None, "reasoning_parser_name": "openai_gptoss", "enable_auto_tools": False}
    return ParserManager.get_parser(**names | options, model_name=None, is_harmony=True)


def demo_server(environment: dict[str, str], monkeypatch, stock: bool = False) -> DemoToolServer:
    plugin.register()
    for name in ("EXA_API_KEY", "GPTOSS_SEARCH_FOLDER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    server = DemoToolServer()
    method = stock_of(DemoToolServer, "init_and_validate") if stock else DemoToolServer.init_and_validate
    asyncio.run(method(server))
    return server
