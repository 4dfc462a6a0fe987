"""Choice of experts by logits that lie in memory already, as vLLM's expert products take it.

    ids, weights = the K largest logits of a token and their softmax (router.py)
    bit e % 32 of words[m, e // 32] = whether e is one of ids[m]

Layout: logits [M, E]; ids and weights [R, K], largest first; words [R, E / 32 rounded up], a token's side by side. Rows
from M on pad them: ids -1, no bit. Neither the number of tokens nor that of rows is a constant of the kernel.

Rounding: fp32 between logits and weights in bf16.

Source: the gpt-oss model card, arXiv 2508.10925, section 2.2.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from vllm_gptoss.kernels.grouping import ROW
from vllm_gptoss.kernels.router import MAX_EXPERTS, router_ref, top_k_of

_BITS = tl.constexpr(32)


class Choice(NamedTuple):
    weights: torch.Tensor  # [R, K] bf16, -1 in rows that pad
    ids: torch.Tensor  # [R, K] int16, -1 there
    words: torch.Tensor  # [R, words] int32
    zeros: torch.Tensor  # [32 * words] int32: where who counts them may begin


@triton.jit(do_not_specialize=["num_tokens", "num_rows"])
def _choice_kernel(
    logits_ptr, weights_ptr, ids_ptr, words_ptr, zeros_ptr, num_tokens, num_rows,
    num_experts: tl.constexpr, top_k: tl.constexpr, num_words: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    """Grid: blocks of rows."""
    rows = tl.program_id(0) * ROW + tl.arange(0, ROW)
    experts = tl.arange(0, width)
    is_token, is_row = (rows < num_tokens)[:, None], (rows < num_rows)[:, None]
    mask = is_token & (experts < num_experts)[None, :]
    logits = tl.load(logits_ptr + rows.to(tl.int64)[:, None] * num_experts + experts[None, :], mask, other=0.0)
    slots: tl.constexpr = triton.next_power_of_2(top_k)
    weights, ids = top_k_of(logits.to(tl.float32), experts, num_experts, top_k, slots)
    slot = tl.arange(0, slots)[None, :]
    ids = tl.where(is_token & (slot < top_k), ids, -1)
    at = rows[:, None] * top_k + slot
    tl.store(weights_ptr + at, tl.where(is_token, weights, -1.0), is_row & (slot < top_k))
    tl.store(ids_ptr + at, ids, is_row & (slot < top_k))
    for word in tl.static_range(num_words):
        bits = tl.where((ids >= 0) & (ids // _BITS == word), 1 << (ids % _BITS), 0)
        tl.store(words_ptr + rows * num_words + word, tl.sum(bits, axis=1), rows < num_rows)
    if tl.program_id(0) == 0:
        tl.store(zeros_ptr + experts, tl.zeros([width], tl.int32), experts < num_words * _BITS)


def choose(logits: torch.Tensor, top_k: int, num_rows: int) -> Choice:
    """Of `logits` bf16 [M, E], contiguous, in `num_rows` rows, M or more; in one launch.

    Raises: ValueError for other logits, more than MAX_EXPERTS, fewer than `top_k`, and too few rows.
    """
    num_tokens, num_experts = logits.shape
    if logits.dtype != torch.bfloat16 or not logits.is_contiguous():
        raise ValueError(f"logits are contiguous bf16, not {logits.dtype} of strides {logits.stride()}")
    if not top_k <= num_experts <= MAX_EXPERTS or num_rows < num_tokens:
        raise ValueError(
            f"{top_k} of {num_experts} experts (at most {MAX_EXPERTS}) for {num_tokens} tokens in {num_rows} rows"
        )
    num_words = -(-num_experts // _BITS.value)
    ints = {"device": logits.device, "dtype": torch.int32}
    choice = Choice(
        torch.empty(num_rows, top_k, device=logits.device, dtype=torch.bfloat16),
        torch.empty(num_rows, top_k, device=logits.device, dtype=torch.int16),
        torch.empty(num_rows, num_words, **ints),
        torch.empty(num_words * _BITS.value, **ints),
    )
    # One program at least: it writes the zeros.
    _choice_kernel[(max(1, triton.cdiv(num_rows, ROW.value)),)](
        logits, *choice, num_tokens, num_rows,
        num_experts, top_k, num_words, triton.next_power_of_2(num_words * _BITS.value), num_warps=1,
    )  # fmt: skip
    return choice


def choice_ref(logits: torch.Tensor, top_k: int, num_rows: int) -> Choice:
    """The same, of `logits` [M, E] in any dtype."""
    num_tokens, num_experts = logits.shape
    weights, ids = router_ref(logits.float(), top_k)
    padding = num_rows - num_tokens
    weights = torch.nn.functional.pad(weights, (0, 0, 0, padding), value=-1).bfloat16()
    ids = torch.nn.functional.pad(ids, (0, 0, 0, padding), value=-1)
    num_words = -(-num_experts // _BITS.value)
    words = torch.zeros(num_rows, num_words, dtype=torch.int64, device=logits.device)
    for row, slot in (ids >= 0).nonzero().tolist():
        expert = int(ids[row, slot])
        words[row, expert // _BITS.value] |= 1 << expert % _BITS.value
    zeros = torch.zeros(num_words * _BITS.value, dtype=torch.int32, device=logits.device)
    return Choice(weights, ids.short(), words.int(), zeros)
