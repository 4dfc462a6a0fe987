"""vLLM's backend of grammars, with our compiler in it where gpt-oss is served."""

from collections.abc import Callable

from vllm import envs

from vllm_gptoss.parsers.harmony import CALL, END_OF_TEXT, RETURN

END_TOKENS = [RETURN, END_OF_TEXT, CALL]


def post_init(stock: Callable) -> Callable:
    def post_init(self) -> None:
        stock(self)
        if getattr(self.vllm_config.model_config.hf_config, "model_type", None) == "gpt_oss":
            from vllm_gptoss.grammar.compiler import HarmonyCompiler

            self.compiler = HarmonyCompiler(self.vocab_size, END_TOKENS, envs.VLLM_XGRAMMAR_CACHE_MB << 20)

    return post_init
