"""What one interpreter of the python tool may use."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bytes are bytes, seconds are seconds; all hold for one interpreter, most from its start to its end.

    The kernel enforces `cpu_seconds`, `memory_bytes`, `file_bytes` and `open_files` exactly. `disk_bytes`, `files` and
    `threads` are looked at `interpreter.WATCH_SECONDS` apart: a burst in between goes beyond them before it is stopped.
    """

    wall_seconds: float = 120.0
    """A call; harmony's description of the tool promises the model this number."""
    cpu_seconds: int = 300
    """All calls together, on one core."""
    memory_bytes: int = 2 << 30
    """Address space: what is reserved counts too, as do libraries (numpy takes 0.3 GB)."""
    file_bytes: int = 64 << 20
    """Any one file; also what a file can be grown to without filling it."""
    disk_bytes: int = 256 << 20
    files: int = 1024
    """Files and folders."""
    open_files: int = 128
    threads: int = 64
    output_bytes: int = 20_000
    """Shown to the model, of what a call prints: half from its beginning, half from its end."""
    flood_bytes: int = 16 << 20
    """Printed by a call; more ends the interpreter."""
