"""The few seams that vLLM 0.32 has no hook for.

Each seam says why it is there and when it goes; `tests/compat/` fails once it is needless. What stands in the place of
a method is in the room that it belongs to: a function of the stock method that gives the new one.
"""

from vllm_gptoss.seam import STOCK, wrap


def install() -> None:
    """Put the seams in place; a second call changes nothing."""
    _check_models_before_the_engine()
    _end_tokens_of_gpt_oss()
    _harmony_parser_by_default()
    _requests_as_clients_send_them()
    _control_tokens_of_grammars()
    _contradictions_are_said()
    _tools_of_the_demo_server()


def _install_where_answers_are_parsed() -> None:
    _calls_without_flags()
    _finish_reason_of_the_engine()
    _request_for_the_parser()
    _stop_strings_in_the_final_answer()
    _prompts_of_this_package()
    _answers_as_clients_expect_them()
    _store_with_bounds()
    _both_names_of_the_model()
    _built_in_tools()
    _requests_that_are_answered()
    _failures_are_said()


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

    from vllm_gptoss.model.end_tokens import try_get_generation_config

    wrap(ModelConfig, "try_get_generation_config", try_get_generation_config)


def _harmony_parser_by_default() -> None:
    """vLLM composes the parser of gpt-oss in one place, from its own class and the server's flags.

    Why: it sets what is configured on that shared class, so that a second configuration in the process changes the
    first; and without two flags there are no tool calls.
    Goes: when a plugin can register the parser of a model type.
    """
    from vllm.parser.parser_manager import ParserManager

    from vllm_gptoss.grammar.composing import compose_parser

    # A server makes its first parser before any of the classes that the other seams are in.
    wrap(ParserManager, "_compose_parser", compose_parser(_install_where_answers_are_parsed))


def _calls_without_flags() -> None:
    """Chat Completions throws the calls of an unstreamed answer away without `--enable-auto-tool-choice`.

    Why: a bare `vllm serve` of gpt-oss must call tools; vLLM's streams and Responses do without the flag.
    Goes: when Harmony is exempt from the flag in all of them.
    """
    from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat

    from vllm_gptoss.parsers.seams import init

    wrap(OpenAIServingChat, "__init__", init)


def _finish_reason_of_the_engine() -> None:
    """Chat Completions reports `tool_calls` for a call that was cut, and for none where one was required.

    Why: a client would run half of a call (vllm-project/vllm#58228).
    Goes: when the unstreamed answer takes the finish reason as the stream does.
    """
    from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat

    from vllm_gptoss.parsers.seams import chat_completion_full_generator

    wrap(OpenAIServingChat, "chat_completion_full_generator", chat_completion_full_generator)


def _request_for_the_parser() -> None:
    """Responses tells its parser which tools there are and nothing else of the request.

    Why: stop strings, `tool_choice` and `include_reasoning` decide what is shown.
    Goes: when `process_chunk` is given the request, as `parse_delta` is.
    """
    from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses

    from vllm_gptoss.parsers.seams import make_response_parser

    wrap(OpenAIServingResponses, "_make_response_parser", make_response_parser)


def _stop_strings_in_the_final_answer() -> None:
    """vLLM looks for stop strings in all text that is generated.

    Why: they would end the reasoning before there is an answer (vllm-project/vllm#52599).
    Goes: when a parser can say where stop strings count.
    """
    from vllm.v1.engine.detokenizer import IncrementalDetokenizer

    from vllm_gptoss.parsers.seams import from_new_request

    wrap(IncrementalDetokenizer, "from_new_request", from_new_request)


def _tools_of_the_demo_server() -> None:
    """`--tool-server demo` imports the package gpt_oss, which overwrites the module of oss-harmony.

    Why: browser and python are served without it, a session a response; vLLM has one of each for all responses.
    Goes: when a plugin can register a tool server.
    """
    from vllm.entrypoints.mcp.tool_server import DemoToolServer

    from vllm_gptoss.tools import demo_server

    wrap(DemoToolServer, "init_and_validate", demo_server.init_and_validate)
    wrap(DemoToolServer, "new_session", demo_server.new_session)


def _built_in_tools() -> None:
    """Responses makes calls that were cut, ends with what a tool raises, shows a call of python as reasoning, streams
    one of the browser as two items, and cites nothing.

    Why: the model can go on without a tool that fails; clients read `web_search_call`, `code_interpreter_call` and
    `url_citation`.
    Goes: when a tool's session can say what its calls look like, and its failures go to the model.
    """
    from vllm.entrypoints.openai.responses import serving as responses
    from vllm.entrypoints.openai.responses.context import HarmonyContext

    from vllm_gptoss.tools import items, serving

    replaced = (responses.OpenAIServingResponses, serving.OF_RESPONSES), (HarmonyContext, serving.OF_CONTEXTS)
    for owner, wrappers in (*replaced, (responses, items.OF_ITEMS)):
        for name, wrapper_of in wrappers.items():
            wrap(owner, name, wrapper_of)


def _requests_that_are_answered() -> None:
    """Responses drops a tool that it was not started with, in silence, and knows the search by one of its names; it has
    no items to refer to, and refuses log probabilities of Harmony.

    Why: an answer without the tool that it had to use looks like one with it, and Codex offers `web_search` always; the
    log probabilities are there, of all tokens; what belongs to a text is known where the text is read.
    Goes: when Responses says what it leaves out, knows both names and its items, and gives log probabilities out.
    """
    from vllm.entrypoints.openai.responses.context import HarmonyContext
    from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses

    from vllm_gptoss.serving import admission, logprobs

    wrap(OpenAIServingResponses, "_validate_create_responses_input", admission.validate_create_responses_input)
    wrap(HarmonyContext, "append_output", logprobs.append_output)


def _prompts_of_this_package() -> None:
    """vLLM renders Harmony in methods of its own, through the library's types.

    Why: those types lose what schemas say, a preamble loses its place, the two APIs and `/tokenize` give one
    conversation three prompts, and much that a request says never reaches the prompt.
    Goes: when a plugin can register the renderer of a model type.
    """
    from vllm.renderers.online_renderer import OnlineRenderer

    from vllm_gptoss.serving import renderer

    wrap(OnlineRenderer, "adjust_harmony_request", renderer.adjust_harmony_request)
    wrap(OnlineRenderer, "_make_request_with_harmony", renderer.make_request_with_harmony)
    wrap(OnlineRenderer, "preprocess_chat", renderer.preprocess_chat)
    wrap(OnlineRenderer, "_render_responses_with_harmony", renderer.render_responses_with_harmony)
    wrap(OnlineRenderer, "render_responses_harmony_messages", renderer.render_responses_harmony_messages)


def _control_tokens_of_grammars() -> None:
    """xgrammar takes control tokens for the letters of their names.

    Why: strings in JSON have `<|end|>` in them, and text has the letters where a token should be; and masks of token
    ids get mixed up between grammars. See `grammar/compiler.py`.
    Goes: when vLLM lets a model name its control tokens for grammars, with an xgrammar that keeps them apart.
    """
    from vllm.v1.structured_output.backend_xgrammar import XgrammarBackend

    from vllm_gptoss.grammar.backend import post_init

    wrap(XgrammarBackend, "__post_init__", post_init)


def _contradictions_are_said() -> None:
    """What a request forbids beside the form of its answer can leave no token in the middle of it.

    Why: the engine ends such a request with an error that the client sees as a 500 and cannot act on.
    Goes: when vLLM's engine says why it has ended a request, and its server makes that a 400.
    """
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.structured_output import StructuredOutputManager

    from vllm_gptoss.grammar import dead_end

    wrap(StructuredOutputManager, "accept_tokens", dead_end.accept_tokens)
    wrap(AsyncLLM, "generate", dead_end.generate)


def _requests_as_clients_send_them() -> None:
    """Responses refuses a whole request for a tool or an item that vLLM's types do not know; and on all routes some
    values end with 500, as text does that is no Unicode.

    Why: Codex and the Agents SDKs send such, and items that vLLM itself gave out; a client's mistake is a 400.
    Goes: when Responses leaves out what it has no use for, and vLLM checks types before it looks into values.
    """
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest
    from vllm.entrypoints.openai.responses.protocol import ResponsesRequest

    from vllm_gptoss.serving.acceptance import checked_body, responses_body

    bodies = (
        (ChatCompletionRequest, checked_body),
        (CompletionRequest, checked_body),
        (ResponsesRequest, responses_body),
    )
    for request, schema_of in bodies:
        wrap(request, "__get_pydantic_core_schema__", schema_of(STOCK))
        request.model_rebuild(force=True)


def _answers_as_clients_expect_them() -> None:
    """Responses knows calls of functions alone, and leaves the status of reasoning open.

    Why: a client that offers a shell waits for `local_shell_call`; published items have `completed`.
    Goes: when Harmony on Responses gives calls out by the type of their tool.
    """
    from vllm.entrypoints.openai.responses.protocol import ResponsesResponse
    from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses

    from vllm_gptoss.serving import answers

    wrap(ResponsesResponse, "from_request", answers.from_request)
    wrap(OpenAIServingResponses, "responses_stream_generator", answers.responses_stream_generator)


def _failures_are_said() -> None:
    """Responses has no event for an answer that fails: its streams break off, or stay open for ever in the background.

    Why: a client can't tell it from a broken connection, and a background response is never over.
    Goes: when Responses gives `response.failed` out, and the background keeps it.
    """
    from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses

    from vllm_gptoss.serving import failures

    wrap(OpenAIServingResponses, "responses_background_stream_generator", failures.background_events)
    wrap(OpenAIServingResponses, "_run_background_request", failures.run_background_request)


def _store_with_bounds() -> None:
    """Responses keeps every response, its messages and its events for ever.

    Why: the server's memory grows until it ends.
    Goes: when vLLM's store takes something out.
    """
    from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses

    from vllm_gptoss.serving import store

    wrap(OpenAIServingResponses, "__init__", store.init)


def _both_names_of_the_model() -> None:
    """vLLM serves a model by the names that it was given, and no other.

    Why: the Python Agents SDK asks for `gpt-oss-20b` where `openai/gpt-oss-20b` is meant.
    Goes: when a plugin can name aliases of a model.
    """
    from vllm.entrypoints.openai.models.serving import OpenAIModelRegistry

    from vllm_gptoss.serving import model_names

    wrap(OpenAIModelRegistry, "is_base_model", model_names.is_base_model)
