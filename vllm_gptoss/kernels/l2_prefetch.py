"""Requests for what will be read soon: it comes from memory into the L2 cache, into no register and no shared memory.

A launch that may start while the one before it ends (dependent_launch.py) asks before it waits for what does not fit
its registers yet.

Source: PTX ISA, "cp.async.bulk.prefetch", from compute capability 9.0 on.
"""

import triton
import triton.language as tl

__all__ = ["ask_for_each"]

_ASK = tl.constexpr("""{
    .reg .pred is_asked;
    setp.gt.s32 is_asked, $2, 0;
    @is_asked cp.async.bulk.prefetch.L2.global [$1], $2;
    mov.b32 $0, 0;
}""")


if triton.knobs.runtime.interpret:

    def ask_for_each(pointers, sizes) -> None:
        """There is no cache there."""

else:

    @triton.jit
    def ask_for_each(pointers, sizes):
        """`sizes` bytes at each of `pointers`, multiples of 16; nothing where a size is 0."""
        tl.inline_asm_elementwise(_ASK, "=r,l,r", [pointers, sizes], tl.int32, False, 1)
