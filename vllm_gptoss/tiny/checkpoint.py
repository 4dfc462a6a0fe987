"""A checkpoint folder written tensor by tensor: no more than one shard stands in memory."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from vllm_gptoss.model.config import ModelArgs, WeightFormat
from vllm_gptoss.model.tensors import BYTE, TensorSpec, expected_tensors
from vllm_gptoss.tiny.hf_config import Sizes, generation_config, model_config
from vllm_gptoss.tiny.tokenizer import write_tokenizer

MAX_SHARD_BYTES = 2 << 30


def write_checkpoint(
    folder: Path,
    sizes: Sizes,
    weight_format: WeightFormat,
    make: Callable[[TensorSpec], torch.Tensor],
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write configuration, tokenizer (where the vocabulary is the real one) and the tensors that `make` gives.

    Raises: ValueError if `make` gives another shape than the published one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = model_config(sizes, weight_format)
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", generation_config(sizes))
    if sizes.has_text:
        write_tokenizer(folder)
    specs = list(expected_tensors(ModelArgs.from_hf(config)).values())
    shards = _shards(specs, max_shard_bytes)
    for name, members in shards.items():
        tensors = {spec.name: _made(spec, make) for spec in members}
        save_file(tensors, folder / name, metadata={"format": "pt"})
    if len(shards) > 1:
        index = {
            "metadata": {"total_size": sum(map(_bytes, specs))},
            "weight_map": {spec.name: name for name, members in shards.items() for spec in members},
        }
        write_json(folder / "model.safetensors.index.json", index)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as the published folders do: indented, one final newline."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def dtype_of(spec: TensorSpec) -> torch.dtype:
    """The published dtype: bytes for MXFP4, bf16 for all else."""
    return torch.uint8 if spec.dtypes == BYTE else torch.bfloat16


def _made(spec: TensorSpec, make: Callable[[TensorSpec], torch.Tensor]) -> torch.Tensor:
    tensor = make(spec).to(dtype_of(spec)).contiguous()
    if tuple(tensor.shape) != spec.shape:
        raise ValueError(f"{spec.name} was made in shape {list(tensor.shape)}, expected {list(spec.shape)}")
    return tensor


def _bytes(spec: TensorSpec) -> int:
    return torch.Size(spec.shape).numel() * dtype_of(spec).itemsize


def _shards(specs: list[TensorSpec], limit: int) -> dict[str, list[TensorSpec]]:
    groups: list[list[TensorSpec]] = [[]]
    for spec in specs:
        if groups[-1] and sum(map(_bytes, groups[-1])) + _bytes(spec) > limit:
            groups.append([])
        groups[-1].append(spec)
    if len(groups) == 1:
        return {"model.safetensors": groups[0]}
    return {f"model-{i:05d}-of-{len(groups):05d}.safetensors": group for i, group in enumerate(groups, 1)}
