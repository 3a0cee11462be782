"""How much memory a stretch of a process needs at most, beyond what it had before (Linux with glibc)."""

import ctypes
import gc
from pathlib import Path


class PeakMemory:
    """Begins with free memory given back to the kernel and the kernel's own high-water mark reset."""

    def __init__(self) -> None:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        self._before_kb = _status("VmRSS")

    def grown_mb(self) -> float:
        """Peak of the resident memory since then, less what was resident then, in MiB."""
        return (_status("VmHWM") - self._before_kb) / 1024


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0])
    raise KeyError(field)
