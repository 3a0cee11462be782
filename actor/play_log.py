"""What an actor's episodes came to: totals, and one log line every few seconds."""

import logging
import time
from collections import deque
from dataclasses import dataclass

from common.types import Counters, Episode

log = logging.getLogger(__name__)

INTERVAL_S = 10.0
RECENT_EPISODES = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class PlayStats:
    """Finished episodes since the log was begun."""

    episodes: int
    wins: int
    recent_return: float
    """Mean of the last ones; 0 before the first."""
    epsilon: float
    version: int
    """Of the weights that play."""


class PlayLog:
    """Collects finished episodes and writes a line about those since the last one."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._episodes: list[tuple[int, float, bool]] = []
        self._total = self._wins = self._version = 0
        self._returns: deque[float] = deque(maxlen=RECENT_EPISODES)
        self._epsilon = 0.0

    def add(self, episode: Episode) -> None:
        """Counts a finished episode."""
        meta = episode.meta
        self._episodes.append((meta.length, meta.episode_return, meta.won))
        self._total += 1
        self._wins += meta.won
        self._returns.append(meta.episode_return)

    def stats(self) -> PlayStats:
        """Totals, from any thread."""
        returns = tuple(self._returns)
        return PlayStats(
            episodes=self._total,
            wins=self._wins,
            recent_return=sum(returns) / max(len(returns), 1),
            epsilon=self._epsilon,
            version=self._version,
        )

    def write_if_due(self, counters: Counters, *, version: int, epsilon: float, held: int) -> None:
        """`version`: of the weights that play now; `held`: episodes that are not acknowledged yet."""
        self._version, self._epsilon = version, epsilon
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
