"""Shows an experiment while it goes on: on a terminal lines that change, elsewhere a line now and then."""

import time
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.text import Text

from deploy.experiments.progress import Status


class View(Protocol):
    """What the runner shows to."""

    def show(self, status: Status) -> None:
        """Takes up a newer state."""

    def note(self, event: str) -> None:
        """Tells of a run that has begun, ended or failed."""

    def close(self) -> None:
        """Leaves the terminal as it was. May be called twice."""


class LiveView:
    """Events scroll by; below them stands the present state."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False)
        self._live.start()

    def show(self, status: Status) -> None:
        """Draws again."""
        self._live.update(Text("\n".join(status.lines())), refresh=True)

    def note(self, event: str) -> None:
        """Prints it above the state."""
        _print(self._live.console, event)

    def close(self) -> None:
        """Shows the cursor again."""
        self._live.stop()


class LogView:
    """A line for every event, and the state after every interval."""

    def __init__(self, console: Console, *, interval_s: float) -> None:
        self._console = console
        self._interval_s = interval_s
        self._shown_at = time.monotonic()

    def show(self, status: Status) -> None:
        """Prints if the time has come."""
        if time.monotonic() - self._shown_at >= self._interval_s:
            self._shown_at = time.monotonic()
            _print(self._console, "; ".join(line.strip() for line in status.lines()))

    def note(self, event: str) -> None:
        """Prints it at once."""
        _print(self._console, event)

    def close(self) -> None:
        """Nothing is open."""


def open_view(*, log_interval_s: float) -> View:
    """The view that fits where standard output goes."""
    console = Console()
    return LiveView(console) if console.is_terminal else LogView(console, interval_s=log_interval_s)


def _print(console: Console, line: str) -> None:
    console.print(f"{time.strftime('%T')} {line}", highlight=False, markup=False, soft_wrap=True)
