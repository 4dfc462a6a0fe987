"""The least time that a step of gpt-oss can take on a GPU, from the bytes it must move and its operations.

An operation takes bytes / bandwidth or operations / rate, whichever is larger, and a step is the sum of its
operations. M tokens in uniform routing use E (1 - (1 - K/E)^M) distinct experts. A sliding layer reads the keys
of its window. Activations count once where an operation must read or write them.
"""

from dataclasses import dataclass

from vllm_gptoss.model.config import MXFP4_BLOCK, ModelArgs

BF16, FP32 = 2, 4
MXFP4_BYTES = 0.5 + 1 / MXFP4_BLOCK
"""A byte for two values, and one scale byte a block."""


@dataclass(frozen=True)
class Gpu:
    """Rates that a plain kernel reaches on a GPU, which are below those of its data sheet."""

    bytes_per_s: float
    flops_per_s: float


GPUS = {
    # Measured: a device-to-device copy (read and write counted), and a large bf16 matrix product.
    "NVIDIA H200": Gpu(bytes_per_s=4.3e12, flops_per_s=790e12),
}


def gpu_of(name: str) -> Gpu | None:
    """The rates of a GPU by the name that its driver gives; None where nobody measured."""
    return GPUS.get(name)


def op_ms(gpu: Gpu, moved_bytes: float, flops: float = 0.0) -> float:
    """Milliseconds of one operation."""
    return max(moved_bytes / gpu.bytes_per_s, flops / gpu.flops_per_s) * 1e3


def distinct_experts(args: ModelArgs, tokens: int) -> float:
    """Experts that `tokens` tokens use between them, expected with uniform routing."""
    return args.num_experts * (1 - (1 - args.experts_per_token / args.num_experts) ** tokens)


def decode_ms(gpu: Gpu, args: ModelArgs, batch: int, context: int) -> float:
    """Milliseconds of one decode step of `batch` requests that have `context` tokens each."""
    keys = [min(context, window or context) for window in args.windows]
    layers = sum(_layer_ms(gpu, args, batch, batch * seen, batch * seen) for seen in keys)
    return layers + _head_ms(gpu, args, batch)


def prefill_ms(gpu: Gpu, args: ModelArgs, tokens: int) -> float:
    """Milliseconds until the first token of a prompt of `tokens` tokens, computed in one piece."""
    total = 0.0
    for window in args.windows:
        reach = min(tokens, window or tokens)
        # The first `reach` queries see a triangle of keys, all others `reach` keys.
        pairs = reach * (reach + 1) / 2 + (tokens - reach) * reach
        total += _layer_ms(gpu, args, tokens, tokens, pairs)
    return total + _head_ms(gpu, args, 1)


def kv_bytes_a_token(args: ModelArgs) -> int:
    """Keys and values of one token in one layer, in bf16."""
    return 2 * args.num_kv_heads * args.head_dim * BF16


def weight_bytes(args: ModelArgs) -> float:
    """What the parameters take in memory."""
    hidden, heads, qkv = _widths(args)
    dense = hidden * qkv + heads * hidden + args.num_experts * hidden
    experts = args.num_experts * 3 * hidden * args.intermediate_size
    head = 2 * args.vocab_size * hidden
    return args.num_layers * (dense * BF16 + experts * MXFP4_BYTES) + head * BF16


def _widths(args: ModelArgs) -> tuple[int, int, int]:
    heads = args.num_heads * args.head_dim
    return args.hidden_size, heads, heads + 2 * args.num_kv_heads * args.head_dim


def _linear_ms(gpu: Gpu, rows: float, inputs: int, outputs: int) -> float:
    moved = (inputs * outputs + rows * (inputs + outputs)) * BF16
    return op_ms(gpu, moved, 2 * rows * inputs * outputs)


def _layer_ms(gpu: Gpu, args: ModelArgs, rows: int, keys_read: float, pairs: float) -> float:
    """`keys_read` of the KV cache, `pairs` of a query and a key."""
    hidden, heads, qkv = _widths(args)
    norm = op_ms(gpu, 4 * rows * hidden * BF16)  # the residual and its summand in, both out
    attention = op_ms(
        gpu,
        (keys_read + rows) * kv_bytes_a_token(args) + 2 * rows * heads * BF16,
        4 * pairs * heads,
    )
    dense = (
        _linear_ms(gpu, rows, hidden, qkv)
        + _linear_ms(gpu, rows, heads, hidden)
        + _linear_ms(gpu, rows, hidden, args.num_experts)
    )
    return 2 * norm + attention + dense + _experts_ms(gpu, args, rows)


def _experts_ms(gpu: Gpu, args: ModelArgs, rows: int) -> float:
    hidden, inter = args.hidden_size, args.intermediate_size
    experts = distinct_experts(args, rows)
    pairs = rows * args.experts_per_token
    up = op_ms(
        gpu,
        experts * 2 * inter * hidden * MXFP4_BYTES + (rows * hidden + pairs * inter) * BF16,
        2 * pairs * hidden * 2 * inter,
    )
    down = op_ms(
        gpu,
        experts * hidden * inter * MXFP4_BYTES + (pairs * inter + rows * hidden) * BF16,
        2 * pairs * inter * hidden,
    )
    return up + down


def _head_ms(gpu: Gpu, args: ModelArgs, rows: int) -> float:
    """The last norm, the logits, and the greedy choice among them in fp32."""
    norm = op_ms(gpu, 3 * rows * args.hidden_size * BF16)
    choice = op_ms(gpu, rows * args.vocab_size * (BF16 + FP32))
    return norm + _linear_ms(gpu, rows, args.hidden_size, args.vocab_size) + choice
