"""Choice of experts: the K largest logits of a token, and a softmax over those K only.

    logits = x @ weight.T + bias;  ids = argtop_K(logits);  weights = softmax(logits[ids])

Layout: x [M, H]; weight [E, H]; logits [M, E]; weights and ids [M, K], largest first. Of equal logits the lower
expert comes first. Pairs of tokens and experts are grouped by expert: grouping.py.

Rounding: products accumulate in fp32, the bias is added in fp32, logits round once to bf16, the softmax is fp32.

Source: the gpt-oss model card, arXiv 2508.10925, section 2.2.
"""

import functools

import torch
import triton
import triton.language as tl

from vllm_gptoss.kernels.dependent_launch import launches_dependently, let_successor_start, wait_for_predecessor
from vllm_gptoss.kernels.expert_product import LIFT
from vllm_gptoss.kernels.grouping import MAX_PAIRS, ROW, Routing, group, max_tiles
from vllm_gptoss.kernels.scratch import check_not_capturing

MAX_TOKENS, MAX_EXPERTS, MAX_HIDDEN = 1024, 128, 3072
"""The scratch memory and the program that groups all tokens fit them."""

_COLUMNS = tl.constexpr(32)
"""Experts of one program; its tokens are a row, the fewest that a tensor core takes."""
_LOWEST = tl.constexpr(-(1 << 30))
"""Below the key of every logit."""


@triton.jit
def _arrives_last(counter_ptr, count):
    """Whether this program is the last of `count`; it sees what the others stored, and resets the counter."""
    # Every thread's stores come before the one thread that counts.
    tl.debug_barrier()
    is_last = tl.atomic_add(counter_ptr, 1, sem="acq_rel") == count - 1
    if is_last:
        tl.store(counter_ptr, 0)
    return is_last


@triton.jit
def _partial_logits(
    x_ptr, weight_ptr, lifted_ptr, rows, experts, num_tokens, num_experts: tl.constexpr, hidden: tl.constexpr,
    block: tl.constexpr, dependent: tl.constexpr,
):  # fmt: skip
    """fp32 [rows, experts]: the product over this program's part of H. The first of experts stores this part lifted."""
    h = tl.program_id(0) * block + tl.arange(0, block)
    in_hidden = (h < hidden)[None, :]
    # At most 1024 rows of 3072: 32 bits hold every offset.
    mask = (experts < num_experts)[:, None] & in_hidden
    weight = tl.load(weight_ptr + experts[:, None] * hidden + h, mask, other=0.0)
    if dependent:
        wait_for_predecessor()
    mask = (rows < num_tokens)[:, None] & in_hidden
    x = tl.load(x_ptr + rows[:, None] * hidden + h, mask, other=0.0)
    if lifted_ptr is not None:
        first = mask & (tl.program_id(1) == 0)
        tl.store(lifted_ptr + rows[:, None] * hidden + h, (x.to(tl.float32) * LIFT).to(x.dtype), first)
    return tl.dot(x, weight.T)


@triton.jit
def _logits(partial_ptr, bias_ptr, rows, experts, num_tokens, num_experts: tl.constexpr, splits: tl.constexpr):
    """fp32 [rows, experts]: the parts summed in their order, and the bias."""
    width: tl.constexpr = experts.shape[0]
    mask = (rows < num_tokens)[:, None] & (experts < num_experts)[None, :]
    at = rows[:, None] * width + experts[None, :]
    logits = tl.zeros([rows.shape[0], width], tl.float32)
    for split in tl.static_range(splits):
        # Past L1, which does not see what other programs store.
        logits += tl.load(partial_ptr + split * num_tokens * width + at, mask, other=0.0, cache_modifier=".cg")
    bias = tl.load(bias_ptr + experts, mask=experts < num_experts, other=0.0)
    return logits + bias.to(tl.float32)[None, :]


@triton.jit
def top_k_of(logits, experts, num_experts: tl.constexpr, top_k: tl.constexpr, width: tl.constexpr):
    """fp32 softmax and int32 ids [rows, width] of the `top_k` largest `logits`, rounded to bf16; 0 and 255 behind.

    A key is the logit's bits in the order of integers, then the expert from the highest down: no two are equal.
    """
    bits = logits.to(tl.int32, bitcast=True)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    # Zero has one place in the order, whatever its sign.
    bits = tl.where((bits & 0x7FFF) == 0, 0, bits)
    keys = tl.where(bits < 0, bits ^ 0x7FFF, bits) * 256 + (255 - experts)[None, :]
    keys = tl.where((experts < num_experts)[None, :], keys, _LOWEST)
    slots = tl.arange(0, width)[None, :]
    chosen = tl.full([logits.shape[0], width], _LOWEST, tl.int32)
    for slot in tl.static_range(top_k):
        largest = tl.max(keys, axis=1)[:, None]
        chosen = tl.where(slots == slot, largest, chosen)
        keys = tl.where(keys == largest, _LOWEST, keys)
    bits = chosen >> 8
    bits = tl.where(bits < 0, bits ^ 0x7FFF, bits)
    values = tl.where(slots < top_k, (bits << 16).to(tl.float32, bitcast=True), float("-inf"))
    shares = tl.exp(values - tl.max(values, axis=1)[:, None])
    return shares / tl.sum(shares, axis=1)[:, None], 255 - (chosen & 255)


@triton.jit
def _choose(
    logits, rows, experts, valid_ptr, map_ptr, weights_ptr, ids_ptr, num_tokens, num_experts: tl.constexpr,
    top_k: tl.constexpr,
):  # fmt: skip
    """Store weights and ids of `rows`; returns the ids [rows, slots], and int32 [experts] with a bit for each row."""
    width: tl.constexpr = triton.next_power_of_2(top_k)
    weights, ids = top_k_of(logits, experts, num_experts, top_k, width)
    slots = tl.arange(0, width)[None, :]
    mask = (rows < num_tokens)[:, None] & (slots < top_k)
    is_slot = mask
    if valid_ptr is not None:
        is_slot &= (tl.load(valid_ptr + rows, mask=rows < num_tokens, other=-1) >= 0)[:, None]
    if map_ptr is not None:
        ids = tl.load(map_ptr + ids, mask=is_slot, other=-1)
    ids = tl.where(is_slot, ids, -1)
    tl.store(weights_ptr + rows[:, None] * top_k + slots, tl.where(is_slot, weights, 0.0), mask)
    tl.store(ids_ptr + rows[:, None] * top_k + slots, ids, mask)
    bits = tl.zeros([rows.shape[0], experts.shape[0]], tl.int32)
    bit = (1 << (rows % ROW))[:, None]
    for slot in tl.static_range(top_k):
        column = tl.max(tl.where(slots == slot, ids, -1), axis=1)[:, None]
        bits |= tl.where(column == experts[None, :], bit, 0)
    return ids, tl.sum(bits, axis=0)


@triton.jit
def _chosen_by_all(
    ids_ptr, chosen_by_ptr, num_tokens, top_k: tl.constexpr, width: tl.constexpr, max_rows: tl.constexpr
):
    """What the programs of all rows stored, as `group` takes it: ids [max_rows * slots] and words [width * words]."""
    slots: tl.constexpr = triton.next_power_of_2(top_k)
    words: tl.constexpr = max_rows // ROW
    # Past L1, as above.
    at = tl.arange(0, max_rows * slots)
    token, slot = at // slots, at % slots
    mask = (token < num_tokens) & (slot < top_k)
    ids = tl.load(ids_ptr + token * top_k + slot, mask, other=-1, cache_modifier=".cg")
    at = tl.arange(0, width * words)
    return ids, tl.load(chosen_by_ptr + at, at % words * ROW < num_tokens, other=0, cache_modifier=".cg")


@triton.jit(do_not_specialize=["num_tokens", "num_tiles"])
def _router_kernel(
    x_ptr, weight_ptr, bias_ptr, valid_ptr, map_ptr, weights_ptr, ids_ptr, tiles_ptr, pairs_ptr, lifted_ptr,
    partial_ptr, chosen_by_ptr, counter_ptr, num_tokens, num_tiles,
    num_experts: tl.constexpr, hidden: tl.constexpr, top_k: tl.constexpr, tile: tl.constexpr,
    block: tl.constexpr, width: tl.constexpr, max_rows: tl.constexpr, max_num_tiles: tl.constexpr,
    dependent: tl.constexpr,
):  # fmt: skip
    """Grid: parts of H, columns of experts, rows of tokens. The last program of a row chooses, the last row groups."""
    if dependent:
        let_successor_start()
    splits: tl.constexpr = (hidden + block - 1) // block
    row = tl.program_id(2)
    rows = row * ROW + tl.arange(0, ROW)
    columns = tl.program_id(1) * _COLUMNS + tl.arange(0, _COLUMNS)
    partial = _partial_logits(
        x_ptr, weight_ptr, lifted_ptr, rows, columns, num_tokens, num_experts, hidden, block, dependent
    )
    at = (tl.program_id(0) * num_tokens + rows[:, None]) * width + columns[None, :]
    tl.store(partial_ptr + at, partial, mask=(rows < num_tokens)[:, None])
    if _arrives_last(counter_ptr + 1 + row, splits * tl.num_programs(1)):
        experts = tl.arange(0, width)
        logits = _logits(partial_ptr, bias_ptr, rows, experts, num_tokens, num_experts, splits)
        ids, chosen_by = _choose(
            logits, rows, experts, valid_ptr, map_ptr, weights_ptr, ids_ptr, num_tokens, num_experts, top_k
        )
        if max_rows == ROW:
            ids = tl.reshape(ids, [ids.numel])
            group(chosen_by, ids, experts, tiles_ptr, pairs_ptr, num_tiles, top_k, tile, max_rows, max_num_tiles)
        else:
            tl.store(chosen_by_ptr + experts * (max_rows // ROW) + row, chosen_by)
            if _arrives_last(counter_ptr, tl.num_programs(2)):
                all_ids, all_chosen_by = _chosen_by_all(ids_ptr, chosen_by_ptr, num_tokens, top_k, width, max_rows)
                group(
                    all_chosen_by, all_ids, experts, tiles_ptr, pairs_ptr, num_tiles,
                    top_k, tile, max_rows, max_num_tiles,
                )  # fmt: skip


@functools.cache
def _scratch(device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Kept for the process's lifetime, as captured graphs hold the addresses."""
    check_not_capturing(device, "the router")
    rows = MAX_TOKENS // ROW.value
    return (
        torch.empty(12 * MAX_TOKENS * MAX_EXPERTS, dtype=torch.float32, device=device),  # [parts of H, M, E]
        torch.empty(rows * MAX_EXPERTS, dtype=torch.int32, device=device),  # [E, rows] who chose an expert
        torch.zeros(1 + rows, dtype=torch.int32, device=device),  # arrived rows, and programs of each; 0 at rest
    )


def route(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    top_k: int,
    valid: torch.Tensor | None,
    tile: int,
    expert_map: torch.Tensor | None = None,
    lifted: torch.Tensor | None = None,
) -> Routing:
    """Routing of the tokens `x` bf16 [M, H] by `weight` bf16 [E, H] and `bias` bf16 [E], in one launch.

    Row m is padding, of no expert, where `valid` int64 [>= M] is negative. `expert_map` int32 [E] gives an expert's
    local id, -1 where another rank holds it. Contiguous all. Groups are tiles of at most `tile` pairs. `lifted` bf16
    [M, H] is given `x` times LIFT, for experts that take it so (expert_product.py).

    The first call on a device must be outside of a graph capture: it makes scratch memory. All launches on a device
    share that memory, so they must follow one another, on one stream or through events.

    Raises: ValueError beyond MAX_TOKENS, MAX_EXPERTS, MAX_HIDDEN and MAX_PAIRS, and for what is not bf16 or not
    contiguous.
    """
    (num_tokens, hidden), num_experts = x.shape, weight.shape[0]
    _check(x, weight, bias, top_k, tile)
    num_tiles = max_tiles(num_tokens, top_k, num_experts, tile)
    ints = functools.partial(torch.empty, dtype=torch.int32, device=x.device)
    weights = torch.empty(num_tokens, top_k, dtype=torch.float32, device=x.device)
    routing = Routing(weights, ints(num_tokens, top_k), ints(num_tiles), ints(num_tiles, tile))
    if num_tokens == 0:
        return routing
    # Few parts, such that one program sums them quickly, and enough of them to keep 16 to 48 programs reading.
    width, block = (_COLUMNS.value, 128) if num_experts <= _COLUMNS.value else (MAX_EXPERTS, 256)
    max_rows = next(rows for rows in (ROW.value, 64, 256, MAX_TOKENS) if num_tokens <= rows)
    grid = (triton.cdiv(hidden, block), triton.cdiv(num_experts, _COLUMNS.value), triton.cdiv(num_tokens, ROW.value))
    # Without a limit ptxas takes 40, and then waits several times for the parts that it sums.
    num_warps, registers = 4 if width == _COLUMNS.value else 8, 128
    if width > _COLUMNS.value and max_rows > 64:
        # Many programs: as many of them at a time as there can be without spilling what `group` holds.
        num_warps, registers = (8, 80) if max_rows < MAX_TOKENS else (16, 64)
    dependent = launches_dependently(x.device)
    _router_kernel[grid](
        x, weight, bias, valid, expert_map, *routing, lifted, *_scratch(x.device), num_tokens, num_tiles,
        num_experts, hidden, top_k, tile, block, width, max_rows,
        triton.next_power_of_2(max_tiles(max_rows, top_k, num_experts, tile)), dependent,
        num_warps=num_warps, maxnreg=registers, launch_pdl=dependent,
    )  # fmt: skip
    return routing


def _check(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, top_k: int, tile: int) -> None:
    (num_tokens, hidden), num_experts = x.shape, len(weight)
    for tensor in (x, weight, bias):
        if tensor.dtype != torch.bfloat16 or not tensor.is_contiguous():
            raise ValueError(f"the router takes contiguous bf16, not {tensor.dtype} of strides {tensor.stride()}")
    if num_tokens > MAX_TOKENS or num_experts > MAX_EXPERTS or hidden > MAX_HIDDEN or hidden % 16:
        limits = f"at most {MAX_TOKENS}, {MAX_EXPERTS}, and a multiple of 16 up to {MAX_HIDDEN}"
        raise ValueError(f"the router takes {limits}, not {num_tokens} tokens, {num_experts} experts, H = {hidden}")
    if not 1 <= top_k <= num_experts or tile not in (8, 16, 32, 64, 128):
        raise ValueError(f"{top_k} of {num_experts} experts in tiles of {tile} pairs (8, 16, 32, 64 or 128)")
    if num_tokens * top_k > MAX_PAIRS:
        raise ValueError(f"the router takes at most {MAX_PAIRS} pairs, not {num_tokens} tokens of {top_k} experts")


def router_ref(logits: torch.Tensor, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`weights` [M, K] in the dtype of `logits` [M, E], from a softmax in fp32, and `ids` int64 [M, K]."""
    # torch.topk leaves the order of equal values open, and bf16 logits are often equal.
    values, ids = logits.sort(dim=-1, descending=True, stable=True)
    weights = values[:, :top_k].softmax(dim=-1, dtype=torch.float32)
    return weights.to(logits.dtype), ids[:, :top_k].contiguous()
