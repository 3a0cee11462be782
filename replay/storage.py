"""What the service asks of a storage, and the rules that every storage keeps.

A storage holds all of a run's truth. Each method is one atomic step, also when several replicas of the
service use one storage, and may be repeated: a step whose answer was lost does no harm the second time.
All methods raise UnavailableError while the storage cannot be reached.

Episodes are in tables (table.py). What is common to all tables is here: the run, its steps and weights, who
has sent what, and evaluations.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from common.histogram import HistogramStats
from common.types import Counters, EnvSpec, EpisodeMeta, Evaluation, Weights
from replay.changes import Changes
from replay.table import Table, TableRules, TableStatus

NO_WEIGHTS = Weights()


@dataclass(frozen=True, kw_only=True, slots=True)
class RunParameters:
    """What must stay the same over a run's life; only total_env_steps may change from start to start."""

    total_env_steps: int
    batch_size: int
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """The tables, and evaluation points."""

    tables: Mapping[str, TableRules]
    """By name; the default table first."""
    evaluation_interval: int
    evaluation_lease_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class NewEpisode:
    """A checked episode on its way into the storage."""

    meta: EpisodeMeta
    blob: bytes
    """An Episode message, serialised: what the storage keeps and what batches are made of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Episodes that enter together, in this order, or not at all."""

    table: str
    episodes: tuple[NewEpisode, ...]
    imported: bool = False
    """From a data set: the ratio limiter does not hold it back, and no evaluation falls due of its steps."""


class Outcome(StrEnum):
    """What became of one episode of a group."""

    STORED = "S"
    DUPLICATE = "D"
    RUN_COMPLETE = "C"


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    """What became of a group."""

    held_back: bool
    """The rate limiter did not let it in; nothing has changed and `outcomes` is empty."""
    outcomes: tuple[Outcome, ...]
    first_index: int
    """Of the first episode stored; the others follow."""
    tail: int
    counters: Counters


@dataclass(frozen=True, kw_only=True, slots=True)
class RunStatus:
    """The state of the run."""

    counters: Counters
    total_env_steps: int
    tables: tuple[TableStatus, ...]
    """The default table first."""
    evaluations_pending: int
    """Due and not reported."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """The answer to an evaluator."""

    env_steps: int | None
    """The point to evaluate; None: none can be claimed now."""
    weights: Weights
    retry_after_s: float | None
    """When the next lease runs out, if any does."""
    run_complete: bool
    """No evaluation is left and none will fall due."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StorageStats:
    """How the storage itself is doing."""

    memory_bytes: int
    memory_limit_bytes: int
    """0: none."""
    writes_to_disk: bool
    """False: what it acknowledges now may not survive it."""
    file_bytes: int
    """Of what it writes."""
    latency: HistogramStats
    """Seconds per round trip of this replica."""


class Storage(Protocol):
    """All of a run's state. See the file's head for what holds for every method."""

    @property
    def changes(self) -> Changes:
        """Wakes what waits; also told of what other replicas do."""
        ...

    @property
    def reachable(self) -> bool:
        """Whether the storage answers, as far as is known; Topic.HEALTH tells when it changes."""
        ...

    @property
    def epoch(self) -> int:
        """Rises when the connection was lost: what a cache holds may not be the truth any more."""
        ...

    async def stats(self) -> StorageStats:
        """Memory, disk and latency."""
        ...

    async def open_run(self, run: RunParameters) -> None:
        """Begins the run or goes on with the one held, taking its new total_env_steps.

        Raises RunMismatchError if another parameter differs.
        """
        ...

    async def close(self) -> None:
        """Gives up the connections. May be called twice."""
        ...

    async def register_spec(self, spec: EnvSpec) -> EnvSpec:
        """Keeps the spec if none is registered yet; returns the registered one."""
        ...

    async def spec(self) -> EnvSpec | None:
        """The registered spec."""
        ...

    async def status(self) -> RunStatus:
        """The state of the run, all of one moment."""
        ...

    def table(self, name: str) -> Table:
        """The table of that name. Raises UnknownTableError if there is none."""
        ...

    async def commit(self, group: Group, *, again: bool) -> Commit:
        """Stores a group's new episodes in its table unless that table's rate limiter holds it back.

        `again` says that this group was held back before. Advances env_steps, evicts, and makes every
        multiple of evaluation_interval that env_steps has passed an evaluation of the newest weights.
        """
        ...

    async def now_s(self) -> float:
        """The storage's clock, by which `stored_at_s` of a record is."""
        ...

    async def publish_weights(self, weights: Weights) -> None:
        """Makes weights the newest; they also go to evaluations that wait for the first weights.

        Raises StateConflictError if the same session has published a higher version.
        """
        ...

    async def newest_weights(self, have: Weights) -> tuple[Weights, Counters]:
        """The newest weights, without data if `have` (data not looked at) are the newest."""
        ...

    async def claim_evaluation(self) -> Claim:
        """Leases the oldest evaluation that has weights and no running lease."""
        ...

    async def report_evaluation(self, evaluation: Evaluation) -> None:
        """Keeps the first result of a point. Raises StateConflictError if the point is not due."""
        ...

    async def evaluations(self) -> list[Evaluation]:
        """All results, by ascending env_steps."""
        ...
