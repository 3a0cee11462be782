"""How long something took, counted in buckets: what a mean hides."""

import threading
from bisect import bisect_left
from dataclasses import dataclass

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds that suit everything from a Redis command to a wait for the rate limiter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HistogramStats:
    """The buckets of one moment."""

    bounds: tuple[float, ...]
    """Upper bounds, inclusive, rising."""
    counts: tuple[int, ...]
    """Per bound, and last those above all of them."""
    total: float
    """Sum of all values."""


class Histogram:
    """Counts values; threads may share it."""

    def __init__(self, bounds: tuple[float, ...] = SECONDS) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0
        self._lock = threading.Lock()

    def observe(self, value: float) -> None:
        """Counts one value."""
        with self._lock:
            self._counts[bisect_left(self._bounds, value)] += 1
            self._total += value

    def stats(self) -> HistogramStats:
        """The buckets now."""
        with self._lock:
            return HistogramStats(bounds=self._bounds, counts=tuple(self._counts), total=self._total)
