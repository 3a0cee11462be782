"""How a process ends: the first SIGTERM or SIGINT asks it to drain, the second ends it at once."""

import os
import queue
import signal
import threading
from collections.abc import Callable
from types import FrameType

EXIT_KILLED_TWICE = 130


class StopSignal:
    """An event that the signals set. Loops look at it; waits use it in place of sleep."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._signalled = False

    def install(self) -> None:
        """Takes over SIGTERM and SIGINT; call it from the main thread."""
        threading.Thread(target=self._on_first_signal, name="stop-signal", daemon=True).start()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def set(self) -> None:
        """Asks the process to drain."""
        self._event.set()
        with self._lock:
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def is_set(self) -> bool:
        """Whether the process was asked to drain."""
        return self._event.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Waits at most `timeout_s`; true as soon as the process is asked to drain."""
        return self._event.wait(timeout_s)

    def call_when_set(self, callback: Callable[[], None]) -> None:
        """Has `callback` wake whatever waits for something else; called at once if already set.

        It runs in another thread than the main one, and must not block.
        """
        with self._lock:
            if not self._event.is_set():
                self._callbacks.append(callback)
                return
        callback()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._signalled or self._event.is_set():
            os._exit(EXIT_KILLED_TWICE)
        self._signalled = True
        # Setting an event takes a lock that the interrupted main thread may hold; this put takes none.
        self._signals.put(number)

    def _on_first_signal(self) -> None:
        self._signals.get()
        self.set()
