"""Weights made up on the spot: the same in both models, and zero where a backend pads."""

import torch

from benchmarks import random_model
from benchmarks.random_loader import _fill

ARGS = random_model.args_of(random_model.sizes_of("tiny"))
EXPERTS = "mlp.experts.routed_experts."


def filled(name: str, *shape: int, dtype=torch.bfloat16, seed: int = 0) -> torch.Tensor:
    tensor = torch.full(shape, 77, dtype=dtype)
    _fill(name, tensor, ARGS, seed)
    return tensor


def test_both_models_get_the_same_values():
    pairs = {
        "model.layers.1.self_attn.qkv_proj.weight": "model.layers.1.attn.qkv_proj.weight",
        "model.embed_tokens.weight": "model.embedding.weight",
    }
    for ours, stock in pairs.items():
        assert torch.equal(filled(ours, 96, 128), filled(stock, 96, 128))
    assert not torch.equal(filled("layers.0.attn.sinks", 64), filled("model.layers.1.attn.sinks", 64))
    assert not torch.equal(filled("model.layers.0.attn.sinks", 64), filled("model.layers.1.attn.sinks", 64))
    assert not torch.equal(filled("lm_head.weight", 96, 128), filled("lm_head.weight", 96, 128, seed=1))


def test_a_padded_parameter_holds_the_same_values_and_zeros():
    name = f"model.layers.0.{EXPERTS}w13_weight"
    real = filled(name, 8, 256, 64, dtype=torch.uint8)
    padded = filled(name, 8, 320, 96, dtype=torch.uint8)
    assert torch.equal(padded[:, :256, :64], real)
    assert not padded[:, 256:].any()
    assert not padded[:, :, 64:].any()


def test_values_are_those_of_a_checkpoint():
    scales = filled(f"model.layers.0.{EXPERTS}w2_weight_scale", 8, 128, 4, dtype=torch.uint8)
    assert set(scales.unique().tolist()) == {118, 119, 120, 121, 122}
    blocks = filled(f"model.layers.0.{EXPERTS}w2_weight", 8, 128, 64, dtype=torch.uint8)
    assert len(blocks.unique()) == 256
    assert (filled("model.layers.0.post_attention_layernorm.weight", 128) == 1).all()
    router = filled("model.layers.0.mlp.router.weight", 512, 128).float()
    assert 1.4 < router.std() * 128**0.5 < 1.6
