"""The trained weights that the package ships, and the checkpoint made of them.

`data/tiny.safetensors` holds the tensors of the checkpoint in the published names and formats, except that the
embedding and `lm_head` have a row for each token in use alone; `tokens` names them. All other rows are zero.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from vllm_gptoss.model.tensors import TensorSpec
from vllm_gptoss.tiny.checkpoint import dtype_of, write_checkpoint
from vllm_gptoss.tiny.hf_config import Sizes

TINY = Sizes(layers=2, hidden=128, intermediate=128, experts=8, heads=4, kv_heads=2)
SHIPPED = Path(__file__).parent / "data" / "tiny.safetensors"
TOKENS = "tokens"


def write_tiny(folder: Path, trained: Path = SHIPPED) -> None:
    """Write the checkpoint of what `save_trained` saved."""
    tensors = load_file(trained)
    tokens = tensors.pop(TOKENS)

    def make(spec: TensorSpec) -> torch.Tensor:
        tensor = tensors[spec.name]
        if spec.shape[0] != TINY.vocab:
            return tensor
        return torch.zeros(spec.shape, dtype=dtype_of(spec)).index_copy_(0, tokens, tensor)

    write_checkpoint(folder, TINY, "mxfp4", make)


def save_trained(path: Path, tokens: list[int], tensors: dict[str, torch.Tensor]) -> None:
    """Save the tensors of a trained model whose vocabulary is `tokens`."""
    save_file({TOKENS: torch.tensor(tokens), **tensors}, path)
