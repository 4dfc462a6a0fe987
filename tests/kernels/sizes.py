"""Cases of kernel tests: small ones for every machine, and those of the models, too large for the interpreter."""

from collections.abc import Mapping

import pytest
import torch

ON_A_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="too large for the interpreter")


def cases(small: Mapping[str, object], large: Mapping[str, object]) -> list:
    """By name, as `pytest.mark.parametrize` takes them."""
    everywhere = [pytest.param(case, id=name) for name, case in small.items()]
    return everywhere + [pytest.param(case, id=name, marks=ON_A_GPU) for name, case in large.items()]
