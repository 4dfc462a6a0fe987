"""Gluon, Triton's language with explicit layouts, as the kernels import it: compiled, or read by Triton's interpreter.

Triton interprets its own language only. Under TRITON_INTERPRET=1 `gl`, `mma_v2` and `async_copy` are therefore
readings of the same names in Triton's language, in which a layout means nothing: `gluon_interpreter.py`.
"""

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)

if triton.knobs.runtime.interpret:
    from vllm_gptoss.kernels import gluon_interpreter as gl
    from vllm_gptoss.kernels.gluon_interpreter import (
        async_copy,
        barrier,
        constexpr_function,
        fence_async_shared,
        jit,
        mma_v2,
        warpgroup_mma,
    )
else:
    from triton.experimental.gluon import jit
    from triton.experimental.gluon import language as gl
    from triton.experimental.gluon.language.nvidia.ampere import async_copy, mma_v2
    from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, warpgroup_mma
    from triton.runtime.jit import constexpr_function

    # Renamed in Triton 3.7.
    barrier = getattr(gl, "barrier", None) or gl.thread_barrier

__all__ = [
    "INTERPRETED",
    "async_copy",
    "barrier",
    "constexpr_function",
    "fence_async_shared",
    "gl",
    "jit",
    "mma_v2",
    "warpgroup_mma",
]
