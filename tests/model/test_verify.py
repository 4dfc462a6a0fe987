"""What can't be served is refused while vLLM builds its configuration, before any engine starts."""

import json
import shutil

import pytest
from vllm.engine.arg_utils import EngineArgs

from vllm_gptoss import plugin


@pytest.fixture
def folder(random_checkpoint, tmp_path):
    return shutil.copytree(random_checkpoint, tmp_path / "model")


def configure(folder, **options):
    plugin.register()
    return EngineArgs(str(folder), skip_tokenizer_init=True, max_model_len=512, **options).create_engine_config()


def change_config(folder, **fields) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_sound_checkpoint_passes(folder):
    assert configure(folder).model_config.architecture == "GptOssForCausalLM"


def test_a_truncated_shard(folder):
    shard = folder / "model.safetensors"
    with shard.open("r+b") as file:
        file.truncate(shard.stat().st_size - 1000)
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        configure(folder)


def test_tensors_that_the_configuration_does_not_have(folder):
    change_config(folder, num_hidden_layers=3, layer_types=["sliding_attention"] * 3)
    with pytest.raises(ValueError, match=r"model\.layers\.3\.input_layernorm\.weight"):
        configure(folder)


def test_an_unknown_quantization(folder):
    change_config(folder, quantization_config={"quant_method": "mxfp3"})
    with pytest.raises(ValueError, match="mxfp3"):
        configure(folder)


def test_sizes_that_mxfp4_cannot_hold(folder):
    change_config(folder, intermediate_size=100)
    with pytest.raises(ValueError, match=r"intermediate_size 100 does not divide by 32"):
        configure(folder)


@pytest.mark.parametrize(
    ("ranks", "reason"),
    [
        (3, "num_attention_heads 4"),
        (8, "num_attention_heads 4"),
    ],
)
def test_tensor_parallel_sizes_that_do_not_fit(folder, ranks, reason):
    with pytest.raises(ValueError, match=reason):
        configure(folder, tensor_parallel_size=ranks)


def test_kv_heads_that_cannot_be_shared_out(folder):
    """Six query heads go to three ranks, two KV heads do not."""
    change_config(folder, num_attention_heads=6)
    with pytest.raises(ValueError, match="num_key_value_heads 2"):
        configure(folder, tensor_parallel_size=3)


def test_what_lies_beside_the_checkpoint_is_not_touched(folder):
    original = folder / "original"
    original.mkdir()
    (original / "model.safetensors").write_bytes(b"not a checkpoint")
    assert configure(folder)


@pytest.mark.parametrize("backend", ["auto", "xgrammar"])
def test_grammars_are_xgrammars(folder, backend):
    """By `auto` vLLM would go over to another backend for good with the first schema that xgrammar refuses."""
    config = configure(folder, structured_outputs_config={"backend": backend})
    assert config.structured_outputs_config.backend == "xgrammar"


@pytest.mark.parametrize("backend", ["guidance", "outlines", "lm-format-enforcer"])
def test_other_backends_of_grammars(folder, backend):
    with pytest.raises(ValueError, match=rf"structured_outputs_config\.backend '{backend}' can't hold an answer"):
        configure(folder, structured_outputs_config={"backend": backend})


@pytest.mark.parametrize(("asked", "kept"), [({}, None), ({"prefix_cache_retention_interval": 64}, 64)])
def test_the_prefix_cache_has_what_a_turn_generated(asked, kept, folder):
    assert configure(folder, **asked).cache_config.prefix_cache_retention_interval == kept
