"""What Triton would compile for vLLM's experts by the number of tokens, with no GPU: `python tests/model/variants.py`.

Triton is told of a Hopper GPU that does not exist, and asked for the key of every launch instead of the launch; tensors
have no memory. Standard output is a JSON object: by number of experts, token counts after the warm-up whose steps have
a launch that was not seen before, this package's way (`ours`) and vLLM's (`stock`).
"""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from triton.backends.compiler import GPUTarget
from triton.compiler import make_backend
from triton.runtime import JITFunction, driver
from triton.runtime.jit import create_function_from_signature

HIDDEN = INTER = 2880
TOP_K = 4
COUNTS = range(513, 16385, 37)


class _AbsentGpu:
    """What a launch asks Triton's driver."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def meta(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def watch_launches() -> set[tuple[str, str, str]]:
    """The keys of all launches from now on, none of which takes place."""
    seen: set[tuple[str, str, str]] = set()
    binders: dict[int, object] = {}  # by identity: a function's hash would read what it calls

    def run(self: JITFunction, *args, grid: object, warmup: bool, **options) -> None:
        if id(self) not in binders:
            binders[id(self)] = create_function_from_signature(
                self.signature, self.params, make_backend(driver.active.get_current_target())
            )
        options.pop("debug", None)
        _, specialization, launch_options = binders[id(self)](*args, **options)
        seen.add((self.__name__, str(specialization), str(launch_options)))

    JITFunction.run = run
    return seen


def layer_of(num_experts: int) -> SimpleNamespace:
    from vllm.model_executor.layers.fused_moe.config import mxfp4_w4a16_moe_quant_config

    from vllm_gptoss import ops
    from vllm_gptoss.model import vllm_experts

    rows = -(-2 * INTER // 256) * 8, -(-HIDDEN // 256) * 8
    experts = ops.SwizzledExperts(
        meta(num_experts, 2 * INTER // 4, HIDDEN // 2, dtype=torch.int32),
        meta(num_experts, rows[0], 2944, dtype=torch.uint8),
        meta(num_experts, 2 * INTER, dtype=torch.float32),
        meta(num_experts, HIDDEN // 4, INTER // 2, dtype=torch.int32),
        meta(num_experts, rows[1], 2944, dtype=torch.uint8),
        meta(num_experts, HIDDEN, dtype=torch.float32),
    )
    layer = SimpleNamespace(
        hidden_size=HIDDEN, intermediate_size_per_partition=INTER, top_k=TOP_K, swiglu_alpha=1.702, swiglu_limit=7.0
    )
    first, second = vllm_experts.wrap(layer, experts)
    layer.quant_config = mxfp4_w4a16_moe_quant_config(
        w1_scale=first, w2_scale=second, w1_bias=layer.w13_bias, w2_bias=layer.w2_bias
    )
    return layer


def ours(layer: SimpleNamespace, num_experts: int, tokens: int) -> None:
    from vllm_gptoss.model import vllm_experts

    vllm_experts.many_tokens(layer, meta(tokens, HIDDEN), meta(tokens, num_experts), layer.quant_config)


def stock(layer: SimpleNamespace, num_experts: int, tokens: int) -> None:
    from vllm.model_executor.layers.fused_moe.experts.gpt_oss_triton_kernels_moe import triton_kernel_moe_forward

    x, logits = meta(tokens, HIDDEN), meta(tokens, num_experts)
    weights = layer.w13_weight, layer.w2_weight
    triton_kernel_moe_forward(x, *weights, logits, TOP_K, renormalize=True, quant_config=layer.quant_config)


def main() -> None:
    driver.set_active(_AbsentGpu())
    properties = SimpleNamespace(multi_processor_count=132, shared_memory_per_block_optin=232448)
    torch.cuda.get_device_capability = lambda *_: (9, 0)
    torch.cuda.get_device_properties = lambda *_: properties
    from vllm.utils.import_utils import has_triton_kernels

    from vllm_gptoss.model.prompt_warmup import PromptWarmup

    assert has_triton_kernels()
    limits = SimpleNamespace(scheduler_config=SimpleNamespace(max_num_batched_tokens=COUNTS.stop))
    seen = watch_launches()
    found: dict[str, dict[int, list[int]]] = {}
    for run in (ours, stock):
        for num_experts in (32, 128):
            seen.clear()
            layer = layer_of(num_experts)
            for tokens in PromptWarmup(layer).get_warmup_keys(limits):
                run(layer, num_experts, tokens)
            new = []
            for tokens in COUNTS:
                before = len(seen)
                run(layer, num_experts, tokens)
                new += [tokens] * (len(seen) > before)
            found.setdefault(run.__name__, {})[num_experts] = new
    print(json.dumps(found))


if __name__ == "__main__":
    assert not os.environ.get("TRITON_INTERPRET"), "the interpreter compiles nothing"
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main()
