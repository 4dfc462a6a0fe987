"""Steps of decode attention for its tests: what goes in, and what the kernel and its specification leave."""

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch

from vllm_gptoss.kernels.decode_attention import NewTokens, decode_attention, decode_attention_ref
from vllm_gptoss.kernels.rope import rope_cos_sin_ref

POSITION = 299
"""By which the first request is rotated, whatever its length."""


class Step(NamedTuple):
    """What a decode step leaves."""

    out: torch.Tensor
    key_cache: torch.Tensor
    value_cache: torch.Tensor


@dataclass
class Case:
    q: torch.Tensor
    kv_cache: torch.Tensor  # [blocks, Hkv, block, 2 D]
    block_table: torch.Tensor
    seq_lens: torch.Tensor
    sinks: torch.Tensor
    scale: float
    window: int | None
    new: NewTokens

    def arguments(self) -> dict:
        """Those that kernel and specification share. The caches are copies, to be written to."""
        given = dict(vars(self))
        keys, values = given.pop("kv_cache").clone().split(self.q.shape[-1], dim=-1)
        return given | {"key_cache": keys, "value_cache": values}

    def run(self, max_seq_len: int = 131072, **changes: torch.Tensor | NewTokens) -> Step:
        given = {"out": torch.full_like(self.q, math.nan)} | self.arguments() | changes
        decode_attention(**given, max_seq_len=max_seq_len)
        return Step(given["out"], given["key_cache"], given["value_cache"])

    def expected(self) -> Step:
        """The output is fp32."""
        given = self.arguments()
        return Step(decode_attention_ref(**given), given["key_cache"], given["value_cache"])


def make(lengths: list[int], heads: tuple[int, int, int], window: int | None, block: int, device: str) -> Case:
    """A case in which every slot that no query may read is NaN, and every block that none needs invalid.

    The slots of new tokens are NaN as well. A request of no keys has none, or one that must stay NaN.

    Keys and values of a position lie side by side, heads of a block inside of its positions, as in vLLM's cache; q and
    the new keys and values are views of one tensor.
    """
    num_heads, num_kv_heads, head_dim = heads
    generator = torch.Generator().manual_seed(len(lengths))
    randn = functools.partial(torch.randn, generator=generator)
    firsts = [max(0, length - (window or length)) for length in lengths]
    ends = [-(-length // block) for length in lengths]
    pages = [end - first // block for first, end in zip(firsts, ends, strict=True)]
    # The first block is nobody's.
    blocks = (1 + torch.randperm(sum(pages), generator=generator)).split(pages)
    cache = torch.full((1 + sum(pages), block, num_kv_heads, 2 * head_dim), math.nan, dtype=torch.bfloat16)
    block_table = torch.full((len(lengths), max(ends, default=0) + 2), 2**31 - 1, dtype=torch.int32)
    slots = torch.arange(len(lengths)) % 2 - 1
    for request, (length, first, end) in enumerate(zip(lengths, firsts, ends, strict=True)):
        block_table[request, first // block : end] = blocks[request]
        positions = torch.arange(first, max(first, length - 1))
        found = block_table[request, positions // block].long()
        cache[found, positions % block] = randn(len(positions), num_kv_heads, 2 * head_dim).bfloat16()
        if length:
            slots[request] = blocks[request][-1] * block + (length - 1) % block
    heads_of_all = randn(len(lengths), num_heads + 2 * num_kv_heads, head_dim)
    # Peaked enough that one key more or less shows.
    heads_of_all[:, :num_heads] *= 2
    q, keys, values = heads_of_all.bfloat16().to(device).split([num_heads, num_kv_heads, num_kv_heads], dim=1)
    # No two rows have the same.
    cos, sin = angles(POSITION + torch.arange(len(lengths)), head_dim)
    return Case(
        q=q,
        kv_cache=cache.to(device).transpose(1, 2),
        block_table=block_table.to(device),
        seq_lens=torch.tensor(lengths, dtype=torch.int32, device=device),
        sinks=(2 + 1.5 * randn(num_heads)).bfloat16().to(device),
        # Not the default of anything.
        scale=0.9 * head_dim**-0.5,
        window=window,
        new=NewTokens(keys, values, cos.to(device), sin.to(device), slots.to(device)),
    )


def angles(positions: torch.Tensor, head_dim: int) -> list[torch.Tensor]:
    """cos and sin of 16 significant bits: products with bf16 are exact, and so a GPU may fuse them with their sum."""
    plain = rope_cos_sin_ref(positions, torch.logspace(0, -4, head_dim // 2), 1.3)
    return [(x.view(torch.int32) & ~0xFF).view(torch.float32) for x in plain]
