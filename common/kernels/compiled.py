"""How numba compiles these loops: without Python's lock, in one thread, and kept for the next process.

What was compiled is kept beside the source, and compiled again when the source changes. It is made for every
processor of a kind (x86-64 with AVX2 and without, arm64), so an image that was built on one machine does not
compile on another.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import llvmlite.binding
import numba
from numba.core import caching

_V3 = {"avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"}
"""What makes an x86-64 processor one of level 3: all servers' of the last ten years."""


def _kind_of_processor() -> str:
    features = llvmlite.binding.get_host_cpu_features()
    return "x86-64-v3" if all(features.get(name) for name in _V3) else "generic"


numba.config.CPU_NAME, numba.config.CPU_FEATURES = _kind_of_processor(), ""
numba.config.CACHE_LOCATOR_CLASSES = f"{__name__}.BesideSource,UserWideCacheLocator"

Function = TypeVar("Function", bound=Callable[..., Any])

# A product and a sum may be rounded once in place of twice.
_OPTIONS = {"nogil": True, "boundscheck": False, "error_model": "numpy", "fastmath": {"contract"}}


class BesideSource(caching.InTreeCacheLocator):  # type: ignore[misc]
    """`__pycache__`, even if nothing can be written there any more: an image's files are read-only."""

    def ensure_cache_path(self) -> None:
        """OSError if nothing is kept there and nothing can be."""
        path = Path(self.get_cache_path())
        if not any(path.glob("*.nbi")) or os.access(path, os.W_OK):
            super().ensure_cache_path()

    def get_source_stamp(self) -> bytes:
        """Of the whole folder and of this one: one file's functions are compiled into those of another."""
        folders = {Path(__file__).parent, Path(self._py_file).parent}
        sources = sorted(source for folder in folders for source in folder.glob("*.py"))
        return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).digest()


def compiled(*signatures: str) -> Callable[[Function], Function]:
    """Compiles for arguments of these types at once, or takes what is kept.

    Where nothing can be kept it is compiled in every process: slow to begin, but no reason to fail.
    """

    def decorate(function: Function) -> Function:
        try:
            return cast("Function", numba.njit(list(signatures), cache=True, **_OPTIONS)(function))
        except (OSError, RuntimeError):  # a full disk; no place that can be written
            return cast("Function", numba.njit(list(signatures), **_OPTIONS)(function))

    return decorate


def part(function: Function) -> Function:
    """A function that compiled ones call."""
    return cast("Function", numba.njit(**_OPTIONS)(function))
