"""Names for stretches of the hot code: a profile shows them, and nobody else pays for them.

torch's record_function takes tens of microseconds also while nothing is recorded; a label then takes less
than one. It may stand in any thread.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import ParamSpec, TypeVar

from torch.profiler import record_function

P = ParamSpec("P")
R = TypeVar("R")

_NOTHING: AbstractContextManager[object] = nullcontext()
_seen: set[str] | None = None
"""Names used since the recording began; None while there is none."""


def label(name: str) -> AbstractContextManager[object]:
    """Gives what runs inside a name, while a recording is on."""
    if _seen is None:
        return _NOTHING
    _seen.add(name)
    return record_function(name)


def labelled(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """The same for all of a function."""

    def wrap(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            with label(name):
                return function(*args, **kwargs)

        return call

    return wrap


@contextmanager
def recording() -> Iterator[set[str]]:
    """Turns labels on, in all threads. Gives the set in which the names of those that were used collect."""
    global _seen
    assert _seen is None, "one recording at a time"
    _seen = set()
    try:
        yield _seen
    finally:
        _seen = None
