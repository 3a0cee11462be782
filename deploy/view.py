"""Shows a run while it goes on: on a terminal as a screen that changes, elsewhere as log lines."""

import time
from typing import Protocol

from rich.console import Console
from rich.live import Live

from deploy.live_view import render
from deploy.log_view import log_lines
from deploy.snapshot import Snapshot


class View(Protocol):
    """What the launcher shows to."""

    def show(self, snapshot: Snapshot) -> None:
        """Takes up a newer state."""

    def note(self, event: str) -> None:
        """Tells of something that has just happened to a process."""

    def close(self) -> None:
        """Leaves the terminal as it was. May be called twice."""


class LiveView:
    """The screen. The last state stays readable when it closes."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="visible")
        self._live.start()

    def show(self, snapshot: Snapshot) -> None:
        """Draws again."""
        self._live.update(render(snapshot), refresh=True)

    def note(self, event: str) -> None:
        """Nothing to do: events are part of the next snapshot."""

    def close(self) -> None:
        """Shows the cursor again."""
        self._live.stop()


class LogView:
    """A few lines now and then, and one for every event."""

    def __init__(self, console: Console, *, interval_s: float) -> None:
        self._console = console
        self._interval_s = interval_s
        self._shown_at = float("-inf")
        self._phase = ""

    def show(self, snapshot: Snapshot) -> None:
        """Prints if the time has come or the phase is a new one."""
        now = time.monotonic()
        if now - self._shown_at < self._interval_s and snapshot.phase == self._phase:
            return
        self._shown_at, self._phase = now, snapshot.phase
        for line in log_lines(snapshot):
            self._print(line)

    def note(self, event: str) -> None:
        """Prints it at once."""
        self._print(event)

    def close(self) -> None:
        """Nothing is open."""

    def _print(self, line: str) -> None:
        self._console.print(f"{time.strftime('%T')} {line}", highlight=False, markup=False, soft_wrap=True)


def open_view(*, log_interval_s: float) -> View:
    """The view that fits where standard output goes."""
    console = Console()
    return LiveView(console) if console.is_terminal else LogView(console, interval_s=log_interval_s)
