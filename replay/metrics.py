"""What Prometheus sees of a replica of the replay service and, through it, of the whole run.

Metrics that begin with vdfd_run_ or vdfd_table_ are read from the storage: every replica gives the same. The
others are of this replica since its start.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from common.metrics import Figure, counter, gauge, histogram
from common.types import Evaluation
from replay.cache import CacheStats, EpisodeCache
from replay.errors import UnavailableError
from replay.stats import InsertRecorder, InsertStats, SampleRecorder, SampleStats
from replay.storage import RunStatus, Storage, StorageStats

STORAGE_TIMEOUT_S = 3.0
"""How long one answer to Prometheus waits for the storage."""

RUN_ENV_STEPS = counter("vdfd_run_env_steps_total", "Environment steps of all stored episodes.")
RUN_TARGET = gauge("vdfd_run_env_steps_target", "Environment steps after which the run is complete.")
RUN_COMPLETE = gauge("vdfd_run_complete", "1 once the run has all its environment steps.")
RUN_EPISODES = counter("vdfd_run_episodes_total", "Stored episodes (inserts).")
RUN_SAMPLES = gauge("vdfd_run_samples", "Episodes handed out in batches; a restarted learner sets it back.")
RUN_RATIO = gauge("vdfd_run_samples_per_insert", "Samples per insert over the whole run.")
RUN_VERSION = gauge("vdfd_run_weights_version", "Learner step of the newest published weights.")
RUN_WINDOW = gauge("vdfd_run_window_episodes", "Episodes in the window from which batches are drawn.")
RUN_WINDOW_BYTES = gauge("vdfd_run_window_bytes", "The same in bytes.")
RUN_EVICTIONS = counter("vdfd_run_evictions_total", "Episodes that have left the window.")
RUN_PENDING = gauge("vdfd_run_evaluations_pending", "Evaluations that are due and not reported.")

TABLE_INSERTS = counter("vdfd_table_inserts_total", "Episodes stored in the table.", "table")
TABLE_SAMPLES = gauge(
    "vdfd_table_samples",
    "Episodes of the table handed out in batches; a restarted learner sets it back.",
    "table",
)
TABLE_AVAILABLE = gauge(
    "vdfd_table_available_episodes",
    "Episodes of the table that can be drawn now; of a queue, that wait.",
    "table",
)
TABLE_BYTES = gauge("vdfd_table_bytes", "Bytes of all episodes that the table holds.", "table")
TABLE_DROPPED = counter(
    "vdfd_table_dropped_total", "Episodes of a queue whose weights were too old; never handed out.", "table"
)

EVALUATIONS = counter("vdfd_evaluation_points_total", "Evaluations reported.")
EVALUATION_ENV_STEPS = gauge("vdfd_evaluation_env_steps", "Point on the curve of the newest evaluation.")
EVALUATION_WIN_RATE = gauge("vdfd_evaluation_win_rate_ratio", "Test Win Rate of the newest evaluation.")
EVALUATION_BEST = gauge("vdfd_evaluation_best_win_rate_ratio", "Highest Test Win Rate of the run so far.")
EVALUATION_RETURN = gauge("vdfd_evaluation_return", "Mean return of the newest evaluation.")
EVALUATION_LENGTH = gauge("vdfd_evaluation_length_steps", "Mean episode length of the newest evaluation.")

INSERTS = counter("vdfd_replay_inserts_total", "Episodes stored.")
INSERTED_BYTES = counter("vdfd_replay_inserted_bytes_total", "Bytes of the episodes stored.")
DUPLICATES = counter("vdfd_replay_duplicates_total", "Episodes that were stored already; not stored again.")
REJECTED = counter("vdfd_replay_rejected_total", "Episodes that were invalid.")
INSERT_WAIT = histogram(
    "vdfd_replay_insert_wait_seconds", "From a group's offer to its being stored; mostly the rate limiter."
)
BATCHES = counter("vdfd_replay_batches_total", "Batches handed out.")
SAMPLES = counter("vdfd_replay_samples_total", "Episodes handed out in batches.")
SAMPLED_BYTES = counter("vdfd_replay_sampled_bytes_total", "Bytes of the episodes handed out.")
SAMPLE_WAIT = histogram("vdfd_replay_sample_wait_seconds", "How long a learner that may have a batch waited.")
STALENESS = gauge(
    "vdfd_replay_staleness_versions", "Newest weights version less the one that played, recent inserts' mean."
)
TRAIN_RETURN = gauge("vdfd_replay_train_return", "Mean return of recent inserts, exploration included.")
TRAIN_WIN_RATE = gauge("vdfd_replay_train_win_rate_ratio", "Share of recent inserts that were won.")
ACTORS = gauge("vdfd_replay_active_actors", "Actors that stored an episode within the last minute.")
CACHE_HITS = counter("vdfd_replay_cache_hits_total", "Sampled episodes found in the service's memory.")
CACHE_MISSES = counter("vdfd_replay_cache_misses_total", "Sampled episodes that had to be read from Redis.")
CACHE_EPISODES = gauge("vdfd_replay_cache_episodes", "Episodes in the service's memory.")
CACHE_BYTES = gauge("vdfd_replay_cache_bytes", "The same in bytes.")

REACHABLE = gauge("vdfd_replay_storage_reachable", "1 while Redis answers.")
REDIS_LATENCY = histogram("vdfd_replay_redis_latency_seconds", "Round trip to Redis.")
REDIS_MEMORY = gauge("vdfd_replay_redis_memory_bytes", "Memory that Redis uses.")
REDIS_LIMIT = gauge("vdfd_replay_redis_memory_limit_bytes", "Redis's maxmemory; 0: none.")
REDIS_WRITES = gauge("vdfd_replay_redis_writes_to_disk", "1 while the append-only file is on and written.")

ACTIVE_WITHIN_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class RunView:
    """What the storage says, all of one moment."""

    status: RunStatus
    evaluations: list[Evaluation]
    storage: StorageStats


class ReplayMetrics:
    """Collects from another thread than the service's event loop, to which the storage belongs."""

    def __init__(
        self,
        storage: Storage,
        caches: Mapping[str, EpisodeCache],
        inserts: InsertRecorder,
        samples: SampleRecorder,
    ) -> None:
        """Call it inside the service's event loop."""
        self._loop = asyncio.get_running_loop()
        self._storage = storage
        self._caches = caches
        self._inserts = inserts
        self._samples = samples

    def collect(self) -> Iterator[Figure]:
        """Everything; without the run's part while the storage cannot be reached."""
        asked = asyncio.run_coroutine_threadsafe(self._look(), self._loop)
        inserts, samples, caches, run = asked.result(STORAGE_TIMEOUT_S + 1.0)
        yield from _insert_figures(inserts)
        yield from _sample_figures(samples)
        yield from _cache_figures(caches)
        yield REACHABLE(run is not None)
        if run is not None:
            yield from _run_figures(run.status)
            yield from _evaluation_figures(run.evaluations)
            yield from _storage_figures(run.storage)

    async def _look(self) -> tuple[InsertStats, SampleStats, list[CacheStats], RunView | None]:
        run = None
        try:
            async with asyncio.timeout(STORAGE_TIMEOUT_S):
                run = await self._look_at_storage()
        except (UnavailableError, TimeoutError):
            pass  # the metric `reachable` says so
        caches = [cache.stats() for cache in self._caches.values()]
        return self._inserts.stats(), self._samples.stats(), caches, run

    async def _look_at_storage(self) -> RunView:
        return RunView(
            status=await self._storage.status(),
            evaluations=await self._storage.evaluations(),
            storage=await self._storage.stats(),
        )


def _run_figures(status: RunStatus) -> Iterator[Figure]:
    counters = status.counters
    yield RUN_ENV_STEPS(counters.env_steps)
    yield RUN_TARGET(status.total_env_steps)
    yield RUN_COMPLETE(counters.run_complete)
    yield RUN_EPISODES(counters.episodes)
    yield RUN_SAMPLES(counters.samples)
    yield RUN_RATIO(counters.samples / counters.episodes if counters.episodes else 0.0)
    yield RUN_VERSION(counters.weights_version)
    yield RUN_WINDOW(sum(table.available for table in status.tables))
    yield RUN_WINDOW_BYTES(sum(table.size_bytes for table in status.tables))
    yield RUN_EVICTIONS(sum(table.tail for table in status.tables))
    yield RUN_PENDING(status.evaluations_pending)
    for table in status.tables:
        yield TABLE_INSERTS(table.inserts, table.name)
        yield TABLE_SAMPLES(table.samples, table.name)
        yield TABLE_AVAILABLE(table.available, table.name)
        yield TABLE_BYTES(table.size_bytes, table.name)
        yield TABLE_DROPPED(table.dropped, table.name)


def _evaluation_figures(evaluations: list[Evaluation]) -> Iterator[Figure]:
    yield EVALUATIONS(len(evaluations))
    if evaluations:
        newest = evaluations[-1]
        yield EVALUATION_ENV_STEPS(newest.env_steps)
        yield EVALUATION_WIN_RATE(newest.win_rate)
        yield EVALUATION_BEST(max(evaluation.win_rate for evaluation in evaluations))
        yield EVALUATION_RETURN(newest.mean_return)
        yield EVALUATION_LENGTH(newest.mean_length)


def _insert_figures(inserts: InsertStats) -> Iterator[Figure]:
    yield INSERTS(inserts.stored)
    yield INSERTED_BYTES(inserts.stored_bytes)
    yield DUPLICATES(inserts.duplicates)
    yield REJECTED(inserts.rejected)
    yield INSERT_WAIT(inserts.waits)
    yield STALENESS(inserts.weights_lag)
    yield TRAIN_RETURN(inserts.train_return)
    yield TRAIN_WIN_RATE(inserts.train_win_rate)
    yield ACTORS(sum(actor.last_insert_age_s <= ACTIVE_WITHIN_S for actor in inserts.actors))


def _sample_figures(samples: SampleStats) -> Iterator[Figure]:
    yield BATCHES(samples.batches)
    yield SAMPLES(samples.episodes)
    yield SAMPLED_BYTES(samples.sent_bytes)
    yield SAMPLE_WAIT(samples.waits)


def _cache_figures(caches: Sequence[CacheStats]) -> Iterator[Figure]:
    yield CACHE_HITS(sum(cache.hits for cache in caches))
    yield CACHE_MISSES(sum(cache.misses for cache in caches))
    yield CACHE_EPISODES(sum(cache.episodes for cache in caches))
    yield CACHE_BYTES(sum(cache.size_bytes for cache in caches))


def _storage_figures(storage: StorageStats) -> Iterator[Figure]:
    yield REDIS_LATENCY(storage.latency)
    yield REDIS_MEMORY(storage.memory_bytes)
    yield REDIS_LIMIT(storage.memory_limit_bytes)
    yield REDIS_WRITES(storage.writes_to_disk)
