"""What stands in the compiled part of the model on a GPU must trace whole: no graph break, any number of tokens."""

import pytest
import torch

from vllm_gptoss import ops


def rope(x):
    cos, sin = ops.rope_cos_sin(torch.arange(len(x)), torch.linspace(1, 0.01, 32), 1.3)
    return ops.rope(x.view(-1, 4, 64), cos, sin).flatten(1)


def rmsnorm(x):
    return ops.rmsnorm(x, torch.ones(256), 1e-5, x)[0]


@pytest.mark.parametrize("function", [rope, rmsnorm], ids=lambda function: function.__name__)
def test_it_traces_whole(function):
    compiled = torch.compile(function, backend="eager", fullgraph=True, dynamic=True)
    for tokens in (3, 5):
        x = torch.randn(tokens, 256)
        torch.testing.assert_close(compiled(x), function(x))
