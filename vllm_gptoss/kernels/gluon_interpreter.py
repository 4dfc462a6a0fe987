"""What the kernels use of Gluon, said in Triton's language for its interpreter.

Programs run one after another, a layout means nothing, and shared memory is a variable. A copy arrives when it is
waited for and no sooner, as it may on a GPU.
"""

from collections.abc import Callable
from typing import ClassVar

import triton
import triton.language as tl


def __getattr__(name: str):
    """Loads, stores and arithmetic are the same; looked up late, since the interpreter puts its own in their place."""
    return getattr(tl, name)


jit = triton.jit


def constexpr_function(function: Callable) -> Callable:
    return lambda *arguments: function(*(getattr(value, "value", value) for value in arguments))


def _no_layout(*_) -> None:
    return None


BlockedLayout = DistributedLinearLayout = DotOperandLayout = NVMMADistributedLayout = _no_layout
SliceLayout = SwizzledSharedLayout = NVMMASharedLayout = _no_layout


def arange(start, end, layout=None):
    return tl.arange(start, end)


def zeros(shape, dtype, layout=None):
    return tl.zeros(shape, dtype)


def convert_layout(value, layout=None, assert_trivial=False):
    return value


def barrier() -> None:
    pass


def fence_async_shared() -> None:
    pass


class allocate_shared_memory:  # noqa: N801  a function in Gluon
    """A ring of tensors."""

    def __init__(self, element_ty, shape, layout=None) -> None:
        slots, *self.shape = (int(getattr(size, "value", size)) for size in shape)
        self.slots = [None] * slots

    def index(self, slot) -> "_Slot":
        return _Slot(self.slots, int(slot), self.shape)


class _Slot:
    def __init__(self, slots: list, slot: int, shape: list[int], order=None) -> None:
        self.slots, self.slot, self.shape, self.order = slots, slot, shape, order

    def permute(self, order) -> "_Slot":
        return _Slot(self.slots, self.slot, self.shape, order)

    def reshape(self, shape) -> "_Slot":
        """What is stored takes the shape of the slot, however it comes."""
        return self

    def load(self, layout=None):
        value = self.slots[self.slot]
        return value if self.order is None else tl.permute(value, self.order)

    def store(self, value) -> None:
        self.slots[self.slot] = tl.reshape(value, self.shape)


class async_copy:  # noqa: N801  a module in Gluon
    """Copies on their way, in the groups that they are waited for in."""

    _started: ClassVar[list[tuple[_Slot, object]]] = []
    _groups: ClassVar[list[list[tuple[_Slot, object]]]] = []

    @staticmethod
    def async_copy_global_to_shared(smem: _Slot, pointer, mask=None) -> None:
        value = tl.load(pointer) if mask is None else tl.load(pointer, mask=mask, other=0)
        async_copy._started.append((smem, value))

    @staticmethod
    def commit_group() -> None:
        async_copy._groups.append(async_copy._started)
        async_copy._started = []

    @staticmethod
    def wait_group(outstanding) -> None:
        outstanding = int(getattr(outstanding, "value", outstanding))
        assert outstanding >= 0, f"nothing waits until {outstanding} groups are on their way"
        while len(async_copy._groups) > outstanding:
            for smem, value in async_copy._groups.pop(0):
                smem.store(value)


def mma_v2(a, b, acc):
    # NumPy has no bfloat16: its products are exact in fp32.
    return tl.dot(_wide(a), _wide(b), acc)


def _wide(x):
    """fp32 of bf16 `x`: the interpreter's own conversion loses the least numbers."""
    return (x.to(tl.int16, bitcast=True).to(tl.int32) << 16).to(tl.float32, bitcast=True)


def warpgroup_mma(a, b: _Slot, acc):
    return mma_v2(a.load() if isinstance(a, _Slot) else a, b.load(), acc)
