"""From the tensors of a checkpoint to the parameters of the model, one to one in both directions."""

from collections.abc import Iterable

import torch
from torch import nn
from vllm.model_executor.model_loader.weight_utils import default_weight_loader

from vllm_gptoss.model.checkpoint import CheckpointError
from vllm_gptoss.model.config import ModelArgs
from vllm_gptoss.model.tensors import TensorSpec, expected_tensors

NAN_SCALE = 255
"""The E8M0 scale byte that stands for NaN (OCP microscaling formats, v1.0)."""


def load_weights(model: nn.Module, args: ModelArgs, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
    """Fill the parameters of this rank's part of the model; returns their names.

    `weights` yields every tensor of the checkpoint. Those of layers on other pipeline ranks are passed over.

    Raises: CheckpointError for a tensor that is unknown, has another shape or type, holds a NaN scale, or never
    came.
    """
    specs = expected_tensors(args)
    parameters = dict(model.named_parameters())
    missing = {name for name, spec in specs.items() if spec.parameter in parameters}
    for name, tensor in weights:
        spec = _checked(name, tensor, specs)
        if name not in missing:
            continue
        if spec.transposed:
            tensor = tensor.transpose(-1, -2)
        if tensor.ndim == 4:  # MXFP4 blocks: [experts, rows, blocks, 16 bytes]
            tensor = tensor.flatten(2)
        param = parameters[spec.parameter]
        load = getattr(param, "weight_loader", default_weight_loader)
        load(param, tensor, *((spec.shard,) if spec.shard else ()))
        missing.remove(name)
    if missing:
        raise CheckpointError(f"tensors missing from the checkpoint: {', '.join(sorted(missing)[:8])}")
    return set(parameters)


def _checked(name: str, tensor: torch.Tensor, specs: dict[str, TensorSpec]) -> TensorSpec:
    """The place of a tensor. Files of a local folder were checked before; downloads and streams were not."""
    if (spec := specs.get(name)) is None:
        raise CheckpointError(f"tensor {name} is not part of a gpt-oss checkpoint")
    if tuple(tensor.shape) != spec.shape:
        raise CheckpointError(f"tensor {name} has shape {tuple(tensor.shape)}, expected {spec.shape}")
    if (tensor.dtype == torch.uint8) != ("U8" in spec.dtypes):
        raise CheckpointError(f"tensor {name} is {tensor.dtype}, expected {' or '.join(sorted(spec.dtypes))}")
    if name.endswith("_scales") and (tensor == NAN_SCALE).any():
        raise CheckpointError(f"tensor {name} has a scale byte {NAN_SCALE}, which makes its block NaN")
    return spec
