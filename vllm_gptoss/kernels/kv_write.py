"""Rotary embedding of queries and keys, and the write of keys and values into a paged cache, for any tokens.

    y[m] = rope(q[m]);    keys[slot[m]] = rope(k[m]);    values[slot[m]] = v[m]      nothing where slot[m] is negative

One launch, a program a token. fp32 inside, one rounding (see `rope.py`). Steps of one query a request have this within
`decode_attention.py`.

Layout: q [M, Hq, D], k and v [M, Hkv, D]; the caches [blocks, Hkv, block, D]; slot = number of the block * block +
place in it.
"""

import torch
import triton
import triton.language as tl

from vllm_gptoss.kernels.decode_attention_kernel import load_rotated
from vllm_gptoss.kernels.dependent_launch import launches_dependently, let_successor_start, wait_for_predecessor
from vllm_gptoss.kernels.rope import rope_ref


@triton.jit
def _kv_write_kernel(
    q_ptr, new_key_ptr, new_value_ptr, cos_ptr, sin_ptr, slots_ptr, out_ptr, key_ptr, value_ptr,
    q_row_stride, q_head_stride, new_row_stride, new_head_stride, block_stride, head_stride, slot_stride,
    num_heads: tl.constexpr, num_kv_heads: tl.constexpr, head_dim: tl.constexpr, block: tl.constexpr,
    dependent: tl.constexpr,
):  # fmt: skip
    if dependent:
        wait_for_predecessor()
        let_successor_start()
    token = tl.program_id(0).to(tl.int64)
    dims = tl.arange(0, head_dim)
    angle = token * (head_dim // 2) + dims % (head_dim // 2)
    cos, sin = tl.load(cos_ptr + angle)[None, :], tl.load(sin_ptr + angle)
    sin = tl.where(dims < head_dim // 2, -sin, sin)[None, :]
    heads = tl.arange(0, triton.next_power_of_2(num_heads))[:, None]
    mask = heads < num_heads
    q = load_rotated(q_ptr + token * q_row_stride + heads * q_head_stride, cos, sin, mask, head_dim)
    tl.store(out_ptr + (token * num_heads + heads) * head_dim + dims[None, :], q, mask=mask)
    slot = tl.load(slots_ptr + token)
    if slot >= 0:
        kv_heads = tl.arange(0, triton.next_power_of_2(num_kv_heads))[:, None]
        is_kv_head = kv_heads < num_kv_heads
        new_at = token * new_row_stride + kv_heads * new_head_stride
        key = load_rotated(new_key_ptr + new_at, cos, sin, is_kv_head, head_dim)
        value = tl.load(new_value_ptr + new_at + dims[None, :], mask=is_kv_head, other=0.0)
        at = slot // block * block_stride + slot % block * slot_stride + kv_heads * head_stride + dims[None, :]
        tl.store(key_ptr + at, key, mask=is_kv_head)
        tl.store(value_ptr + at, value, mask=is_kv_head)


def rotate_and_write(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    slots: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
) -> torch.Tensor:
    """Rotated `q` [M, Hq, D], contiguous; the rotated `k` and `v` [M, Hkv, D] go into the caches at `slots` int64 [M].

    `cos` and `sin` fp32 [M, D/2] are contiguous. `k` and `v` have the same strides, as the two caches have; D is
    contiguous in all of them. M is the number of slots: more rows of the other tensors are left out, of `q` they are
    not written.

    Raises: ValueError for other strides.
    """
    num_tokens, num_heads, head_dim = len(slots), *q.shape[1:]
    if k.stride() != v.stride() or key_cache.stride() != value_cache.stride():
        raise ValueError("keys and values differ in their strides")
    if {t.stride(-1) for t in (q, k, key_cache)} != {1} or not (cos.is_contiguous() and sin.is_contiguous()):
        raise ValueError("a last dimension, or an angle, is not contiguous")
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    dependent = launches_dependently(q.device)
    if num_tokens:
        _kv_write_kernel[(num_tokens,)](
            q, k, v, cos, sin, slots, out, key_cache, value_cache,
            *q.stride()[:2], *k.stride()[:2], *key_cache.stride()[:3],
            num_heads, k.shape[1], head_dim, key_cache.shape[2], dependent, num_warps=4, launch_pdl=dependent,
        )  # fmt: skip
    return out


def rotate_and_write_ref(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    slots: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
) -> torch.Tensor:
    """As `rotate_and_write`, of which M tokens all have a row."""
    kept = slots >= 0
    blocks, places = slots[kept] // key_cache.shape[2], slots[kept] % key_cache.shape[2]
    key_cache[blocks, :, places] = rope_ref(k, cos, sin)[kept]
    value_cache[blocks, :, places] = v[kept]
    return rope_ref(q, cos, sin)
