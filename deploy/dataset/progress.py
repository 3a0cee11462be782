"""How far an export or import is: a bar on a terminal, a line now and then elsewhere. On standard error."""

import contextlib
import time
from collections.abc import Iterator
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LOG_INTERVAL_S = 10.0


class Tell(Protocol):
    """Takes up how many episodes are done, of how many."""

    def __call__(self, done: int, total: int) -> None:
        """Shows it if the time has come."""


@contextlib.contextmanager
def progress(what: str) -> Iterator[Tell]:
    """Shows the progress of what is done inside."""
    console = Console(stderr=True)
    if console.is_terminal:
        with _bar(what, console) as tell:
            yield tell
    else:
        yield _lines(what, console)


@contextlib.contextmanager
def _bar(what: str, console: Console) -> Iterator[Tell]:
    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("episodes"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        task = bars.add_task(what)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def _lines(what: str, console: Console) -> Tell:
    shown_s = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal shown_s
        if time.monotonic() - shown_s >= LOG_INTERVAL_S:
            shown_s = time.monotonic()
            console.print(f"{what}: {done} of {total} episodes", highlight=False, soft_wrap=True)

    return tell
