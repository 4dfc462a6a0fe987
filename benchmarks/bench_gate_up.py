"""The first product of the experts, and the SwiGLU, beside vLLM's one launch for both."""

import argparse
from typing import TYPE_CHECKING

from benchmarks import expert_products
from benchmarks.expert_products import Inputs
from vllm_gptoss.kernels.tuning import ExpertConfig, pick_gate_up

if TYPE_CHECKING:
    import torch

    from vllm_gptoss.kernels.grouping import Routing


def add_options(parser: argparse.ArgumentParser) -> None:
    expert_products.add_options(parser)


def run(options: argparse.Namespace) -> None:
    product = expert_products.Product("gate_up", 0, (1,), pick_gate_up, _ours, _stock, _expected)
    expert_products.run(options, product)


def _ours(inputs: Inputs, routing: "Routing", config: ExpertConfig) -> "torch.Tensor":
    from vllm_gptoss.kernels.gate_up import gate_up

    args, weights = inputs.args, inputs.weights
    blocks, scales, bias = weights[:3]
    return gate_up(inputs.x, routing, blocks, scales, bias, args.swiglu_alpha, args.swiglu_limit, config)


def _stock(inputs: Inputs) -> "torch.Tensor":
    from triton_kernels.matmul_ogs import FnSpecs, FusedActivation, matmul_ogs
    from triton_kernels.swiglu import swiglu_fn

    args, weights = inputs.args, inputs.weights
    swiglu = FnSpecs("swiglu", swiglu_fn, ("alpha", "limit"))
    return matmul_ogs(
        inputs.stock_x,
        weights.stock,
        weights.bias,
        inputs.stock_routing,
        gather_indx=inputs.gather,
        precision_config=weights.precision,
        fused_activation=FusedActivation(swiglu, (args.swiglu_alpha, args.swiglu_limit), reduction_n=2),
    )


def _expected(inputs: Inputs, weight: "torch.Tensor") -> "torch.Tensor":
    from vllm_gptoss.kernels.gate_up import gate_up_ref

    args = inputs.args
    return gate_up_ref(inputs.x, inputs.ids, weight, inputs.weights.bias, args.swiglu_alpha, args.swiglu_limit)
