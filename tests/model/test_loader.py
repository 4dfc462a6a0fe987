"""Names and parameters match one to one, and what streams in is checked as it comes."""

import pytest
import torch
from torch import nn

from vllm_gptoss.model.checkpoint import CheckpointError
from vllm_gptoss.model.config import ModelArgs
from vllm_gptoss.model.loader import load_weights
from vllm_gptoss.model.tensors import expected_tensors

CONFIG = {
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 128,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "swiglu_limit": 7.0,
    "sliding_window": 32,
    "rope_theta": 150000,
    "rope_scaling": {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 128},
    "quantization_config": {"quant_method": "mxfp4"},
}
ARGS = ModelArgs.from_hf(CONFIG)
SCALES = "model.layers.1.mlp.experts.down_proj_scales"
ROUTER = "model.layers.0.mlp.router.weight"


class Parameters(nn.Module):
    """The parameters that the table names, each of which records what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: dict[str, list] = {}
        self.empty = {spec.parameter: nn.Parameter(torch.zeros(())) for spec in expected_tensors(ARGS).values()}
        for name, param in self.empty.items():
            param.weight_loader = lambda _, tensor, *shard, name=name: self.given.setdefault(name, []).append(shard)

    def named_parameters(self, *args, **kwargs):
        yield from self.empty.items()


def checkpoint() -> dict[str, torch.Tensor]:
    return {
        name: torch.zeros(spec.shape, dtype=torch.uint8 if "U8" in spec.dtypes else torch.bfloat16)
        for name, spec in expected_tensors(ARGS).items()
    }


def test_every_parameter_is_filled_and_every_tensor_used():
    model = Parameters()
    assert load_weights(model, ARGS, checkpoint().items()) == set(model.empty)
    assert set(model.given) == set(model.empty)
    assert sum(len(shards) for shards in model.given.values()) == len(checkpoint())


def test_an_unknown_tensor():
    with pytest.raises(CheckpointError, match=r"model\.layers\.9\.x is not part"):
        load_weights(Parameters(), ARGS, (checkpoint() | {"model.layers.9.x": torch.zeros(1)}).items())


def test_a_missing_tensor():
    tensors = checkpoint()
    del tensors[ROUTER]
    with pytest.raises(CheckpointError, match=f"missing.*{ROUTER}"):
        load_weights(Parameters(), ARGS, tensors.items())


def test_another_shape():
    with pytest.raises(CheckpointError, match=rf"{ROUTER} has shape \(4, 63\), expected \(4, 64\)"):
        load_weights(Parameters(), ARGS, (checkpoint() | {ROUTER: torch.zeros(4, 63)}).items())


def test_another_type():
    wrong = torch.zeros(4, 64, dtype=torch.uint8)
    with pytest.raises(CheckpointError, match=rf"{ROUTER} is torch\.uint8, expected BF16"):
        load_weights(Parameters(), ARGS, (checkpoint() | {ROUTER: wrong}).items())


def test_a_nan_scale():
    scales = checkpoint()[SCALES]
    scales[3, 5, 1] = 255
    with pytest.raises(CheckpointError, match=f"{SCALES} has a scale byte 255"):
        load_weights(Parameters(), ARGS, (checkpoint() | {SCALES: scales}).items())
