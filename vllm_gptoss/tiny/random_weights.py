"""Random checkpoints on which a mistake in the arithmetic cannot hide.

A trained model that knows its text by heart keeps the text under most mistakes; these weights are drawn so that
every part of the computation moves the next-token distribution, and so little that rounding to bf16 does not.
"""

import math
import zlib
from pathlib import Path

import torch

from vllm_gptoss.model.checkpoint import TensorSpec
from vllm_gptoss.model.config import WeightFormat
from vllm_gptoss.tiny.checkpoint import MAX_SHARD_BYTES, write_checkpoint
from vllm_gptoss.tiny.hf_config import PUBLISHED, REAL_VOCABULARY, Sizes

FP4_RMS = math.sqrt((0.5**2 + 1 + 1.5**2 + 2**2 + 3**2 + 4**2 + 6**2) / 8)
"""Root mean square of the E2M1 values 0, .5, 1, 1.5, 2, 3, 4, 6, all equally likely."""


def write_random(
    folder: Path,
    *,
    shape: str | None = None,
    layers: int | None = None,
    hidden: int = 128,
    intermediate: int = 128,
    experts: int = 8,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 64,
    vocab: int = REAL_VOCABULARY,
    seed: int = 0,
    weight_format: WeightFormat = "mxfp4",
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write a random checkpoint of these sizes, or of those of `shape` "20b" or "120b" (`layers` still counts).

    The tokenizer comes along when the vocabulary is the real one. One seed gives the same tensors however
    they are sharded, and the same values in both weight formats.
    """
    if shape is None:
        sizes = Sizes(layers or 4, hidden, intermediate, experts, heads, kv_heads, head_dim, vocab)
    else:
        published = PUBLISHED[shape]
        sizes = Sizes(**{**vars(published), "layers": layers or published.layers})
    draw = _Draw(sizes, seed)
    write_checkpoint(folder, sizes, weight_format, draw, max_shard_bytes)


class _Draw:
    """The distribution of each tensor, by the end of its name."""

    def __init__(self, sizes: Sizes, seed: int) -> None:
        self.sizes, self.seed = sizes, seed
        fan_in = 1 / math.sqrt(sizes.hidden)
        fan_out = 1 / math.sqrt(sizes.heads * sizes.head_dim)
        # Mean and standard deviation. A normed state has elements near 1, so `fan_in` times s gives sums of s.
        self.normal = {
            "embed_tokens.weight": (0, 1),
            "lm_head.weight": (0, 1.5 * fan_in),
            "norm.weight": (1, 0.2),
            "layernorm.weight": (1, 0.2),
            "q_proj.weight": (0, 1.2 * fan_in),
            "k_proj.weight": (0, 1.2 * fan_in),
            "v_proj.weight": (0, 1 * fan_in),
            "o_proj.weight": (0, 1.5 * fan_out),
            "q_proj.bias": (0, 1),
            "k_proj.bias": (0, 1),
            "v_proj.bias": (0, 1),
            "o_proj.bias": (0, 0.3),
            "sinks": (4, 1.5),
            "router.weight": (0, 1.5 * fan_in),
            "router.bias": (0, 0.5),
            "gate_up_proj_bias": (0, 2),
            "down_proj_bias": (0, 1),
        }
        # Gate and up before the clamp at 7 have a deviation of 6: a fifth of them is past it.
        self.matrix_rms = {
            "gate_up_proj": 6 * fan_in,
            "down_proj": 0.08 / math.sqrt(sizes.intermediate),
        }

    def __call__(self, spec: TensorSpec) -> torch.Tensor:
        name = spec.name
        for matrix, rms in self.matrix_rms.items():
            if name.endswith(matrix):
                return self._decoded(spec, rms)
            if name.endswith(matrix + "_blocks"):
                return torch.randint(256, spec.shape, dtype=torch.uint8, generator=self._generator(name))
            if name.endswith(matrix + "_scales"):
                return self._scales(name, spec.shape, rms)
        mean, deviation = next(row for end, row in self.normal.items() if name.endswith(end))
        values = torch.empty(spec.shape, dtype=torch.bfloat16)
        return values.normal_(mean, deviation, generator=self._generator(name))

    def _generator(self, name: str) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed << 32 | zlib.crc32(name.encode()))

    def _scales(self, name: str, shape: tuple[int, ...], rms: float) -> torch.Tensor:
        """Exponents `floor(b + 3 uniform)`: four neighbours, with exactly the mean square that is asked for.

        With n and f the whole and the fractional part of b, the mean of 4^exponent is 7 * 4^n * (1 + 3 f).
        """
        square = (rms / FP4_RMS) ** 2 / 7
        n = math.floor(math.log(square, 4))
        f = (square / 4**n - 1) / 3
        exponents = torch.rand(shape, generator=self._generator(name)).mul_(3).add_(n + f).floor_()
        return exponents.add_(127).to(torch.uint8)

    def _decoded(self, spec: TensorSpec, rms: float) -> torch.Tensor:
        from vllm_gptoss.kernels.mxfp4 import mxfp4_decode_ref

        experts, inner, outer = spec.shape
        generator = self._generator(spec.name + "_blocks")
        blocks = torch.randint(256, (experts, outer, inner // 32, 16), dtype=torch.uint8, generator=generator)
        scales = self._scales(spec.name + "_scales", (experts, outer, inner // 32), rms)
        return mxfp4_decode_ref(blocks, scales).transpose(1, 2)
