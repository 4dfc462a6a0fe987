"""Random checkpoints on which a mistake in the arithmetic cannot hide.

A model that knows its text by heart keeps it under most mistakes, and plain random weights barely notice some of
them. These are drawn so that each part of the computation moves the next-token distribution far more than rounding
to bf16 does: half of the heads look at the edge of the window, the others where YaRN's ramp matters
(`aimed_heads.py`), and neurons alternate in blocks of 32 between hard ones, most of them past the clamp, and soft
ones, where the slope of the sigmoid counts.
"""

import math
import zlib
from pathlib import Path
from typing import Literal

import torch

from vllm_gptoss.kernels.mxfp4 import mxfp4_decode_ref
from vllm_gptoss.model.config import MXFP4_BLOCK, ModelArgs, WeightFormat
from vllm_gptoss.model.tensors import TensorSpec
from vllm_gptoss.tiny.aimed_heads import aimed_biases
from vllm_gptoss.tiny.checkpoint import MAX_SHARD_BYTES, write_checkpoint
from vllm_gptoss.tiny.hf_config import PUBLISHED, REAL_VOCABULARY, Sizes, model_config

FP4_RMS = math.sqrt((0.5**2 + 1 + 1.5**2 + 2**2 + 3**2 + 4**2 + 6**2) / 8)
"""Root mean square of the E2M1 values 0, .5, 1, 1.5, 2, 3, 4, 6, all equally likely."""

# Mean and deviation by the end of a name. FAN_IN divides the deviation by the root of the number of inputs: inputs
# near 1 then give sums of that deviation. Chosen by measurement, see tests/tiny/test_divergence.py.
FAN_IN = {
    "sliding.q_proj.weight": 0.6,
    "sliding.k_proj.weight": 0.6,
    "full.q_proj.weight": 1.0,
    "full.k_proj.weight": 1.0,
    "v_proj.weight": 1.0,
    # Few keys share the weight at the edge of a window, and many the one of a distant peak.
    "sliding.o_proj.weight": 1.5,
    "full.o_proj.weight": 8.0,
    "router.weight": 0.4,
    "lm_head.weight": 7.0,
}
PLAIN = {
    "embed_tokens.weight": (0, 1),
    "norm.weight": (1, 0.2),
    "v_proj.bias": (0, 0.5),
    "o_proj.bias": (0, 0.3),
    "sinks": (4, 1.5),
    "router.bias": (0, 1.1),
    "gate_up_proj_bias": (0, 2),
    "down_proj_bias": (0, 0.5),
}

# Gate and up before the clamp at 7, and how strongly `down_proj` takes the neuron up: both kinds contribute alike.
HARD = {"gate": 10.0, "up": 10.0, "down": 0.12}
SOFT = {"gate": 1.0, "up": 3.0, "down": 1.2}
SOFT_GATE_BIAS = 0.25
"""What is left of the biases of soft gates, which would leave the steep part of the sigmoid otherwise."""


def write_random(
    folder: Path,
    *,
    shape: Literal["20b", "120b"] | None = None,
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
    """Write a random checkpoint of these sizes (4 layers), or of `shape`, of which `layers` may take fewer.

    The tokenizer comes along when the vocabulary is the real one. One seed gives the same tensors however
    they are sharded, and the same values in both weight formats. An `intermediate` of 32 has no hard neurons.
    """
    if shape is None:
        sizes = Sizes(layers or 4, hidden, intermediate, experts, heads, kv_heads, head_dim, vocab)
    else:
        published = PUBLISHED[shape]
        sizes = Sizes(**{**vars(published), "layers": layers or published.layers})
    args = ModelArgs.from_hf(model_config(sizes, weight_format))
    write_checkpoint(folder, sizes, weight_format, _Draw(args, seed), max_shard_bytes)


class _Draw:
    """Makes each tensor from its name and the seed alone."""

    def __init__(self, args: ModelArgs, seed: int) -> None:
        self.args, self.seed = args, seed
        self.hard = torch.arange(args.intermediate_size) // MXFP4_BLOCK % 2 == 1  # [I]

    def __call__(self, spec: TensorSpec) -> torch.Tensor:
        name = spec.name
        if name.endswith(("q_proj.bias", "k_proj.bias")):
            layer = int(name.split(".")[2])
            q, k = aimed_biases(self.args, layer, self._generator(f"aim of layer {layer}"))
            return q if name.endswith("q_proj.bias") else k
        if name.endswith("_blocks"):
            return self._blocks(name, spec.shape)
        if name.endswith("_scales"):
            return self._scales(name, spec.shape)
        if name.endswith(("gate_up_proj", "down_proj")):
            return self._decoded(spec)
        values = self._normal(spec)
        if name.endswith("gate_up_proj_bias"):
            values[:, 0::2] *= torch.where(self.hard, 1.0, SOFT_GATE_BIAS)
        return values

    def _normal(self, spec: TensorSpec) -> torch.Tensor:
        values = torch.empty(spec.shape, dtype=torch.bfloat16)
        name = spec.name
        if ".self_attn." in name:
            window = self.args.windows[int(name.split(".")[2])]
            name = name.replace(".self_attn.", ".full." if window is None else ".sliding.")
        for end, deviation in FAN_IN.items():
            if name.endswith(end):
                return values.normal_(0, deviation / math.sqrt(spec.shape[1]), generator=self._generator(spec.name))
        mean, deviation = next(row for end, row in PLAIN.items() if name.endswith(end))
        return values.normal_(mean, deviation, generator=self._generator(spec.name))

    def _blocks(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.randint(256, shape, dtype=torch.uint8, generator=self._generator(name))

    def _scales(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """Exponents `floor(b + 3 uniform)`: neighbours, with exactly the mean square that is asked for.

        With n and f the whole and the fractional part of b, the mean of 4^exponent is 7 * 4^n * (1 + 3 f).
        """
        mean_4_power = (self._rms(name) / FP4_RMS).square()
        n = (mean_4_power / 7).log2().div(2).floor()
        f = (mean_4_power / 7 / 4**n - 1) / 3
        exponents = torch.rand(shape, generator=self._generator(name)).mul_(3).add_(n + f).floor_()
        return exponents.add_(127).to(torch.uint8)

    def _rms(self, name: str) -> torch.Tensor:
        """Size of the weights, `[1, 2I, 1]` by row of `gate_up_proj` and `[1, 1, I/32]` by block of `down_proj`."""
        rms = {part: torch.where(self.hard, HARD[part], SOFT[part]) for part in HARD}  # [I] each
        if "gate_up_proj" in name:
            return torch.stack((rms["gate"], rms["up"]), dim=1).view(1, -1, 1) / math.sqrt(self.args.hidden_size)
        return rms["down"][::MXFP4_BLOCK].view(1, 1, -1) / math.sqrt(self.args.intermediate_size)

    def _decoded(self, spec: TensorSpec) -> torch.Tensor:
        experts, inner, outer = spec.shape
        blocks = self._blocks(spec.name + "_blocks", (experts, outer, inner // 2))
        scales = self._scales(spec.name + "_scales", (experts, outer, inner // MXFP4_BLOCK))
        return mxfp4_decode_ref(blocks, scales).mT

    def _generator(self, name: str) -> torch.Generator:
        # The generator takes no more than 32 bits of a seed.
        return torch.Generator().manual_seed(zlib.crc32(f"{self.seed} {name}".encode()))
