"""What `GetStats` answers: the window, this replica and its storage, of bounded work per call."""

import time
from collections.abc import Iterable, Mapping

import numpy as np
import psutil

from common import codec
from common.histogram import HistogramStats
from protos import replay_pb2 as pb
from replay.cache import EpisodeCache
from replay.settings import ReplaySettings
from replay.stats import InsertRecorder, SampleRecorder
from replay.storage import RunStatus, Storage
from replay.table import EpisodeRecord

MAX_EXAMINED = 1024
"""Episodes of the window that are looked at."""
BINS = 12


class Reporter:
    """Puts the figures together."""

    def __init__(
        self,
        storage: Storage,
        caches: Mapping[str, EpisodeCache],
        inserts: InsertRecorder,
        samples: SampleRecorder,
        settings: ReplaySettings,
    ) -> None:
        self._storage = storage
        self._caches = caches
        self._inserts = inserts
        self._samples = samples
        self._settings = settings
        self._process = psutil.Process()
        self._began_s = time.monotonic()

    async def report(self, table: str) -> pb.GetStatsResponse:
        """All of it, and of the tables this one. Raises UnknownTableError if it is none."""
        self._storage.table(table)
        status = await self._storage.status()
        return pb.GetStatsResponse(
            table=await self._table(status, table),
            replica=self._replica(),
            storage=await self._storage_stats(),
            counters=codec.counters_to_proto(status.counters),
            total_env_steps=status.total_env_steps,
        )

    async def _table(self, status: RunStatus, name: str) -> pb.TableStats:
        table, rules = self._storage.table(name), self._storage.table(name).rules
        (state,) = (state for state in status.tables if state.name == name)
        found = await table.records(evenly_spread(state.tail, state.inserts, MAX_EXAMINED))
        records = [record for record in found if record is not None]
        stats = pb.TableStats(
            inserts=state.inserts,
            samples=state.samples,
            episodes=state.available,
            max_episodes=rules.window_episodes,
            size_bytes=state.size_bytes,
            max_bytes=rules.window_bytes,
            samples_per_insert=state.samples / state.inserts if state.inserts else 0.0,
            target_samples_per_insert=1.0 if rules.queue else rules.samples_per_insert,
            examined=len(records),
        )
        _examine(stats, records, status, await self._storage.now_s())
        return stats

    def _replica(self) -> pb.ReplicaStats:
        caches = [cache.stats() for cache in self._caches.values()]
        inserts, samples = self._inserts.stats(), self._samples.stats()
        return pb.ReplicaStats(
            uptime_s=time.monotonic() - self._began_s,
            memory_bytes=self._process.memory_info().rss,
            cache_episodes=sum(cache.episodes for cache in caches),
            cache_bytes=sum(cache.size_bytes for cache in caches),
            cache_max_bytes=self._settings.cache_bytes,
            cache_hits=sum(cache.hits for cache in caches),
            cache_misses=sum(cache.misses for cache in caches),
            stored=inserts.stored,
            stored_bytes=inserts.stored_bytes,
            duplicates=inserts.duplicates,
            rejected=inserts.rejected,
            sampled=samples.episodes,
            sampled_bytes=samples.sent_bytes,
            insert_wait_mean_s=_mean(inserts.waits),
            sample_wait_mean_s=_mean(samples.waits),
        )

    async def _storage_stats(self) -> pb.StorageStats:
        stats = await self._storage.stats()
        return pb.StorageStats(
            memory_bytes=stats.memory_bytes,
            memory_limit_bytes=stats.memory_limit_bytes,
            writes_to_disk=stats.writes_to_disk,
            file_bytes=stats.file_bytes,
            latency_mean_s=_mean(stats.latency),
        )


def evenly_spread(tail: int, head: int, at_most: int) -> list[int]:
    """Up to `at_most` indices of [tail, head), all of them if there are no more; the newest is among them."""
    count = min(at_most, head - tail)
    return [head - 1 - place * (head - tail) // count for place in reversed(range(count))]


def distribution(values: Iterable[float]) -> pb.Distribution:
    """The values' range, mean, median, ninth decile and histogram."""
    array = np.fromiter(values, dtype=np.float64)
    if not array.size:
        return pb.Distribution()
    counts, edges = np.histogram(array, bins=BINS)
    middle, high = np.quantile(array, (0.5, 0.9))
    return pb.Distribution(
        min=array.min(),
        mean=array.mean(),
        p50=middle,
        p90=high,
        max=array.max(),
        edges=edges.tolist(),
        counts=counts.tolist(),
    )


def _examine(table: pb.TableStats, records: list[EpisodeRecord], status: RunStatus, now_s: float) -> None:
    newest = status.counters
    of = {
        "age_s": (max(0.0, now_s - record.stored_at_s) for record in records),
        "age_env_steps": (max(0, newest.env_steps - record.env_steps) for record in records),
        "staleness_versions": (max(0, newest.weights_version - r.meta.weights_version) for r in records),
        "length": (record.meta.length for record in records),
        "episode_return": (record.meta.episode_return for record in records),
    }
    for name, values in of.items():
        getattr(table, name).CopyFrom(distribution(values))
    table.win_rate = sum(record.meta.won for record in records) / max(1, len(records))


def _mean(stats: HistogramStats) -> float:
    return stats.total / max(1, sum(stats.counts))
