"""`config.json` and `generation_config.json` of gpt-oss checkpoints of any size.

Source: the files published with gpt-oss-20b and gpt-oss-120b.
"""

from dataclasses import dataclass
from typing import Any

from vllm_gptoss.model.config import END_TOKENS, WeightFormat

REAL_VOCABULARY = 201088
PAD_TOKEN = 199999

KEPT_IN_BF16 = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]


@dataclass(frozen=True)
class Sizes:
    """What differs between gpt-oss checkpoints; the rest is the same in all of them."""

    layers: int
    hidden: int
    intermediate: int
    experts: int
    heads: int
    kv_heads: int
    head_dim: int = 64
    vocab: int = REAL_VOCABULARY

    @property
    def has_text(self) -> bool:
        """The ids of the tokenizer fit: smaller vocabularies are for tests that speak in ids."""
        return self.vocab >= REAL_VOCABULARY


PUBLISHED = {
    "20b": Sizes(layers=24, hidden=2880, intermediate=2880, experts=32, heads=64, kv_heads=8),
    "120b": Sizes(layers=36, hidden=2880, intermediate=2880, experts=128, heads=64, kv_heads=8),
}


def model_config(sizes: Sizes, weight_format: WeightFormat) -> dict[str, Any]:
    """The content of `config.json`."""
    kinds = ("sliding_attention", "full_attention")
    config = {
        "architectures": ["GptOssForCausalLM"],
        "model_type": "gpt_oss",
        "dtype": "bfloat16",
        "attention_bias": True,
        "attention_dropout": 0.0,
        "head_dim": sizes.head_dim,
        "hidden_act": "silu",
        "hidden_size": sizes.hidden,
        "initial_context_length": 4096,
        "initializer_range": 0.02,
        "intermediate_size": sizes.intermediate,
        "layer_types": [kinds[layer % 2] for layer in range(sizes.layers)],
        "max_position_embeddings": 131072,
        "num_attention_heads": sizes.heads,
        "num_experts_per_tok": 4,
        "num_hidden_layers": sizes.layers,
        "num_key_value_heads": sizes.kv_heads,
        "num_local_experts": sizes.experts,
        "output_router_logits": False,
        "rms_norm_eps": 1e-05,
        "rope_theta": 150000,
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 32.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "original_max_position_embeddings": 4096,
            "truncate": False,
        },
        "router_aux_loss_coef": 0.9,
        "sliding_window": 128,
        "swiglu_limit": 7.0,
        "tie_word_embeddings": False,
        # As published; without it Transformers takes the tokenizer for one of Mistral's and warns.
        "transformers_version": "4.55.0.dev0",
        "use_cache": True,
        "vocab_size": sizes.vocab,
    }
    if sizes.has_text:
        config |= {"eos_token_id": END_TOKENS[0], "pad_token_id": PAD_TOKEN}
    if weight_format == "mxfp4":
        config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": KEPT_IN_BF16}
    return config


def generation_config(sizes: Sizes) -> dict[str, Any]:
    """The content of `generation_config.json`: without the end tokens vLLM generates past a call."""
    config: dict[str, Any] = {"do_sample": True}
    if sizes.has_text:
        config |= {"bos_token_id": 199998, "eos_token_id": list(END_TOKENS), "pad_token_id": PAD_TOKEN}
    return config
