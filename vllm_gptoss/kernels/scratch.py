"""Memory that launches share for the lifetime of a process, as captured CUDA graphs hold its address."""

import torch


def check_not_capturing(device: torch.device, operation: str) -> None:
    """Memory made while a CUDA graph is captured would be the graph's.

    Raises: RuntimeError, which says what to do.
    """
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(f"{operation} must run once before a CUDA graph captures it")
