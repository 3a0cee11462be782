"""Where the training loop's time goes, by part."""

import contextlib
import time
from collections.abc import Iterator


class PartTimes:
    """Adds up seconds by the name of a part."""

    def __init__(self, *names: str) -> None:
        self._seconds = dict.fromkeys(names, 0.0)

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Counts the time inside as that of this part."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] += time.perf_counter() - began

    def stats(self) -> dict[str, float]:
        """Seconds by part so far; may be called from any thread."""
        return dict(self._seconds)
