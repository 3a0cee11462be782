"""Figures of this replica since its start. They are for people; nothing depends on them."""

import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from common.histogram import Histogram, HistogramStats
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

    stored: int
    stored_bytes: int
    duplicates: int
    rejected: int
    waits: HistogramStats
    """Seconds per group from its being offered to its being stored, the rate limiter's part included."""
    weights_lag: float
    train_return: float
    train_win_rate: float
    actors: tuple[ActorStats, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleStats:
    """All batches."""

    batches: int
    episodes: int
    sent_bytes: int
    waits: HistogramStats
    """Seconds per batch that a stream with credits waited for it."""


@dataclass(slots=True)
class _Actor:
    episodes: int = 0
    last_insert_s: float = 0.0


class InsertRecorder:
    """Sees every episode that is offered."""

    def __init__(self) -> None:
        self._stored = self._stored_bytes = self._duplicates = self._rejected = 0
        self._waits = Histogram()
        self._recent: deque[tuple[int, float, bool]] = deque(maxlen=RECENT_EPISODES)
        self._actors: OrderedDict[str, _Actor] = OrderedDict()

    def stored(self, meta: EpisodeMeta, newest_version: int, *, size: int) -> None:
        """An episode of `size` bytes was stored while weights `newest_version` were the newest."""
        self._stored += 1
        self._stored_bytes += size
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

    def waited(self, seconds: float) -> None:
        """A group was stored so long after it was offered."""
        self._waits.observe(seconds)

    def stats(self) -> InsertStats:
        """The figures now."""
        now, count = time.monotonic(), max(1, len(self._recent))
        lags, returns, wins = zip(*self._recent, strict=True) if self._recent else ((), (), ())
        return InsertStats(
            stored=self._stored,
            stored_bytes=self._stored_bytes,
            waits=self._waits.stats(),
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


class SampleRecorder:
    """Sees every batch that is handed out."""

    def __init__(self) -> None:
        self._batches = self._episodes = self._bytes = 0
        self._waits = Histogram()

    def sent(self, blobs: Sequence[bytes], *, waited_s: float) -> None:
        """A batch of these episodes went out after a wait."""
        self._batches += 1
        self._episodes += len(blobs)
        self._bytes += sum(map(len, blobs))
        self._waits.observe(waited_s)

    def stats(self) -> SampleStats:
        """The figures now."""
        return SampleStats(
            batches=self._batches,
            episodes=self._episodes,
            sent_bytes=self._bytes,
            waits=self._waits.stats(),
        )
