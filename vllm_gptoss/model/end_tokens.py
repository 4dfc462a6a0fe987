"""The tokens that end a turn, whatever the checkpoint's `generation_config.json` says."""

from collections.abc import Callable

from vllm.config import ModelConfig

from vllm_gptoss.model.config import END_TOKENS


def try_get_generation_config(stock: Callable) -> Callable:
    def try_get_generation_config(self: ModelConfig) -> dict:
        config = stock(self)
        if getattr(self.hf_config, "model_type", None) == "gpt_oss":
            found = config.get("eos_token_id")
            found = [] if found is None else [found] if isinstance(found, int) else list(found)
            config["eos_token_id"] = list(dict.fromkeys([*found, *END_TOKENS]))
        return config

    return try_get_generation_config
