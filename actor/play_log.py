"""One log line every few seconds about what an actor plays."""

import logging
import time

from common.types import Counters, Episode

log = logging.getLogger(__name__)

INTERVAL_S = 10.0


class PlayLog:
    """Collects finished episodes and writes a line about those since the last one."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._episodes: list[tuple[int, float, bool]] = []

    def add(self, episode: Episode) -> None:
        """Counts a finished episode."""
        meta = episode.meta
        self._episodes.append((meta.length, meta.episode_return, meta.won))

    def write_if_due(self, counters: Counters, *, version: int, epsilon: float, held: int) -> None:
        """`version`: of the weights that play now; `held`: episodes that are not acknowledged yet."""
        elapsed_s = time.monotonic() - self._since
        if elapsed_s < INTERVAL_S:
            return
        lengths, returns, wins = zip(*self._episodes, strict=True) if self._episodes else ((), (), ())
        count = max(len(lengths), 1)
        log.info(
            "run at %d env steps; here %.0f env steps/s, %.1f episodes/s, return %.2f, won %.0f %%, "
            "weights %d (%d behind), epsilon %.2f, %d episodes unacknowledged",
            counters.env_steps,
            sum(lengths) / elapsed_s,
            len(lengths) / elapsed_s,
            sum(returns) / count,
            100 * sum(wins) / count,
            version,
            max(counters.weights_version - version, 0),
            epsilon,
            held,
        )
        self._since, self._episodes = time.monotonic(), []
