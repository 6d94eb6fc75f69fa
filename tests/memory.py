"""A process's peak memory. `ru_maxrss` won't do: a child inherits what its parent had when it was started."""

from pathlib import Path


def peak_mb() -> float:
    """The most memory that this process has held, in MB. Linux only."""
    status = Path("/proc/self/status").read_text("utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
