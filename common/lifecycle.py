"""How a process ends: the first SIGTERM or SIGINT asks it to drain, the second ends it at once."""

import os
import signal
import threading
from types import FrameType

EXIT_KILLED_TWICE = 130


class StopSignal:
    """An event that the signals set. Loops look at it; waits use it in place of sleep."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def install(self) -> None:
        """Takes over SIGTERM and SIGINT; call it from the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def set(self) -> None:
        """Asks the process to drain."""
        self._event.set()

    def is_set(self) -> bool:
        """Whether the process was asked to drain."""
        return self._event.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Waits at most `timeout_s`; true as soon as the process is asked to drain."""
        return self._event.wait(timeout_s)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._event.is_set():
            os._exit(EXIT_KILLED_TWICE)
        self._event.set()
