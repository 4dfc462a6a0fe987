"""From the tensors of a checkpoint to the parameters of the model, one to one in both directions."""

from collections.abc import Iterable

import torch
from torch import nn
from vllm.model_executor.model_loader.weight_utils import default_weight_loader

from vllm_gptoss.model.checkpoint import CheckpointError, expected_tensors
from vllm_gptoss.model.config import ModelArgs


def load_weights(model: nn.Module, args: ModelArgs, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
    """Fill the parameters of this rank's part of the model; returns their names.

    `weights` yields every tensor of the checkpoint. Those of layers on other pipeline ranks are passed over.

    Raises: CheckpointError for a tensor that is unknown, has another shape, or never came.
    """
    specs = expected_tensors(args)
    parameters = dict(model.named_parameters())
    missing = {name for name, spec in specs.items() if spec.parameter in parameters}
    for name, tensor in weights:
        if (spec := specs.get(name)) is None:
            raise CheckpointError(f"tensor {name} is not part of a gpt-oss checkpoint")
        if tuple(tensor.shape) != spec.shape:
            raise CheckpointError(f"tensor {name} has shape {tuple(tensor.shape)}, expected {spec.shape}")
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
