"""Every number of a gpt-oss model, read once from the checkpoint's `config.json`.

Source: the published `config.json` of gpt-oss-20b and gpt-oss-120b and the fields of Transformers'
`GptOssConfig`. Nothing here assumes the published values: derivatives change them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

MXFP4_BLOCK = 32
"""Values that share one scale (OCP microscaling formats, v1.0)."""

END_TOKENS = (200002, 199999, 200012)
"""`<|return|>`, `<|endoftext|>`, `<|call|>`: a turn of a gpt-oss model ends on each of them."""

ROPE_FIELDS = frozenset(
    {
        "rope_type",
        "type",
        "rope_theta",
        "factor",
        "beta_fast",
        "beta_slow",
        "original_max_position_embeddings",
        "truncate",
        "attention_factor",
        "mscale",
        "mscale_all_dim",
        "partial_rotary_factor",
    }
)
"""Fields that Transformers 5.19 honours for yarn; another one would change numbers unseen."""

WeightFormat = Literal["mxfp4", "bf16"]


class ConfigError(ValueError):
    """`config.json` asks for something that this implementation does not compute."""


@dataclass(frozen=True)
class YarnRope:
    """Rotary embedding with YaRN context extension (Peng et al. 2023, arXiv 2309.00071)."""

    theta: float
    factor: float
    beta_fast: float
    beta_slow: float
    original_max_positions: int
    truncate: bool


@dataclass(frozen=True)
class ModelArgs:
    """Sizes: H hidden, I intermediate, E experts, K experts a token, D head dimension."""

    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_experts: int
    experts_per_token: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_positions: int
    rms_eps: float
    swiglu_alpha: float
    swiglu_limit: float
    windows: tuple[int | None, ...]
    """Sliding window of each layer in keys, None where attention is full."""
    rope: YarnRope
    weight_format: WeightFormat

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> "ModelArgs":
        """Read the fields of `config.json` (or of `GptOssConfig.to_dict()`).

        Raises: ConfigError naming the field, its value and what is supported.
        """
        field = _Reader(config)
        num_layers = field("num_hidden_layers")
        args = cls(
            num_layers=num_layers,
            hidden_size=field("hidden_size"),
            intermediate_size=field("intermediate_size"),
            num_experts=field("num_local_experts"),
            experts_per_token=field("num_experts_per_tok"),
            num_heads=field("num_attention_heads"),
            num_kv_heads=field("num_key_value_heads"),
            head_dim=field("head_dim"),
            vocab_size=field("vocab_size"),
            max_positions=field("max_position_embeddings"),
            rms_eps=field("rms_norm_eps", float),
            # The published files are older than the field.
            swiglu_alpha=field("swiglu_alpha", float, default=1.702),
            swiglu_limit=field("swiglu_limit", float),
            windows=_windows(config, num_layers),
            rope=_rope(config),
            weight_format=_weight_format(config),
        )
        args._check(config)
        return args

    def _check(self, config: Mapping[str, Any]) -> None:
        for name in ("hidden_size", "intermediate_size"):
            size = getattr(self, name)
            if self.weight_format == "mxfp4" and size % MXFP4_BLOCK:
                raise ConfigError(f"{name} {size} does not divide by {MXFP4_BLOCK}, the block of MXFP4")
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(
                f"num_attention_heads {self.num_heads} does not divide by num_key_value_heads {self.num_kv_heads}"
            )
        if self.head_dim % 2:
            raise ConfigError(f"head_dim {self.head_dim} is odd: rotary embedding pairs its halves")
        if not 1 <= self.experts_per_token <= self.num_experts:
            raise ConfigError(
                f"num_experts_per_tok {self.experts_per_token} is not within 1 and num_local_experts {self.num_experts}"
            )
        if config.get("tie_word_embeddings"):
            raise ConfigError("tie_word_embeddings true is not supported: gpt-oss has its own lm_head")
        if not config.get("attention_bias", True):
            raise ConfigError("attention_bias false is not supported: gpt-oss has biases in its attention")


class _Reader:
    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config

    def __call__(self, name: str, kind: type = int, default: float | None = None) -> Any:
        value = self.config.get(name)
        if value is None and default is not None:
            return default
        # bool is an int, and JSON as Python reads it has NaN and Infinity.
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf
        if not number or kind(value) != value:
            wanted = "positive integer" if kind is int else "positive number"
            raise ConfigError(f"{name} must be a {wanted}, found {value!r}")
        return kind(value)


def _windows(config: Mapping[str, Any], num_layers: int) -> tuple[int | None, ...]:
    types = config.get("layer_types")
    if types is None:
        # Checkpoints older than the field alternate, sliding first.
        types = ["full_attention" if i % 2 else "sliding_attention" for i in range(num_layers)]
    if len(types) != num_layers:
        raise ConfigError(f"layer_types has {len(types)} entries for num_hidden_layers {num_layers}")
    unknown = set(types) - {"sliding_attention", "full_attention"}
    if unknown:
        raise ConfigError(f"layer_types has {sorted(unknown)}, supported are sliding_attention and full_attention")
    window = _Reader(config)("sliding_window") if "sliding_attention" in types else None
    return tuple(window if kind == "sliding_attention" else None for kind in types)


def _rope(config: Mapping[str, Any]) -> YarnRope:
    # Transformers 5 merges `rope_theta` and `rope_scaling` into `rope_parameters`; files keep the older form,
    # which wins where both stand.
    section = config.get("rope_scaling") or config.get("rope_parameters") or {}
    rope = {name: value for name, value in section.items() if value is not None}
    kind = rope.get("rope_type", rope.get("type"))
    if kind != "yarn":
        raise ConfigError(f"rope_type must be yarn, found {kind!r}")
    if unknown := rope.keys() - ROPE_FIELDS:
        raise ConfigError(f"the rope section has {sorted(unknown)}, supported are {sorted(ROPE_FIELDS)}")
    for name in ("rope_theta", "partial_rotary_factor"):
        rope.setdefault(name, config.get(name))
    if rope["partial_rotary_factor"] not in (None, 1):
        raise ConfigError(f"partial_rotary_factor must be 1, found {rope['partial_rotary_factor']!r}")
    # Transformers gives the field outside of the section priority.
    if outside := config.get("original_max_position_embeddings"):
        rope["original_max_position_embeddings"] = outside
    if not isinstance(truncate := rope.get("truncate", True), bool):
        raise ConfigError(f"truncate must be true or false, found {truncate!r}")
    field = _Reader(rope)
    yarn = YarnRope(
        theta=field("rope_theta", float),
        factor=field("factor", float),
        beta_fast=field("beta_fast", float, default=32.0),
        beta_slow=field("beta_slow", float, default=1.0),
        original_max_positions=field("original_max_position_embeddings"),
        truncate=truncate,
    )
    _check_concentration(rope, yarn.factor)
    return yarn


def _check_concentration(rope: Mapping[str, Any], factor: float) -> None:
    """Our cos and sin carry 0.1 ln(factor) + 1, which these fields can change."""
    if factor < 1:
        raise ConfigError(f"factor must be at least 1, found {factor!r}")
    ours = 0.1 * math.log(factor) + 1
    if "attention_factor" in rope:
        if not math.isclose(found := _Reader(rope)("attention_factor", float), ours, rel_tol=1e-6):
            raise ConfigError(f"attention_factor {found!r} is not supported: 0.1 ln(factor) + 1 = {ours:.6f} is")
    # `attention_factor` overrides both, and one without the other has no effect.
    elif rope.get("mscale") and rope.get("mscale_all_dim"):
        raise ConfigError(f"mscale {rope['mscale']!r} with mscale_all_dim {rope['mscale_all_dim']!r} is not supported")


def _weight_format(config: Mapping[str, Any]) -> WeightFormat:
    quantization = config.get("quantization_config")
    if not quantization:
        return "bf16"
    # vLLM renames the method of gpt-oss checkpoints to its own `gpt_oss_mxfp4`.
    if (method := quantization.get("quant_method")) in ("mxfp4", "gpt_oss_mxfp4"):
        return "mxfp4"
    raise ConfigError(
        f"quantization_config.quant_method {method!r} is not supported: mxfp4 is, and bf16 without the section"
    )
