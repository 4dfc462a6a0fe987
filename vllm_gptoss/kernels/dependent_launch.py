"""Programmatic dependent launch: a kernel may start while the one before it ends, and waits where it needs its results.

    if dependent:
        wait_for_predecessor()      # from here on, what earlier launches wrote is there
        let_successor_start()       # it may take the places that this launch leaves free

A launch passes `dependent=launches_dependently(x.device)` to its kernel and `launch_pdl` with the same value to
Triton. Three rules keep it exact:

- every program of every kernel so launched waits, also one that has nothing to do: a launch has ended once its programs
  have, and so it ends after the one before it;
- before it has waited a program reads nothing but weights, and what was written before the launch that precedes it,
  and writes nothing at all: the memory that it writes may still be read by the launch before;
- it lets its successor start after it has waited itself: by then all launches before the one before it have ended, and
  the successor may read their results past L1. A kernel whose successors read nothing but weights before they wait
  (`rmsnorm`, `router`) lets them start at once: they ask for these weights while others still compute.

GPUs from compute capability 9.0 on. Source: CUDA programming guide, "Programmatic Dependent Launch".
"""

import torch
import triton

from vllm_gptoss.kernels.capability import HOPPER, capability

if triton.knobs.runtime.interpret:

    def wait_for_predecessor() -> None:
        """Interpreted launches run one after the other."""

    def let_successor_start() -> None:
        """Interpreted launches run one after the other."""

else:
    from triton.language.extra.cuda import gdc_launch_dependents as let_successor_start
    from triton.language.extra.cuda import gdc_wait as wait_for_predecessor

__all__ = ["launches_dependently", "let_successor_start", "wait_for_predecessor"]


def launches_dependently(device: torch.device) -> bool:
    """Whether the GPU that a launch on `device` goes to knows dependent launches."""
    return capability(device) >= HOPPER
