"""Rates of counters over the last half minute."""

from collections import deque

WINDOW_S = 30.0


class Rate:
    """How fast a counter grows, from values that are noted now and then."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._points: deque[tuple[float, float]] = deque()

    def note(self, now_s: float, value: float) -> None:
        """Notes the counter's value at a time. A value below the last one begins anew."""
        if self._points and value < self._points[-1][1]:
            self._points.clear()
        self._points.append((now_s, value))
        while self._points[0][0] < now_s - self._window_s and len(self._points) > 2:
            self._points.popleft()

    @property
    def per_s(self) -> float:
        """Growth per second; 0 until two values are known."""
        if len(self._points) < 2:
            return 0.0
        (first_s, first), (last_s, last) = self._points[0], self._points[-1]
        return (last - first) / (last_s - first_s) if last_s > first_s else 0.0
