"""How numba compiles these loops: without Python's lock, in one thread, and kept for the next process.

What was compiled is kept beside the source, and compiled again when the source changes. It is made for every
processor of a kind (x86-64, arm64), so an image that was built on one machine does not compile on another.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import caching

numba.config.CPU_NAME, numba.config.CPU_FEATURES = "generic", ""
numba.config.CACHE_LOCATOR_CLASSES = f"{__name__}.BesideSource,UserWideCacheLocator"

Function = TypeVar("Function", bound=Callable[..., Any])

_OPTIONS = {"nogil": True, "boundscheck": False, "error_model": "numpy"}


class BesideSource(caching.InTreeCacheLocator):  # type: ignore[misc]
    """`__pycache__`, even if nothing can be written there any more: an image's files are read-only."""

    def ensure_cache_path(self) -> None:
        """OSError if nothing is kept there and nothing can be."""
        path = Path(self.get_cache_path())
        if not any(path.glob("*.nbi")) or os.access(path, os.W_OK):
            super().ensure_cache_path()

    def get_source_stamp(self) -> bytes:
        """Of the whole folder: one file's functions are compiled into those of another."""
        sources = sorted(Path(__file__).parent.glob("*.py"))
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
