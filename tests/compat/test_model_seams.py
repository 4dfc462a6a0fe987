"""Seams where models are loaded: each works, and the second kind of test fails once vLLM has its own."""

import json
import shutil

import pytest
from seams_in_place import model_config
from vllm import SamplingParams
from vllm.config import ModelConfig
from vllm.model_executor.models import config as vllm_checks

from vllm_gptoss import plugin
from vllm_gptoss.model.config import END_TOKENS
from vllm_gptoss.seam import stock_of


@pytest.fixture
def without_generation_config(tiny_checkpoint, tmp_path):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "bare")
    (folder / "generation_config.json").unlink()
    return folder


def end_tokens(config: dict) -> set[int]:
    ids = config.get("eos_token_id") or []
    return {ids} if isinstance(ids, int) else set(ids)


def test_end_tokens_hold_without_the_file(without_generation_config):
    assert end_tokens(model_config(without_generation_config).try_get_generation_config()) == set(END_TOKENS)


def test_end_tokens_hold_where_the_file_forgets_one(tiny_checkpoint, tmp_path):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "forgetful")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [200002], "top_k": 7}))
    config = model_config(folder).try_get_generation_config()
    assert end_tokens(config) == set(END_TOKENS)
    assert config["top_k"] == 7


def test_end_tokens_are_still_needed(without_generation_config):
    config = model_config(without_generation_config)
    assert 200012 not in end_tokens(stock_of(ModelConfig, "try_get_generation_config")(config))


def test_a_call_ends_the_turn_without_the_file(without_generation_config, engine):
    """The token is forced: what counts is that the engine stops on it."""
    with engine(without_generation_config, max_model_len=256) as llm:
        sampling = SamplingParams(max_tokens=8, logit_bias={200012: 100.0}, detokenize=False)
        (output,) = llm.generate({"prompt_token_ids": [200006]}, sampling, use_tqdm=False)
        assert list(output.outputs[0].token_ids) == [200012]
        assert output.outputs[0].finish_reason == "stop"


def test_vllm_calls_our_checks():
    plugin.register()
    assert vllm_checks.MODELS_CONFIG_MAP["GptOssForCausalLM"].__module__ == "vllm_gptoss.model.verify"


def test_the_table_of_checks_still_has_no_registration():
    assert not [name for name in vars(vllm_checks) if name.startswith("register")]
