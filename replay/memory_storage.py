"""Everything in the memory of one process: for tests, and the plain statement of what the Redis one does."""

import time
from dataclasses import dataclass, replace

from common.histogram import Histogram
from common.types import Counters, EnvSpec, Evaluation, Weights
from replay.changes import Changes, Topic
from replay.errors import RunMismatchError, StateConflictError, UnknownTableError
from replay.memory_table import MemoryTable
from replay.storage import (
    NO_WEIGHTS,
    Claim,
    Commit,
    Group,
    NewEpisode,
    Outcome,
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
        self._run = RunParameters(total_env_steps=0, batch_size=0, seed=0)
        self._spec: EnvSpec | None = None
        self._tables = {
            name: MemoryTable(table, self._changes, self._progress) for name, table in rules.tables.items()
        }
        self._last_seq: dict[str, int] = {}
        self._env_steps = 0
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
            memory_bytes=sum(table.figures().size_bytes for table in self._tables.values()),
            memory_limit_bytes=0,
            writes_to_disk=False,
            file_bytes=0,
            latency=Histogram().stats(),
        )

    async def open_run(self, run: RunParameters) -> None:
        """Begins the run; see Storage."""
        for field in ("batch_size", "seed"):
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
            tables=tuple(table.figures() for table in self._tables.values()),
            evaluations_pending=len(self._points),
        )

    def table(self, name: str) -> MemoryTable:
        """See Storage."""
        if name not in self._tables:
            raise UnknownTableError(name, self._tables)
        return self._tables[name]

    async def commit(self, group: Group, *, again: bool) -> Commit:  # noqa: ARG002 - nothing was sent before
        """See Storage."""
        table = self.table(group.table)
        outcomes, stored = self._judge(group)
        size_bytes = sum(len(episode.blob) for episode in stored)
        unpaced = group.imported and not table.rules.queue
        if stored and not (unpaced or table.may_insert(len(stored), size_bytes)):
            return self._commit(table, held_back=True, outcomes=())
        first_index, env_steps, batch_was_due = table.head, self._env_steps, table.batch_due
        for episode in stored:
            self._env_steps += episode.meta.length
            table.add(episode, self._env_steps)
            self._last_seq[episode.meta.session] = episode.meta.seq
        table.evict()
        if not group.imported:
            self._add_points(env_steps)
        completed = self._complete() and env_steps < self._run.total_env_steps
        if completed or (table.batch_due and not batch_was_due):
            self._changes.notify(Topic.EPISODES)
        if completed:
            self._changes.notify(Topic.EVALUATIONS)
        return replace(self._commit(table, held_back=False, outcomes=outcomes), first_index=first_index)

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

    def _add_points(self, env_steps_before: int) -> None:
        interval = self._rules.evaluation_interval
        first = (env_steps_before // interval + 1) * interval
        for point in range(first, self._env_steps + 1, interval):
            self._points[point] = _Point(self._weights)
            self._changes.notify(Topic.EVALUATIONS)

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

    def _progress(self) -> float:
        return min(1.0, self._env_steps / max(1, self._run.total_env_steps))

    def _counters(self) -> Counters:
        return Counters(
            env_steps=self._env_steps,
            episodes=sum(table.head for table in self._tables.values()),
            samples=sum(table.samples for table in self._tables.values()),
            weights_version=self._weights.version,
            run_complete=self._complete(),
        )

    def _commit(self, table: MemoryTable, *, held_back: bool, outcomes: tuple[Outcome, ...]) -> Commit:
        return Commit(
            held_back=held_back,
            outcomes=outcomes,
            first_index=table.head,
            tail=table.tail,
            counters=self._counters(),
        )
