"""vLLM's model loader that makes up the weights on the device, alike for vLLM's gpt-oss and for this package's.

The values of a parameter follow from the seed, its layer and its role, which both models call by the same last part
of the name; so both hold the same model. MXFP4 bytes are uniform, scale bytes 118..122, norms 1, dense weights
N(0, 1/fan_in), router logits have a standard deviation of 1.5 and final logits one of 4 (a distribution with a head
and a tail, in which differences show), embeddings and sinks N(0, 1), biases N(0, 0.01).

Backends pad the experts' parameters at the end of their dimensions: the padding is zero, as it is after loading a
checkpoint. Parameters are filled in pieces before vLLM repacks them: no more than 64 MiB stand beside the model.
"""

import math
import re
import zlib
from collections.abc import Callable

import torch
from torch import nn
from vllm.config import ModelConfig
from vllm.distributed import get_tensor_model_parallel_world_size
from vllm.model_executor.model_loader.base_loader import BaseModelLoader

from vllm_gptoss.model.config import MXFP4_BLOCK, ModelArgs

PIECE = 32 << 20
"""Values of a piece: 64 MiB in bf16."""

Fill = Callable[[torch.Tensor, torch.Generator], object]


class RandomLoader(BaseModelLoader):
    """`model_loader_extra_config` may hold a `seed`."""

    def download_model(self, model_config: ModelConfig) -> None:
        """There is nothing to download."""

    def load_weights(self, model: nn.Module, model_config: ModelConfig) -> None:
        """Fill every parameter in place.

        Raises: ValueError for a parameter of an unknown role, or for a model cut over several ranks.
        """
        if get_tensor_model_parallel_world_size() > 1:
            raise ValueError("random weights are made for one rank: tensor_parallel_size must be 1")
        args = ModelArgs.from_hf(model_config.hf_config.to_dict())
        seed = (self.load_config.model_loader_extra_config or {}).get("seed", 0)
        for name, param in model.named_parameters():
            _fill(name, param.data, args, seed)


def _fill(name: str, param: torch.Tensor, args: ModelArgs, seed: int) -> None:
    role = next((end for end in FILLS if name.endswith(end)), None)
    if role is None:
        raise ValueError(f"no random weights are known for parameter {name}")
    layer = re.search(r"\.layers\.(\d+)\.", name)
    # The one role that the models call differently.
    key = f"{seed} {layer[1] if layer else ''} {role.replace('embedding', 'embed_tokens')}"
    generator = torch.Generator(param.device).manual_seed(zlib.crc32(key.encode()))
    shape = _real_shape(role, args) or tuple(param.shape)
    if shape != tuple(param.shape):
        param.zero_()
    rows = max(1, PIECE // math.prod(shape[1:]))
    for start in range(0, shape[0], rows):
        # Always a whole tensor: which value goes where depends on the layout that the generator fills.
        size = (min(rows, shape[0] - start), *shape[1:])
        piece = torch.empty(size, dtype=param.dtype, device=param.device)
        FILLS[role](piece, generator)
        place = (slice(start, start + size[0]), *(slice(0, length) for length in shape[1:]))
        param[place].copy_(piece)


def _real_shape(role: str, args: ModelArgs) -> tuple[int, ...] | None:
    """The experts' shapes without padding; None for parameters that nobody pads."""
    experts, hidden, inter = args.num_experts, args.hidden_size, args.intermediate_size
    return {
        "w13_weight": (experts, 2 * inter, hidden // 2),
        "w13_weight_scale": (experts, 2 * inter, hidden // MXFP4_BLOCK),
        "w13_bias": (experts, 2 * inter),
        "w2_weight": (experts, hidden, inter // 2),
        "w2_weight_scale": (experts, hidden, inter // MXFP4_BLOCK),
        "w2_bias": (experts, hidden),
    }.get(role)


def _normal(deviation: float) -> Fill:
    return lambda tensor, generator: tensor.normal_(0, deviation, generator=generator)


def _scaled(gain: float) -> Fill:
    """For weights [out, in]: `gain` is the deviation of what comes out for inputs of mean square 1."""
    return lambda tensor, generator: tensor.normal_(0, gain / math.sqrt(tensor.shape[-1]), generator=generator)


def _uniform(low: int, high: int) -> Fill:
    return lambda tensor, generator: tensor.random_(low, high, generator=generator)


FILLS: dict[str, Fill] = {
    # How the name of a parameter ends, in vLLM's model and in ours, and what it is filled with.
    "w13_weight": _uniform(0, 256),
    "w13_weight_scale": _uniform(118, 123),
    "w13_bias": _normal(0.1),
    "w2_weight": _uniform(0, 256),
    "w2_weight_scale": _uniform(118, 123),
    "w2_bias": _normal(0.1),
    "qkv_proj.weight": _scaled(1.0),
    "qkv_proj.bias": _normal(0.1),
    "o_proj.weight": _scaled(1.0),
    "o_proj.bias": _normal(0.1),
    "router.weight": _scaled(1.5),
    "router.bias": _normal(0.1),
    "sinks": _normal(1.0),
    "norm.weight": lambda tensor, generator: tensor.fill_(1),
    "embed_tokens.weight": _normal(1.0),
    "embedding.weight": _normal(1.0),
    "lm_head.weight": _scaled(4.0),
}
