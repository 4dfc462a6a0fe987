"""Compiles what the launchers launch, for GPUs that this machine need not have: `python tests/kernels/aot.py`.

A launcher is called as the model calls it, with tensors that have no memory, and Triton is told of a GPU that does
not exist: signature, constants, alignment, warps and stages are those of the real launch, and nothing runs. Standard
output is one JSON list: a row for each kernel that each launch compiles, for each compute capability.
"""

import functools
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.runtime import JITFunction, driver

SHARED_LIMITS = {80: 163, 89: 99, 90: 227, 100: 227, 120: 99}
"""KiB of shared memory that one program can have, by compute capability: CUDA programming guide, table 27."""


HOPPER_ALONE = (90,)
"""For what a warpgroup multiplies."""


class Launch(NamedTuple):
    run: Callable[[], object]
    capabilities: tuple[int, ...] = tuple(SHARED_LIMITS)


def meta(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def route(num_tokens: int, num_experts: int, is_mapped: bool = False) -> object:
    from vllm_gptoss.kernels import router

    return router.route(
        meta(num_tokens, 2880),
        meta(num_experts, 2880),
        meta(num_experts),
        top_k=4,
        valid=meta(num_tokens, dtype=torch.int64),
        tile=8,
        expert_map=meta(num_experts, dtype=torch.int32) if is_mapped else None,
        lifted=meta(num_tokens, 2880),
    )


def choose(num_tokens: int, num_experts: int) -> object:
    from vllm_gptoss.kernels import choice

    return choice.choose(meta(num_tokens, num_experts), top_k=4, num_rows=1024)


def experts(product: str, num_tokens: int, num_experts: int, hidden: int = 2880, inter: int = 2880) -> object:
    from vllm_gptoss.kernels import capability, down, gate_up, grouping, tuning

    ints = functools.partial(meta, dtype=torch.int32)
    rows, columns = {"gate_up": (2 * inter, hidden), "down": (hidden, inter)}[product]
    pairs = 4 * num_tokens
    tile = tuning.tile_tokens(pairs, num_experts)
    hopper = capability.capability(torch.device("meta")) == capability.HOPPER
    tiles = grouping.max_tiles(num_tokens, 4, num_experts, tile)
    weights = meta(num_tokens, 4, dtype=torch.float32)
    routing = grouping.Routing(weights, ints(num_tokens, 4), ints(tiles), ints(tiles, tile))
    # The bytes of scales are padded to 256 rows and 128 columns, and biases are fp32, as the model keeps them.
    scales = meta(num_experts, -(-rows // 256) * 8, -(-columns // 128) * 128, dtype=torch.uint8)
    blocks = ints(num_experts, -(-rows // 16) * 4, -(-columns // 64) * 32)
    held = blocks, scales, meta(num_experts, rows, dtype=torch.float32)
    if product == "gate_up":
        config = tuning.pick_gate_up(pairs, num_experts, hopper)
        return gate_up.gate_up(meta(num_tokens, columns), routing, *held, alpha=1.702, limit=7.0, config=config)
    return down.down(meta(pairs, columns), routing, *held, tuning.pick_down(pairs, num_experts, hopper))


def decode_attention(requests: int, window: int | None) -> None:
    """Heads of both models over vLLM's blocks, which have keys and values side by side; q, k and v are of one row."""
    from vllm_gptoss.kernels import decode_attention

    ints = functools.partial(meta, dtype=torch.int32)
    q, new_keys, new_values = meta(requests, 80, 64).split([64, 8, 8], dim=1)
    angles = meta(requests, 32, dtype=torch.float32)
    slots = meta(requests, dtype=torch.int64)
    new = decode_attention.NewTokens(new_keys, new_values, angles, angles, slots)
    keys, values = meta(8192, 16, 8, 128).transpose(1, 2).split(64, dim=-1)
    table = ints(requests, 8192)
    out = meta(requests, 64, 64)
    decode_attention.decode_attention(
        q, keys, values, table, ints(requests), meta(64), 0.125, window, out, max_seq_len=131_072, new=new
    )


def dense(num_tokens: int, rows: int, columns: int, has_bias: bool = True) -> object:
    from vllm_gptoss.kernels import dense, tuning

    config = tuning.pick_dense(num_tokens, rows, columns)
    return dense.dense(meta(num_tokens, columns), meta(rows, columns), meta(rows) if has_bias else None, config)


def dense_wide(rows: int, columns: int) -> object:
    from vllm_gptoss.kernels import dense_wide, tuning

    x, weight, bias = meta(64, columns), meta(rows, columns), meta(rows)
    return dense_wide.dense_wide(x, weight, bias, tuning.pick_wide_dense(rows, columns))


def rmsnorm(num_tokens: int, has_residual: bool) -> object:
    from vllm_gptoss.kernels import rmsnorm

    residual = (meta(num_tokens, 2880),) if has_residual else ()
    return rmsnorm.rmsnorm(meta(num_tokens, 2880), meta(2880), 1e-5, *residual)


def kv_write(num_tokens: int) -> object:
    from vllm_gptoss.kernels import kv_write

    q, k, v = meta(num_tokens, 80, 64).split([64, 8, 8], dim=1)
    keys, values = meta(8192, 16, 8, 128).transpose(1, 2).split(64, dim=-1)
    angles = meta(num_tokens, 32, dtype=torch.float32)
    slots = meta(num_tokens, dtype=torch.int64)
    return kv_write.rotate_and_write(q, k, v, angles, angles, slots, keys, values)


LAUNCHES = {
    "router 20b, 1 token": Launch(lambda: route(1, 32)),
    "router 20b, 64 tokens": Launch(lambda: route(64, 32)),
    "router 120b, 1 token": Launch(lambda: route(1, 128)),
    "router 120b, 64 tokens, mapped": Launch(lambda: route(64, 128, is_mapped=True)),
    "router 20b, 512 tokens": Launch(lambda: route(512, 32)),
    "router 120b, 1024 tokens": Launch(lambda: route(1024, 128)),
    "choice 20b": Launch(lambda: choose(1000, 32)),
    "choice 120b": Launch(lambda: choose(1000, 128)),
    "gate_up 20b, 1 token": Launch(lambda: experts("gate_up", 1, 32)),
    "gate_up 20b, 2 tokens": Launch(lambda: experts("gate_up", 2, 32)),
    "gate_up 20b, 8 tokens": Launch(lambda: experts("gate_up", 8, 32)),
    "gate_up 20b, 64 tokens": Launch(lambda: experts("gate_up", 64, 32)),
    "gate_up 20b, 512 tokens": Launch(lambda: experts("gate_up", 512, 32)),
    "gate_up 120b, 16 tokens": Launch(lambda: experts("gate_up", 16, 128)),
    "down 20b, 1 token": Launch(lambda: experts("down", 1, 32)),
    "down 20b, 2 tokens": Launch(lambda: experts("down", 2, 32)),
    "down 20b, 8 tokens": Launch(lambda: experts("down", 8, 32)),
    "down 20b, 64 tokens": Launch(lambda: experts("down", 64, 32)),
    "down 20b, 512 tokens": Launch(lambda: experts("down", 512, 32)),
    "down 120b, 16 tokens": Launch(lambda: experts("down", 16, 128)),
    "gate_up of one step": Launch(lambda: experts("gate_up", 5, 8, hidden=128)),
    "down of one step": Launch(lambda: experts("down", 5, 8, inter=96)),
    # A launch on no GPU counts four processors: one request is split among them, 64 are not.
    "decode_attention, split": Launch(lambda: decode_attention(1, None)),
    "decode_attention, not split": Launch(lambda: decode_attention(64, None)),
    "decode_attention, window": Launch(lambda: decode_attention(1, 128)),
    "decode_attention, window, many": Launch(lambda: decode_attention(64, 128)),
    "qkv, 1 token": Launch(lambda: dense(1, 5120, 2880)),
    "qkv, 16 tokens": Launch(lambda: dense(16, 5120, 2880)),
    "qkv, 64 tokens": Launch(lambda: dense_wide(5120, 2880), HOPPER_ALONE),
    "qkv without a bias": Launch(lambda: dense(1, 5120, 2880, has_bias=False)),
    "qkv of two ranks, 16 tokens": Launch(lambda: dense(16, 2560, 2880)),
    "output projection, 1 token": Launch(lambda: dense(1, 2880, 4096)),
    "output projection, 16 tokens": Launch(lambda: dense(16, 2880, 4096)),
    "output projection, 64 tokens": Launch(lambda: dense_wide(2880, 4096), HOPPER_ALONE),
    "output projection of eight ranks": Launch(lambda: dense(8, 2880, 512)),
    "rotated and written": Launch(lambda: kv_write(1000)),
    "rmsnorm": Launch(lambda: rmsnorm(1, has_residual=False)),
    "rmsnorm of the sum": Launch(lambda: rmsnorm(1, has_residual=True)),
}
"""A new kernel is a line here: a call of its launcher, and capabilities if it is not for all."""

SPILLING = "spills on purpose"


@triton.jit
def _spilling_kernel(x_ptr, y_ptr):
    """64 values a thread that live past a sum over them."""
    at = tl.arange(0, 64 * 128)
    x = tl.load(x_ptr + at)
    tl.store(y_ptr + at, x / tl.sum(x, axis=0))


def spill() -> None:
    x = meta(64 * 128, dtype=torch.float32)
    _spilling_kernel[(1,)](x, x, num_warps=4, maxnreg=32)


class _AbsentGpu:
    """What a launch asks Triton's driver before it compiles. The number of the device is its capability."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return self.capability

    def get_current_stream(self, device: int) -> int:
        return 0


def compile_launch(launch: Launch, capability: int) -> list[dict]:
    """Rows of the kernels that `launch` compiles, in their order."""
    rows = []
    plain = JITFunction.run

    def run(self: JITFunction, *args, grid: object, warmup: bool, **options) -> None:
        compiled = plain(self, *args, grid=grid, warmup=True, **options)
        row = {"kernel": self.__name__, "warps": compiled.metadata.num_warps, "shared": compiled.metadata.shared}
        rows.append(row | resources(compiled.asm["cubin"]))

    driver.set_active(_AbsentGpu(capability))
    JITFunction.run = run
    try:
        launch.run()
    finally:
        JITFunction.run = plain
    return rows


def resources(cubin: bytes) -> dict[str, int]:
    """Registers of a thread, and the bytes of its stack, which is where spilled registers go."""
    program = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = subprocess.run([program, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    registers, stack, local = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", usage).groups()
    return {"registers": int(registers), "stack": int(stack) + int(local)}


def main() -> None:
    rows = []
    for name, launch in {**LAUNCHES, SPILLING: Launch(spill)}.items():
        for capability in launch.capabilities:
            key = {"launch": name, "capability": capability}
            try:
                rows += [key | row for row in compile_launch(launch, capability)]
            except Exception as error:  # which of many failed is for the tests to say
                rows.append(key | {"error": f"{type(error).__name__}: {error}"})
    print(json.dumps(rows))


if __name__ == "__main__":
    assert not os.environ.get("TRITON_INTERPRET"), "kernels decorated for the interpreter do not compile"
    main()
