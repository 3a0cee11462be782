"""How long training waits for batches, and for whom: the rate limiter or the data's way."""

import time
from collections.abc import Callable


class DataWaits:
    """Adds up the time in which training waits, apart by whether the rate limiter holds the stream back.

    Its owner keeps threads apart.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._waiting = self._held = False
        self._limiter_s = self._path_s = 0.0

    def waiting(self, now: bool) -> None:
        """Training has begun or ended a wait."""
        self._advance()
        self._waiting = now

    def held(self, now: bool) -> None:
        """The limiter has begun to hold the stream back, or has let go."""
        self._advance()
        self._held = now

    def stats(self) -> tuple[float, float]:
        """Seconds waited while the limiter held, and while it did not; a wait that goes on is counted."""
        self._advance()
        return self._limiter_s, self._path_s

    def _advance(self) -> None:
        now = self._clock()
        if self._waiting and self._held:
            self._limiter_s += now - self._since
        elif self._waiting:
            self._path_s += now - self._since
        self._since = now
