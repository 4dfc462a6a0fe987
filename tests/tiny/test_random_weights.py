"""Random checkpoints: the published layout at any size, and statistics that exercise the arithmetic."""

import json

import pytest
import torch
from safetensors.torch import load_file

from vllm_gptoss.kernels.mxfp4 import mxfp4_decode_ref
from vllm_gptoss.model.checkpoint import check_checkpoint
from vllm_gptoss.model.config import ModelArgs
from vllm_gptoss.model.tensors import expected_tensors
from vllm_gptoss.tiny import write_random
from vllm_gptoss.tiny.random_weights import _Draw

SMALL = {"layers": 2, "vocab": 512}
ODD = {"layers": 3, "hidden": 96, "intermediate": 160, "experts": 5, "heads": 6, "kv_heads": 3, "head_dim": 32}


def args_of(folder) -> ModelArgs:
    return ModelArgs.from_hf(json.loads((folder / "config.json").read_text()))


def tensors_of(folder) -> dict[str, torch.Tensor]:
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


@pytest.fixture(scope="module")
def tensors(random_checkpoint):
    return tensors_of(random_checkpoint)


@pytest.mark.parametrize("weight_format", ["mxfp4", "bf16"])
@pytest.mark.parametrize("sizes", [SMALL, ODD | {"vocab": 100}], ids=["small", "odd"])
def test_has_exactly_the_tensors_of_the_format(sizes, weight_format, tmp_path):
    write_random(tmp_path, **sizes, weight_format=weight_format)
    check_checkpoint(tmp_path, args_of(tmp_path))


def test_published_names_and_shapes(tmp_path):
    """Spelt out here once: names, shapes and dtypes of the published checkpoints, at the size of ODD."""
    write_random(tmp_path, **ODD, vocab=100)
    tensors = tensors_of(tmp_path)
    outside = {"model.embed_tokens.weight": [100, 96], "model.norm.weight": [96], "lm_head.weight": [100, 96]}
    inside = {
        "self_attn.q_proj.weight": [192, 96],
        "self_attn.q_proj.bias": [192],
        "self_attn.k_proj.weight": [96, 96],
        "self_attn.k_proj.bias": [96],
        "self_attn.v_proj.weight": [96, 96],
        "self_attn.v_proj.bias": [96],
        "self_attn.o_proj.weight": [96, 192],
        "self_attn.o_proj.bias": [96],
        "self_attn.sinks": [6],
        "input_layernorm.weight": [96],
        "post_attention_layernorm.weight": [96],
        "mlp.router.weight": [5, 96],
        "mlp.router.bias": [5],
        "mlp.experts.gate_up_proj_blocks": [5, 320, 3, 16],
        "mlp.experts.gate_up_proj_scales": [5, 320, 3],
        "mlp.experts.gate_up_proj_bias": [5, 320],
        "mlp.experts.down_proj_blocks": [5, 96, 5, 16],
        "mlp.experts.down_proj_scales": [5, 96, 5],
        "mlp.experts.down_proj_bias": [5, 96],
    }
    for layer in range(3):
        outside |= {f"model.layers.{layer}.{name}": shape for name, shape in inside.items()}
    assert {name: list(tensor.shape) for name, tensor in tensors.items()} == outside
    for name, tensor in tensors.items():
        assert tensor.dtype == (torch.uint8 if name.endswith(("_blocks", "_scales")) else torch.bfloat16), name


def test_one_seed_gives_one_model_however_it_is_sharded(tmp_path):
    write_random(tmp_path / "whole", **SMALL)
    write_random(tmp_path / "cut", **SMALL, max_shard_bytes=200_000)
    write_random(tmp_path / "other", **SMALL, seed=1)
    whole, cut, other = (tensors_of(tmp_path / name) for name in ("whole", "cut", "other"))
    assert whole.keys() == cut.keys() == other.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, cut[name]), name
        assert not torch.equal(tensor, other[name]), name


def test_shards_and_their_index(tmp_path):
    write_random(tmp_path, **SMALL, max_shard_bytes=200_000)
    check_checkpoint(tmp_path, args_of(tmp_path))
    shards = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    count = len(shards)
    assert count > 3
    assert shards == [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    held = {name: shard for shard in shards for name in load_file(tmp_path / shard)}
    assert index["weight_map"] == held
    bytes_of = {shard: sum(t.nbytes for t in load_file(tmp_path / shard).values()) for shard in shards}
    assert index["metadata"]["total_size"] == sum(bytes_of.values())
    single = {shard for shard in shards if len(load_file(tmp_path / shard)) == 1}
    assert all(size <= 200_000 for shard, size in bytes_of.items() if shard not in single)


def test_both_formats_hold_the_same_values(tmp_path):
    write_random(tmp_path / "mxfp4", **SMALL)
    write_random(tmp_path / "bf16", **SMALL, weight_format="bf16")
    packed, dense = tensors_of(tmp_path / "mxfp4"), tensors_of(tmp_path / "bf16")
    for name, tensor in dense.items():
        if name.endswith(("gate_up_proj", "down_proj")):
            values = mxfp4_decode_ref(packed[name + "_blocks"].flatten(-2), packed[name + "_scales"]).mT
            assert torch.equal(tensor, values), name
        else:
            assert torch.equal(tensor, packed[name]), name
    assert "quantization_config" not in json.loads((tmp_path / "bf16" / "config.json").read_text())


def test_configuration_is_the_published_one(tmp_path):
    write_random(tmp_path, **SMALL)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["GptOssForCausalLM"]
    assert config["layer_types"] == ["sliding_attention", "full_attention"]
    assert config["rope_scaling"]["truncate"] is False
    assert config["quantization_config"]["quant_method"] == "mxfp4"
    assert "eos_token_id" not in config, "a vocabulary of 512 has no such token"
    assert not (tmp_path / "tokenizer.json").exists()


def test_the_real_vocabulary_comes_with_the_tokenizer_and_the_end_tokens(tmp_path):
    write_random(tmp_path, layers=1, hidden=32, intermediate=32, experts=4)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "model.safetensors"} <= names
    generation = json.loads((tmp_path / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [200002, 199999, 200012]


def named(tensors, end) -> torch.Tensor:
    return torch.cat([tensor.float().flatten() for name, tensor in tensors.items() if name.endswith(end)])


def test_sinks_biases_and_norms(tensors, tmp_path):
    write_random(tmp_path, layers=8, heads=64, kv_heads=8, hidden=64, vocab=64)
    sinks = named(tensors_of(tmp_path), "sinks")
    assert abs(sinks.mean() - 4) < 0.3
    assert abs(sinks.std() - 1.5) < 0.2
    assert 1 < named(tensors, "gate_up_proj_bias").std() < 2
    norms = named(tensors, "norm.weight")
    assert abs(norms.mean() - 1) < 0.05
    assert 0.1 < norms.std() < 0.3


def test_scales_spread_and_stay_finite(tensors):
    for matrix in ("gate_up_proj", "down_proj"):
        scales = torch.cat([t.flatten() for n, t in tensors.items() if n.endswith(matrix + "_scales")])
        assert len(scales.unique()) >= 6
        assert 100 < scales.min() <= scales.max() < 140
    blocks = torch.cat([t.flatten() for n, t in tensors.items() if n.endswith("_blocks")])
    assert len(blocks.unique()) == 256


@pytest.fixture(scope="module")
def activations(reference, random_checkpoint):
    """What goes into the clamp and out of the routers, at every position of a prompt."""
    rows, logits = [], []
    model = reference(random_checkpoint)
    hooks = []
    for layer in model.model.layers:
        experts = layer.mlp.experts
        hooks.append(layer.mlp.router.register_forward_hook(lambda _, __, out: logits.append(out[0])))
        experts._apply_gate = lambda x, gate=experts._apply_gate: rows.append(x) or gate(x)
    with torch.inference_mode():
        model(torch.randint(2048, (1, 300), generator=torch.Generator().manual_seed(0)))
    for hook, layer in zip(hooks, model.model.layers, strict=True):
        hook.remove()
        del layer.mlp.experts._apply_gate
    return torch.cat(rows), torch.cat(logits)


def test_a_fifth_of_the_activations_is_past_the_clamp(activations):
    rows, _ = activations
    gate, up = rows[:, 0::2], rows[:, 1::2]
    assert 0.08 < (gate > 7).float().mean() < 0.2
    assert 0.2 < (up.abs() > 7).float().mean() < 0.35
    assert ((gate > -1) & (gate < 1)).float().mean() > 0.2, "the slope of the sigmoid counts"


def test_routers_choose_by_token_and_use_the_fourth_expert(activations):
    _, logits = activations
    assert 0.8 < logits.std() < 2
    top = logits.topk(4).values.softmax(-1)
    assert top[:, 3].mean() > 0.03
    assert len({tuple(sorted(row)) for row in logits.topk(4).indices.tolist()}) > 8


@pytest.mark.parametrize(("shape", "total"), [("20b", 13.8e9), ("120b", 65.2e9)])
def test_published_sizes_shard_by_shard(shape, total, tmp_path, monkeypatch):
    """Nothing is drawn or saved here: which tensors would stand in memory together, and of which size."""
    saved = {}

    def save(tensors, path, metadata):
        saved[path.name] = {name: tensor.nbytes for name, tensor in tensors.items()}

    monkeypatch.setattr("vllm_gptoss.tiny.checkpoint.save_file", save)
    monkeypatch.setattr(_Draw, "__call__", lambda self, spec: torch.empty(spec.shape, device="meta"))
    write_random(tmp_path, shape=shape, max_shard_bytes=1 << 30)
    args = args_of(tmp_path)
    assert saved.keys() == {f"model-{i:05d}-of-{len(saved):05d}.safetensors" for i in range(1, len(saved) + 1)}
    assert {name for held in saved.values() for name in held} == expected_tensors(args).keys()
    assert all(len(held) == 1 or sum(held.values()) <= 1 << 30 for held in saved.values())
    assert sum(sum(held.values()) for held in saved.values()) == pytest.approx(total, rel=0.01)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == {name: shard for shard, held in saved.items() for name in held}
