"""Rotated queries, and a cache of which only the slots have changed, compiled on a GPU and interpreted on a CPU."""

import pytest
import torch

from vllm_gptoss.kernels.kv_write import rotate_and_write, rotate_and_write_ref

SHAPES = {
    # tokens, query heads, key-value heads, D, positions of a block
    "one token": (1, 8, 1, 64, 16),
    "heads of 20b": (5, 64, 8, 64, 16),
    "heads that are no power of two": (3, 12, 3, 32, 32),
    "wide heads": (9, 4, 2, 128, 64),
}


def make(shape, device):
    tokens, heads, kv_heads, head_dim, block = shape
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(tokens, heads + 2 * kv_heads, head_dim, generator=generator).bfloat16()
    angles = 100 * torch.rand(tokens, head_dim // 2, generator=generator)
    # As vLLM lays them out: keys and values side by side, heads inside of a block's positions.
    cache = torch.randn(tokens + 2, block, kv_heads, 2 * head_dim, generator=generator).bfloat16().transpose(1, 2)
    slots = torch.randperm((tokens + 2) * block, generator=generator)[:tokens]
    q, k, v = qkv.to(device).split([heads, kv_heads, kv_heads], dim=1)
    return q, k, v, angles.cos().to(device), angles.sin().to(device), slots.to(device), cache.to(device)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("padding", [0, 1])
def test_rotate_and_write(shape, padding, device):
    *inputs, slots, cache = make(shape, device)
    if padding:
        slots[-1] = -1
    caches = [cache.clone(memory_format=torch.preserve_format) for _ in range(2)]
    found, expected = (
        rotate(*inputs, slots, *one.split(shape[3], dim=-1))
        for rotate, one in zip((rotate_and_write, rotate_and_write_ref), caches, strict=True)
    )
    # A fused multiply-add rounds once where the specification rounds twice.
    torch.testing.assert_close(found, expected, rtol=2**-7, atol=1e-6)
    torch.testing.assert_close(caches[0], caches[1], rtol=2**-7, atol=1e-6)
    touched = (caches[0] != cache).any(dim=-1).sum().item()
    assert touched == (shape[0] - padding) * shape[2]


def test_rows_without_a_slot_are_left_out(device):
    q, k, v, cos, sin, slots, cache = make(SHAPES["heads of 20b"], device)
    found = rotate_and_write(q, k, v, cos, sin, slots[:3], *cache.split(64, dim=-1))
    expected = rotate_and_write_ref(q[:3], k[:3], v[:3], cos[:3], sin[:3], slots[:3], *cache.split(64, dim=-1))
    assert found.shape == q.shape
    torch.testing.assert_close(found[:3], expected, rtol=2**-7, atol=1e-6)


def test_strides_are_checked(device):
    q, k, v, cos, sin, slots, cache = make(SHAPES["heads of 20b"], device)
    with pytest.raises(ValueError, match="strides"):
        rotate_and_write(q, k, v.contiguous(), cos, sin, slots, *cache.split(64, dim=-1))
    with pytest.raises(ValueError, match="contiguous"):
        rotate_and_write(q, k, v, cos.T.contiguous().T, sin, slots, *cache.split(64, dim=-1))
