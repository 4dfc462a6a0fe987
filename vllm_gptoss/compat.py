"""The few seams that vLLM 0.32 has no hook for, and the checks of what it must be.

Each seam says why it is there and when it goes; `tests/test_compat.py` fails once it is needless.
"""

import base64
import functools
import hashlib
import inspect
from collections.abc import Callable
from importlib import metadata

from packaging.requirements import Requirement

PACKAGE = "vllm-gptoss"

STOCK = "stock_method_of_vllm"


def pinned_vllm() -> Requirement:
    """The vLLM that the installed package asks for: `pyproject.toml` is the one place of the pin."""
    requirements = map(Requirement, metadata.requires(PACKAGE) or [])
    return next(requirement for requirement in requirements if requirement.name == "vllm")


def check_vllm_version() -> None:
    """Raises: RuntimeError when the vLLM that runs is outside the pin."""
    from vllm import __version__

    needed = pinned_vllm()
    if not needed.specifier.contains(__version__, prereleases=True):
        raise RuntimeError(
            f"{PACKAGE} {metadata.version(PACKAGE)} needs {needed}, found vllm {__version__}. "
            f"Install the vLLM that it names, or set VLLM_PLUGINS='' to serve without {PACKAGE}."
        )


def check_harmony() -> None:
    """Raises: RuntimeError when another package has overwritten the module of oss-harmony.

    `openai-harmony` and `gpt-oss` install the same module `openai_harmony` in a version that downloads
    its vocabulary; installers do not see the conflict.
    """
    try:
        files = metadata.files("oss-harmony") or []
    except metadata.PackageNotFoundError:
        raise RuntimeError(
            "oss-harmony, which vLLM needs for gpt-oss, is not installed: pip install oss-harmony"
        ) from None
    init = next((file for file in files if str(file) == "openai_harmony/__init__.py"), None)
    if init is None or init.hash is None:
        return
    digest = hashlib.new(init.hash.mode, init.locate().read_bytes()).digest()
    if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != init.hash.value:
        raise RuntimeError(
            "the module openai_harmony is not that of oss-harmony any more: openai-harmony has overwritten "
            "it. Run: pip uninstall -y openai-harmony && pip install --force-reinstall --no-deps oss-harmony"
        )


def install() -> None:
    """Put the seams in place; a second call changes nothing."""
    _check_models_before_the_engine()
    _end_tokens_of_gpt_oss()
    _harmony_parser_by_default()


def _install_where_answers_are_parsed() -> None:
    _calls_without_flags()
    _finish_reason_of_the_engine()
    _request_for_the_parser()
    _stop_strings_in_the_final_answer()


def _wrap(owner: type, name: str, wrapper_of: Callable[[Callable], Callable]) -> None:
    """Put `wrapper_of(stock)` in the place of a method, once; `stock_of` gives the one of vLLM back."""
    stock = getattr(owner, name)
    if hasattr(stock, STOCK):
        return
    wrapper = functools.wraps(getattr(stock, "__func__", stock))(wrapper_of(stock))
    setattr(wrapper, STOCK, stock)
    setattr(owner, name, classmethod(wrapper) if inspect.ismethod(stock) else wrapper)


def stock_of(owner: type, name: str) -> Callable:
    """The method of vLLM that a seam has replaced."""
    return getattr(getattr(owner, name), STOCK)


def _check_models_before_the_engine() -> None:
    """vLLM's table of checks by architecture has no registration function.

    Why: a bad checkpoint must be named before the engine's processes start.
    Goes: when `vllm.model_executor.models.config` lets a plugin register an entry.
    """
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    from vllm_gptoss.model.verify import GptOssVerify

    MODELS_CONFIG_MAP["GptOssForCausalLM"] = GptOssVerify


def _end_tokens_of_gpt_oss() -> None:
    """vLLM learns a model's end tokens from `generation_config.json` alone.

    Why: a checkpoint without that file, or with one that forgets `<|call|>`, runs past the end of a turn.
    Goes: when a model class can state its end tokens.
    """
    from vllm.config import ModelConfig

    from vllm_gptoss.model.config import END_TOKENS

    def wrapper_of(stock):
        def try_get_generation_config(self: ModelConfig) -> dict:
            config = stock(self)
            if getattr(self.hf_config, "model_type", None) == "gpt_oss":
                found = config.get("eos_token_id")
                found = [] if found is None else [found] if isinstance(found, int) else list(found)
                config["eos_token_id"] = list(dict.fromkeys([*found, *END_TOKENS]))
            return config

        return try_get_generation_config

    _wrap(ModelConfig, "try_get_generation_config", wrapper_of)


def _harmony_parser_by_default() -> None:
    """vLLM composes the parser of gpt-oss in one place, from its own class and the server's flags.

    Why: it sets what is configured on that shared class, so that a second configuration in the process changes the
    first; and without two flags there are no tool calls.
    Goes: when a plugin can register the parser of a model type.
    """
    from vllm.parser.parser_manager import ParserManager
    from vllm.tool_parsers.tool_strict_level import ToolStrictLevel

    def wrapper_of(stock):
        def _compose_parser(cls, *, is_harmony, **options):
            if not is_harmony:
                return stock(is_harmony=is_harmony, **options)
            from vllm_gptoss.parsers.serving import harmony_parser

            # A server makes its first parser before any of the classes that these seams are in.
            _install_where_answers_are_parsed()
            level = ToolStrictLevel.from_name(options["tool_strict_level"])
            return harmony_parser(options["reasoning_parser_name"], options["tool_parser_name"], level)

        return _compose_parser

    _wrap(ParserManager, "_compose_parser", wrapper_of)


def _calls_without_flags() -> None:
    """Chat Completions throws the calls of an unstreamed answer away without `--enable-auto-tool-choice`.

    Why: a bare `vllm serve` of gpt-oss must call tools; vLLM's streams and Responses do without the flag.
    Goes: when Harmony is exempt from the flag in all of them.
    """
    from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat

    def wrapper_of(stock):
        def init(self, *args, **kwargs):
            stock(self, *args, **kwargs)
            if self.model_config.hf_config.model_type == "gpt_oss":
                self.enable_auto_tools = True

        return init

    _wrap(OpenAIServingChat, "__init__", wrapper_of)


def _finish_reason_of_the_engine() -> None:
    """Chat Completions reports `tool_calls` for a call that was cut, and for none where one was required.

    Why: a client would run half of a call (vllm-project/vllm#58228).
    Goes: when the unstreamed answer takes the finish reason as the stream does.
    """
    from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat

    def wrapper_of(stock):
        async def chat_completion_full_generator(self, request, result_generator, *args, **kwargs):
            reasons = {}

            async def watched():
                async for result in result_generator:
                    reasons.update({output.index: output.finish_reason for output in result.outputs})
                    yield result

            response = await stock(self, request, watched(), *args, **kwargs)
            for choice in getattr(response, "choices", ()):
                reason = reasons.get(choice.index) or "stop"
                if choice.finish_reason == "tool_calls" and (reason != "stop" or not choice.message.tool_calls):
                    choice.finish_reason = reason
            return response

        return chat_completion_full_generator

    _wrap(OpenAIServingChat, "chat_completion_full_generator", wrapper_of)


def _request_for_the_parser() -> None:
    """Responses tells its parser which tools there are and nothing else of the request.

    Why: stop strings, `tool_choice` and `include_reasoning` decide what is shown.
    Goes: when `process_chunk` is given the request, as `parse_delta` is.
    """
    from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses

    def wrapper_of(stock):
        def _make_response_parser(self, request, *args, **kwargs):
            parser = stock(self, request, *args, **kwargs)
            if hasattr(parser, "take_request"):
                parser.take_request(request)
            return parser

        return _make_response_parser

    _wrap(OpenAIServingResponses, "_make_response_parser", wrapper_of)


def _stop_strings_in_the_final_answer() -> None:
    """vLLM looks for stop strings in all text that is generated.

    Why: they would end the reasoning before there is an answer (vllm-project/vllm#52599).
    Goes: when a parser can say where stop strings count.
    """
    from vllm.v1.engine.detokenizer import IncrementalDetokenizer

    from vllm_gptoss.parsers.serving import FinalTextDetokenizer

    def wrapper_of(stock):
        def from_new_request(cls, tokenizer, request):
            if tokenizer is not None and FinalTextDetokenizer.is_for(request):
                return FinalTextDetokenizer(request)
            return stock(tokenizer, request)

        return from_new_request

    _wrap(IncrementalDetokenizer, "from_new_request", wrapper_of)
