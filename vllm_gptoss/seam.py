"""How a method of vLLM is replaced: once, by one seam, and so that the one of vLLM can be had back."""

import functools
import inspect
from collections.abc import Callable
from types import ModuleType

STOCK = "stock_method_of_vllm"
SEAM = "seam_of_vllm_gptoss"


def wrap(owner: type | ModuleType, name: str, wrapper_of: Callable[[Callable], Callable]) -> None:
    """Put `wrapper_of(stock)` in the place of a method, once; `stock_of` gives the one of vLLM back.

    Raises: RuntimeError where another `wrapper_of` has the place.
    """
    seam = f"{wrapper_of.__module__}.{wrapper_of.__qualname__}"
    stock = getattr(owner, name)
    if hasattr(stock, STOCK):
        if (first := getattr(stock, SEAM)) != seam:
            raise RuntimeError(f"{owner.__name__}.{name} is {first} already and can't be {seam} too: make them one")
        return
    wrapper = functools.wraps(getattr(stock, "__func__", stock))(wrapper_of(stock))
    setattr(wrapper, STOCK, stock)
    setattr(wrapper, SEAM, seam)
    setattr(owner, name, classmethod(wrapper) if inspect.ismethod(stock) else wrapper)


def stock_of(owner: type | ModuleType, name: str) -> Callable:
    """The method or function of vLLM that a seam has replaced."""
    return getattr(getattr(owner, name), STOCK)
