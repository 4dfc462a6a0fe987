"""The compute capability that a launch compiles for."""

import torch
import triton

HOPPER = 90


def capability(device: torch.device) -> int:
    """10 * major + minor of the GPU that a launch on `device` goes to; 0 where kernels are interpreted."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return 10 * major + minor
    # Compilation for a GPU that is not here takes tensors without memory.
    return triton.runtime.driver.active.get_current_target().arch if device.type == "meta" else 0
