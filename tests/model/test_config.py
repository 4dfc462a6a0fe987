"""`config.json` in the published form and in Transformers' form; what is honoured and what is refused."""

import copy
import math

import pytest

from vllm_gptoss.model.config import ConfigError, ModelArgs, YarnRope

PUBLISHED_20B = {
    "architectures": ["GptOssForCausalLM"],
    "attention_bias": True,
    "attention_dropout": 0.0,
    "eos_token_id": 200002,
    "experts_per_token": 4,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2880,
    "initial_context_length": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 2880,
    "layer_types": ["sliding_attention", "full_attention"] * 12,
    "max_position_embeddings": 131072,
    "model_type": "gpt_oss",
    "num_attention_heads": 64,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 24,
    "num_key_value_heads": 8,
    "num_local_experts": 32,
    "output_router_logits": False,
    "pad_token_id": 199999,
    "quantization_config": {
        "modules_to_not_convert": [
            "model.layers.*.self_attn",
            "model.layers.*.mlp.router",
            "model.embed_tokens",
            "lm_head",
        ],
        "quant_method": "mxfp4",
    },
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "factor": 32.0,
        "original_max_position_embeddings": 4096,
        "rope_type": "yarn",
        "truncate": False,
    },
    "rope_theta": 150000,
    "router_aux_loss_coef": 0.9,
    "sliding_window": 128,
    "swiglu_limit": 7.0,
    "tie_word_embeddings": False,
    "use_cache": True,
    "vocab_size": 201088,
}
ARGS_20B = ModelArgs(
    num_layers=24,
    hidden_size=2880,
    intermediate_size=2880,
    num_experts=32,
    experts_per_token=4,
    num_heads=64,
    num_kv_heads=8,
    head_dim=64,
    vocab_size=201088,
    max_positions=131072,
    rms_eps=1e-5,
    swiglu_alpha=1.702,
    swiglu_limit=7.0,
    windows=(128, None) * 12,
    rope=YarnRope(
        theta=150000.0,
        factor=32.0,
        beta_fast=32.0,
        beta_slow=1.0,
        original_max_positions=4096,
        truncate=False,
    ),
    weight_format="mxfp4",
)
CONCENTRATION = 0.1 * math.log(32) + 1


def read(**changes):
    return ModelArgs.from_hf(PUBLISHED_20B | changes)


def read_rope(**changes):
    return read(rope_scaling=PUBLISHED_20B["rope_scaling"] | changes).rope


def without(config, name):
    return {key: value for key, value in config.items() if key != name}


def transformers_form(config):
    from transformers import GptOssConfig

    # Transformers writes into the sections that it is given.
    return GptOssConfig(**copy.deepcopy(config)).to_dict()


# The forms of the file


def test_published_file():
    assert read() == ARGS_20B


def test_transformers_form_equals_the_file():
    merged = transformers_form(PUBLISHED_20B)
    assert "rope_scaling" not in merged
    assert ModelArgs.from_hf(merged) == ARGS_20B


def test_defaults_of_transformers_are_the_120b():
    defaults = transformers_form({"quantization_config": {"quant_method": "mxfp4"}})
    published = read(
        num_hidden_layers=36, num_local_experts=128, layer_types=["sliding_attention", "full_attention"] * 18
    )
    assert ModelArgs.from_hf(defaults) == published


def test_file_section_wins_over_the_merged_one_as_in_transformers():
    both = PUBLISHED_20B | {"rope_parameters": PUBLISHED_20B["rope_scaling"] | {"factor": 8.0}}
    assert ModelArgs.from_hf(both) == ARGS_20B
    assert ModelArgs.from_hf(transformers_form(both)) == ARGS_20B


def test_original_length_outside_of_the_section_wins_as_in_transformers():
    both = PUBLISHED_20B | {"original_max_position_embeddings": 8192}
    assert ModelArgs.from_hf(both).rope.original_max_positions == 8192
    assert ModelArgs.from_hf(transformers_form(both)).rope.original_max_positions == 8192


def test_older_name_of_the_rope_type():
    rope = without(PUBLISHED_20B["rope_scaling"], "rope_type")
    assert read(rope_scaling=rope | {"type": "yarn"}) == ARGS_20B


def test_method_as_vllm_renames_it():
    assert read(quantization_config={"quant_method": "gpt_oss_mxfp4"}) == ARGS_20B


@pytest.mark.parametrize("section", [None, {}])
def test_without_quantization_the_weights_are_bf16(section):
    assert read(quantization_config=section).weight_format == "bf16"
    assert ModelArgs.from_hf(without(PUBLISHED_20B, "quantization_config")).weight_format == "bf16"


def test_integers_written_as_floats_are_integers():
    args = read(hidden_size=2880.0, rope_theta=150000.0)
    assert args == ARGS_20B
    assert type(args.hidden_size) is int
    assert type(args.rope.theta) is float


# Derivatives


def test_other_layer_types_and_window():
    types = ["full_attention"] * 6 + ["sliding_attention"] * 18
    assert read(layer_types=types, sliding_window=4096).windows == (None,) * 6 + (4096,) * 18


def test_full_attention_everywhere_needs_no_window():
    assert read(layer_types=["full_attention"] * 24, sliding_window=None).windows == (None,) * 24


def test_without_layer_types_they_alternate():
    assert ModelArgs.from_hf(without(PUBLISHED_20B, "layer_types")) == ARGS_20B


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("swiglu_limit", 10.5, "swiglu_limit"),
        ("swiglu_alpha", 1.5, "swiglu_alpha"),
        ("rms_norm_eps", 1e-6, "rms_eps"),
        ("num_experts_per_tok", 2, "experts_per_token"),
        ("num_local_experts", 21, "num_experts"),
        ("max_position_embeddings", 4096, "max_positions"),
        ("intermediate_size", 1440, "intermediate_size"),
        ("hidden_size", 2048, "hidden_size"),
        ("head_dim", 128, "head_dim"),
        ("num_attention_heads", 32, "num_heads"),
        ("num_key_value_heads", 4, "num_kv_heads"),
        ("vocab_size", 201089, "vocab_size"),
    ],
)
def test_other_numbers(name, value, field):
    assert getattr(read(**{name: value}), field) == value


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("factor", 64.0, "factor"),
        ("beta_fast", 16.0, "beta_fast"),
        ("beta_slow", 2.0, "beta_slow"),
        ("original_max_position_embeddings", 8192, "original_max_positions"),
        ("truncate", True, "truncate"),
        ("rope_theta", 10000.0, "theta"),
    ],
)
def test_other_rope_numbers(name, value, field):
    assert getattr(read_rope(**{name: value}), field) == value


@pytest.mark.parametrize(
    ("name", "field", "default"),
    [("beta_fast", "beta_fast", 32.0), ("beta_slow", "beta_slow", 1.0), ("truncate", "truncate", True)],
)
def test_rope_defaults_of_transformers(name, field, default):
    rope = PUBLISHED_20B["rope_scaling"]
    assert getattr(read(rope_scaling=without(rope, name)).rope, field) == default
    assert getattr(read(rope_scaling=rope | {name: None}).rope, field) == default


@pytest.mark.parametrize(
    "changes",
    [
        {"attention_factor": None, "mscale": None, "mscale_all_dim": None},
        {"attention_factor": CONCENTRATION},
        {"attention_factor": CONCENTRATION, "mscale": 2.0, "mscale_all_dim": 1.0},
        {"mscale": 2.0},
        {"mscale_all_dim": 2.0},
        {"partial_rotary_factor": 1.0},
    ],
)
def test_rope_fields_that_change_no_number(changes):
    assert read_rope(**changes) == ARGS_20B.rope


# Refusals

NUMBERS = (
    "num_hidden_layers hidden_size intermediate_size num_local_experts num_experts_per_tok vocab_size "
    "head_dim num_attention_heads num_key_value_heads max_position_embeddings rms_norm_eps swiglu_limit "
    "rope_theta sliding_window"
)


@pytest.mark.parametrize("value", [None, 0, -1, "64", True, math.nan, math.inf])
@pytest.mark.parametrize("name", NUMBERS.split())
def test_number_that_is_none(name, value):
    with pytest.raises(ConfigError, match=rf"^{name} must be a positive (integer|number), found"):
        read(**{name: value})


def test_missing_number():
    with pytest.raises(ConfigError, match=r"^swiglu_limit must be a positive number, found None$"):
        ModelArgs.from_hf(without(PUBLISHED_20B, "swiglu_limit"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 2880.5}, "hidden_size must be a positive integer, found 2880.5"),
        ({"sliding_window": 127.5}, "sliding_window must be a positive integer, found 127.5"),
        ({"swiglu_alpha": 0}, "swiglu_alpha must be a positive number, found 0"),
        ({"hidden_size": 2890}, "hidden_size 2890 does not divide by 32"),
        ({"intermediate_size": 2881}, "intermediate_size 2881 does not divide by 32"),
        ({"num_key_value_heads": 7}, "num_attention_heads 64 does not divide by num_key_value_heads 7"),
        ({"head_dim": 63}, "head_dim 63 is odd"),
        ({"num_experts_per_tok": 33}, "num_experts_per_tok 33 is not within 1 and num_local_experts 32"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings true"),
        ({"attention_bias": False}, "attention_bias false"),
        ({"num_hidden_layers": 23}, "layer_types has 24 entries for num_hidden_layers 23"),
        ({"layer_types": ["chunked_attention"] * 24}, "layer_types has ['chunked_attention']"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config.quant_method 'fp8'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config.quant_method None"),
        ({"rope_scaling": None}, "rope_type must be yarn, found None"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor must be 1, found 0.5"),
        ({"original_max_position_embeddings": "4k"}, "original_max_position_embeddings must be a positive"),
    ],
)
def test_refusal(changes, message):
    with pytest.raises(ConfigError) as error:
        read(**changes)
    assert message in str(error.value)


def test_only_mxfp4_needs_whole_blocks():
    assert read(hidden_size=2890, quantization_config=None).hidden_size == 2890


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_type": "llama3"}, "rope_type must be yarn, found 'llama3'"),
        ({"rope_type": "default"}, "rope_type must be yarn, found 'default'"),
        ({"rope_type": None}, "rope_type must be yarn, found None"),
        ({"mrope_section": [16, 8, 8]}, "the rope section has ['mrope_section']"),
        ({"full_attention": {"rope_type": "yarn"}}, "the rope section has ['full_attention']"),
        (
            {"attention_factor": 1.0},
            "attention_factor 1.0 is not supported: 0.1 ln(factor) + 1 = 1.346574 is",
        ),
        ({"attention_factor": "1.3"}, "attention_factor must be a positive number, found '1.3'"),
        ({"mscale": 1.0, "mscale_all_dim": 1.0}, "mscale 1.0 with mscale_all_dim 1.0"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor must be 1, found 0.5"),
        ({"truncate": "no"}, "truncate must be true or false, found 'no'"),
        ({"factor": None}, "factor must be a positive number, found None"),
        ({"factor": 0.5}, "factor must be at least 1, found 0.5"),
        ({"beta_fast": -1}, "beta_fast must be a positive number, found -1"),
        ({"beta_slow": "1"}, "beta_slow must be a positive number, found '1'"),
        ({"original_max_position_embeddings": None}, "original_max_position_embeddings must be a positive"),
    ],
)
def test_rope_refusal(changes, message):
    with pytest.raises(ConfigError) as error:
        read_rope(**changes)
    assert message in str(error.value)
