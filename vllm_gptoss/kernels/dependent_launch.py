"""Programmatic dependent launch: a kernel may start while the one before it ends, and waits where it needs its results.

    if dependent:
        wait_for_predecessor()      # from here on, what earlier launches wrote is there
        let_successor_start()       # it may take the places that this launch leaves free

A launch passes `dependent=launches_dependently(x.device)` to its kernel and `launch_pdl` with the same value to
Triton. Three rules keep it exact:

- every program of every kernel so launched waits, also one that has nothing to do: a launch has ended once its programs
  have, and so it ends after the one before it;
- before it has waited a program reads nothing but weights and writes nothing at all: the memory that it writes may
  still be read by the launch before;
- it lets its successor start only after it has waited itself: then, if its predecessor is such a launch too, the launch
  before that one has ended, and its results may be read past L1 without waiting.

GPUs from compute capability 9.0 on. Source: CUDA programming guide, "Programmatic Dependent Launch".
"""

import torch
import triton

if triton.knobs.runtime.interpret:

    def wait_for_predecessor() -> None:
        """Interpreted launches run one after the other."""

    def let_successor_start() -> None:
        """Interpreted launches run one after the other."""

else:
    from triton.language.extra.cuda import gdc_launch_dependents as let_successor_start
    from triton.language.extra.cuda import gdc_wait as wait_for_predecessor

__all__ = ["launches_dependently", "let_successor_start", "wait_for_predecessor"]

FIRST_CAPABILITY = 90


def launches_dependently(device: torch.device) -> bool:
    """Whether the GPU that a launch on `device` goes to knows dependent launches."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return 10 * major + minor >= FIRST_CAPABILITY
    # Compilation for a GPU that is not here takes tensors without memory.
    return device.type == "meta" and triton.runtime.driver.active.get_current_target().arch >= FIRST_CAPABILITY
