"""Everything in the memory of one process: for tests, and the plain statement of what the Redis one does."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from common.histogram import Histogram
from common.types import Counters, EnvSpec, Evaluation, Weights
from replay.changes import Changes, Topic
from replay.errors import RunMismatchError, StateConflictError
from replay.storage import (
    NO_WEIGHTS,
    Claim,
    Commit,
    EpisodeRecord,
    Group,
    NewEpisode,
    Outcome,
    Reservation,
    Rules,
    RunParameters,
    RunStatus,
    StorageStats,
)


@dataclass(slots=True)
class _Point:
    """An evaluation that is due."""

    weights: Weights
    lease_ends_s: float = 0.0


class MemoryStorage:
    """Implements Storage. Atomic because no method gives up control in the middle."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._changes = Changes()
        self._run = RunParameters(total_env_steps=0, batch_size=0, seed=0, samples_per_insert=0)
        self._spec: EnvSpec | None = None
        self._blobs: dict[int, bytes] = {}
        self._records: dict[int, EpisodeRecord] = {}
        self._last_seq: dict[str, int] = {}
        self._env_steps, self._head, self._tail, self._window_bytes, self._samples = 0, 0, 0, 0, 0
        self._stream = 0
        self._weights = NO_WEIGHTS
        self._points: dict[int, _Point] = {}
        self._results: dict[int, Evaluation] = {}

    @property
    def changes(self) -> Changes:
        """Wakes what waits."""
        return self._changes

    @property
    def reachable(self) -> bool:
        """Memory always is."""
        return True

    @property
    def epoch(self) -> int:
        """Memory is never lost."""
        return 0

    async def stats(self) -> StorageStats:
        """Memory has no latency, and nothing of it survives."""
        return StorageStats(
            memory_bytes=self._window_bytes,
            memory_limit_bytes=0,
            writes_to_disk=False,
            file_bytes=0,
            latency=Histogram().stats(),
        )

    async def open_run(self, run: RunParameters) -> None:
        """Begins the run; see Storage."""
        for field in ("batch_size", "seed", "samples_per_insert"):
            held, given = getattr(self._run, field), getattr(run, field)
            if self._run.total_env_steps and held != given:
                raise RunMismatchError(field, str(held), str(given))
        self._run = run
        self._changes.notify(*Topic)

    async def close(self) -> None:
        """Nothing to give up."""

    async def register_spec(self, spec: EnvSpec) -> EnvSpec:
        """See Storage."""
        self._spec = self._spec or spec
        return self._spec

    async def spec(self) -> EnvSpec | None:
        """See Storage."""
        return self._spec

    async def status(self) -> RunStatus:
        """See Storage."""
        return RunStatus(
            counters=self._counters(),
            total_env_steps=self._run.total_env_steps,
            tail=self._tail,
            head=self._head,
            window_bytes=self._window_bytes,
            evaluations_pending=len(self._points),
        )

    async def commit(self, group: Group, *, again: bool) -> Commit:  # noqa: ARG002 - nothing was sent before
        """See Storage."""
        outcomes, stored = self._judge(group)
        if stored and not (group.imported or self._rules.may_insert(self._head, self._samples)):
            return self._commit(held_back=True, outcomes=())
        first_index, env_steps, batch_was_due = self._head, self._env_steps, self._batch_due()
        for episode in stored:
            self._env_steps += episode.meta.length
            self._blobs[self._head] = episode.blob
            self._records[self._head] = EpisodeRecord(
                meta=episode.meta, env_steps=self._env_steps, stored_at_s=time.time()
            )
            self._head += 1
            self._window_bytes += len(episode.blob)
            self._last_seq[episode.meta.session] = episode.meta.seq
        self._evict()
        if not group.imported:
            self._add_points(env_steps)
        completed = self._complete() and env_steps < self._run.total_env_steps
        if completed or (self._batch_due() and not batch_was_due):
            self._changes.notify(Topic.EPISODES)
        if completed:
            self._changes.notify(Topic.EVALUATIONS)
        return replace(self._commit(held_back=False, outcomes=outcomes), first_index=first_index)

    def _judge(self, group: Group) -> tuple[tuple[Outcome, ...], list[NewEpisode]]:
        outcomes: list[Outcome] = []
        stored: list[NewEpisode] = []
        last_seq: dict[str, int] = {}
        env_steps = self._env_steps
        for episode in group.episodes:
            meta = episode.meta
            last = last_seq.get(meta.session, self._last_seq.get(meta.session, 0))
            if meta.seq <= last:
                outcomes.append(Outcome.DUPLICATE)
            elif env_steps >= self._run.total_env_steps:
                outcomes.append(Outcome.RUN_COMPLETE)
            else:
                outcomes.append(Outcome.STORED)
                stored.append(episode)
                last_seq[meta.session] = meta.seq
                env_steps += meta.length
        return tuple(outcomes), stored

    def _evict(self) -> None:
        while self._rules.must_evict(self._head - self._tail, self._window_bytes):
            self._window_bytes -= len(self._blobs.pop(self._tail))
            del self._records[self._tail]
            self._tail += 1

    def _add_points(self, env_steps_before: int) -> None:
        interval = self._rules.evaluation_interval
        first = (env_steps_before // interval + 1) * interval
        for point in range(first, self._env_steps + 1, interval):
            self._points[point] = _Point(self._weights)
            self._changes.notify(Topic.EVALUATIONS)

    async def open_stream(self, consumed_batches: int) -> int:
        """See Storage."""
        self._stream += 1
        self._samples = consumed_batches * self._rules.batch_size
        self._changes.notify(Topic.SAMPLES, Topic.EPISODES)
        return self._stream

    async def reserve(self, stream: int, batch: int, *, take: bool) -> Reservation:
        """See Storage."""
        if stream != self._stream:
            raise StateConflictError("another Sample stream was opened; a run has one learner")
        after = (batch + 1) * self._rules.batch_size
        due = self._batch_due()
        granted = take and (due or self._samples == after)
        if granted:
            held_back = not self._rules.may_insert(self._head, self._samples)
            self._samples = after
            if held_back and self._rules.may_insert(self._head, self._samples):
                self._changes.notify(Topic.SAMPLES)
        return Reservation(
            granted=granted,
            end_of_run=self._complete() and not due and not granted,
            tail=self._tail,
            head=self._head,
        )

    async def read(self, indices: Sequence[int]) -> list[bytes | None]:
        """See Storage."""
        return [self._blobs.get(index) for index in indices]

    async def records(self, indices: Sequence[int]) -> list[EpisodeRecord | None]:
        """See Storage."""
        return [self._records.get(index) for index in indices]

    async def now_s(self) -> float:
        """See Storage."""
        return time.time()

    async def publish_weights(self, weights: Weights) -> None:
        """See Storage."""
        if weights.session == self._weights.session:
            if weights.version == self._weights.version:
                return
            if weights.version < self._weights.version:
                raise StateConflictError(
                    f"version {weights.version} is older than the newest, {self._weights.version}"
                )
        self._weights = weights
        for point in self._points.values():
            if not point.weights.version:
                point.weights = weights
                self._changes.notify(Topic.EVALUATIONS)
        self._changes.notify(Topic.WEIGHTS)

    async def newest_weights(self, have: Weights) -> tuple[Weights, Counters]:
        """See Storage."""
        newest = self._weights
        if (newest.session, newest.version) == (have.session, have.version):
            newest = replace(newest, data=b"")
        return newest, self._counters()

    async def claim_evaluation(self) -> Claim:
        """See Storage."""
        now = time.monotonic()
        leases = []
        for env_steps, point in sorted(self._points.items()):
            if not point.weights.version:
                continue
            if point.lease_ends_s <= now:
                point.lease_ends_s = now + self._rules.evaluation_lease_s
                return Claim(
                    env_steps=env_steps, weights=point.weights, retry_after_s=None, run_complete=False
                )
            leases.append(point.lease_ends_s - now)
        return Claim(
            env_steps=None,
            weights=NO_WEIGHTS,
            retry_after_s=min(leases, default=None),
            run_complete=self._complete() and not self._points,
        )

    async def report_evaluation(self, evaluation: Evaluation) -> None:
        """See Storage."""
        point = evaluation.env_steps
        if point in self._results:
            return
        if point not in self._points:
            raise StateConflictError(f"no evaluation is due at {point} environment steps")
        del self._points[point]
        self._results[point] = evaluation
        self._changes.notify(Topic.EVALUATIONS)

    async def evaluations(self) -> list[Evaluation]:
        """See Storage."""
        return [self._results[point] for point in sorted(self._results)]

    def _complete(self) -> bool:
        return self._env_steps >= self._run.total_env_steps

    def _batch_due(self) -> bool:
        return self._rules.may_sample(self._head, self._samples, self._head - self._tail)

    def _counters(self) -> Counters:
        return Counters(
            env_steps=self._env_steps,
            episodes=self._head,
            samples=self._samples,
            weights_version=self._weights.version,
            run_complete=self._complete(),
        )

    def _commit(self, *, held_back: bool, outcomes: tuple[Outcome, ...]) -> Commit:
        return Commit(
            held_back=held_back,
            outcomes=outcomes,
            first_index=self._head,
            tail=self._tail,
            counters=self._counters(),
        )
