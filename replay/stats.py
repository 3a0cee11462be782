"""Figures of this replica since its start. They are for people; nothing depends on them."""

import time
from collections import OrderedDict, deque
from dataclasses import dataclass

from common.types import EpisodeMeta

RECENT_EPISODES = 256
MAX_ACTORS = 1024
"""Actors that are remembered; the longest silent is forgotten first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ActorStats:
    """One actor."""

    actor: str
    episodes: int
    last_insert_age_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class InsertStats:
    """All inserts; the means are over recent ones, 0 before the first."""

    duplicates: int
    rejected: int
    weights_lag: float
    train_return: float
    train_win_rate: float
    actors: tuple[ActorStats, ...]


@dataclass(slots=True)
class _Actor:
    episodes: int = 0
    last_insert_s: float = 0.0


class InsertRecorder:
    """Sees every episode that is offered."""

    def __init__(self) -> None:
        self._duplicates, self._rejected = 0, 0
        self._recent: deque[tuple[int, float, bool]] = deque(maxlen=RECENT_EPISODES)
        self._actors: OrderedDict[str, _Actor] = OrderedDict()

    def stored(self, meta: EpisodeMeta, newest_version: int) -> None:
        """An episode was stored while weights `newest_version` were the newest."""
        lag = max(0, newest_version - meta.weights_version)
        self._recent.append((lag, meta.episode_return, meta.won))
        actor = self._actors.setdefault(meta.actor, _Actor())
        actor.episodes += 1
        actor.last_insert_s = time.monotonic()
        self._actors.move_to_end(meta.actor)
        if len(self._actors) > MAX_ACTORS:
            self._actors.popitem(last=False)

    def duplicate(self) -> None:
        """An episode was there already."""
        self._duplicates += 1

    def rejected(self) -> None:
        """An episode was INVALID."""
        self._rejected += 1

    def stats(self) -> InsertStats:
        """The figures now."""
        now, count = time.monotonic(), max(1, len(self._recent))
        lags, returns, wins = zip(*self._recent, strict=True) if self._recent else ((), (), ())
        return InsertStats(
            duplicates=self._duplicates,
            rejected=self._rejected,
            weights_lag=sum(lags) / count,
            train_return=sum(returns) / count,
            train_win_rate=sum(wins) / count,
            actors=tuple(
                ActorStats(actor=name, episodes=actor.episodes, last_insert_age_s=now - actor.last_insert_s)
                for name, actor in sorted(self._actors.items())
            ),
        )
