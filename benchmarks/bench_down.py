"""The second product of the experts, and the weighted sum over those of a token, beside vLLM's two launches.

vLLM's product writes what each expert adds to a token, in bf16, and its second launch sums that.
"""

import argparse
from typing import TYPE_CHECKING

from benchmarks import expert_products
from benchmarks.expert_products import Inputs
from vllm_gptoss.kernels.tuning import ExpertConfig, pick_down

if TYPE_CHECKING:
    import torch

    from vllm_gptoss.kernels.grouping import Routing


def add_options(parser: argparse.ArgumentParser) -> None:
    expert_products.add_options(parser)


def run(options: argparse.Namespace) -> None:
    product = expert_products.Product("down", 1, (1, 2, 3, 4), pick_down, _ours, _stock, _expected)
    expert_products.run(options, product)


def _ours(inputs: Inputs, routing: "Routing", config: ExpertConfig) -> "torch.Tensor":
    from vllm_gptoss.kernels.down import down

    blocks, scales, bias = inputs.weights[:3]
    return down(inputs.x, routing, blocks, scales, bias, config)


def _stock(inputs: Inputs) -> "torch.Tensor":
    from triton_kernels.matmul_ogs import matmul_ogs

    weights = inputs.weights
    return matmul_ogs(
        inputs.stock_x,
        weights.stock,
        weights.bias,
        inputs.stock_routing,
        scatter_indx=inputs.scatter,
        precision_config=weights.precision,
        gammas=inputs.stock_routing.gate_scal,
    )


def _expected(inputs: Inputs, weight: "torch.Tensor") -> "torch.Tensor":
    from vllm_gptoss.kernels.down import down_ref

    return down_ref(inputs.x, inputs.shares, inputs.ids, weight, inputs.weights.bias)
