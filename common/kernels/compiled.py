"""How numba compiles these loops: without Python's lock, in one thread, and kept for the next process.

What was compiled is kept in $NUMBA_CACHE_DIR, beside the source or in the user's cache folder, whichever is
the first that can be written or has it. It is made for every processor of a kind (x86-64 with AVX2 and
without, arm64), so an image that was built on one machine does not compile on another. The names of the files
tell sources and kind, so what was made of one source is never taken for another's, whoever dies while
writing.
"""

import contextlib
import functools
import hashlib
import inspect
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


KIND = _kind_of_processor()
numba.config.CPU_NAME, numba.config.CPU_FEATURES = KIND, ""

Function = TypeVar("Function", bound=Callable[..., Any])

# A product and a sum may be rounded once in place of twice.
_OPTIONS = {"nogil": True, "boundscheck": False, "error_model": "numpy", "fastmath": {"contract"}}


@functools.cache
def _digest_of_sources(folder: Path) -> str:
    """Of the whole folder and of this one: one file's functions are compiled into those of another."""
    sources = sorted(source for place in {Path(__file__).parent, folder} for source in place.glob("*.py"))
    parts = [numba.__version__.encode(), *(source.read_bytes() for source in sources)]
    return hashlib.sha256(b"".join(parts)).hexdigest()


class _NamedByContent:
    """What a function's locators have in common: how its files are called."""

    def __init__(self, function: Callable[..., Any], file: str) -> None:
        super().__init__(function, file)  # type: ignore[call-arg]
        self._file, self._function = Path(file), function

    def get_source_stamp(self) -> str:
        """Kept in the index, which is not believed if it has another."""
        return _digest_of_sources(self._file.parent)

    def get_disambiguator(self) -> str:
        """In the names of all files."""
        line = self._function.__code__.co_firstlineno
        return f"{line}-{_digest_of_sources(self._file.parent)[:16]}-{KIND}"

    def kept(self) -> list[Path]:
        """The files of the function that are there."""
        name = f"{self._file.stem}.{self._function.__qualname__}-{self.get_disambiguator()}"
        folder: str = self.get_cache_path()  # type: ignore[attr-defined]
        return list(Path(folder).glob(f"{name}.*"))

    def ensure_cache_path(self) -> None:
        """OSError if the function is not kept here and cannot be; an image's files are read-only."""
        if not self.kept():
            super().ensure_cache_path()  # type: ignore[misc]


class Provided(_NamedByContent, caching.UserProvidedCacheLocator):  # type: ignore[misc]
    """In $NUMBA_CACHE_DIR, if there is one."""


class BesideSource(_NamedByContent, caching.InTreeCacheLocator):  # type: ignore[misc]
    """In `__pycache__`."""


class UserWide(_NamedByContent, caching.UserWideCacheLocator):  # type: ignore[misc]
    """In the user's cache folder."""


LOCATORS = (Provided, BesideSource, UserWide)
numba.config.CACHE_LOCATOR_CLASSES = ",".join(f"{__name__}.{each.__name__}" for each in LOCATORS)


def compiled(*signatures: str) -> Callable[[Function], Function]:
    """Compiles for arguments of these types at once, or takes what is kept.

    Where nothing can be kept it is compiled in every process: slow to begin, but no reason to fail. What is
    kept and damaged is removed, so that the next process keeps it anew.
    """

    def decorate(function: Function) -> Function:
        try:
            return cast("Function", numba.njit(list(signatures), cache=True, **_OPTIONS)(function))
        except Exception:  # no place, a full disk, half a file; what is wrong with the function comes again
            _forget(function)
            return cast("Function", numba.njit(list(signatures), **_OPTIONS)(function))

    return decorate


def _forget(function: Callable[..., Any]) -> None:
    file = inspect.getfile(function)
    for locator in filter(None, (each.from_function(function, file) for each in LOCATORS)):
        for path in locator.kept():
            with contextlib.suppress(OSError):
                path.unlink()


def part(function: Function) -> Function:
    """A function that compiled ones call."""
    return cast("Function", numba.njit(**_OPTIONS)(function))
