"""What a table is: its rules, and what the service asks of it in every storage.

Episodes of a table are numbered from 0 in the order in which they came; the number is their index. The window
is the range of indices [tail, head). `head` is therefore also the count of inserts.

A table that only draws uniformly keeps nothing but that. Others keep an account of their episodes: each has a
score, and what was handed out and is not consumed yet is remembered, so that it can be given again as it was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from common.types import EpisodeMeta


class SamplerKind(StrEnum):
    """Who is drawn."""

    UNIFORM = "uniform"
    PRIORITISED = "prioritised"
    FIFO = "fifo"


class LimiterKind(StrEnum):
    """Who waits for whom."""

    RATIO = "ratio"
    QUEUE = "queue"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fill:
    """How full a table is."""

    inserts: int
    samples: int
    available: int
    """Episodes that can be drawn."""
    held: int
    """These, and what a queue has handed out and keeps until it is consumed."""
    size_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRules:
    """Rate limiter, size and sampler of one table.

    With the ratio limiter an episode that is stored owes samples_per_insert samples:

        owed = samples_per_insert * inserts - samples

    A batch may go when owed >= batch_size and enough episodes can be drawn. A group of episodes may enter
    when owed <= samples_per_insert * insert_lead_episodes, or when no batch may go before it does; so one
    side can always move.

    In a queue a batch may go when a whole one is there. A group may enter when it fits, or when nothing is
    held that could ever make a batch without it.
    """

    name: str
    batch_size: int
    samples_per_insert: float
    insert_lead_episodes: int
    window_episodes: int
    window_bytes: int
    sampler: SamplerKind = SamplerKind.UNIFORM
    limiter: LimiterKind = LimiterKind.RATIO
    min_episodes: int = 0
    max_times_sampled: int = 0
    """0: no limit."""
    max_age_versions: int | None = None
    alpha: float = 0.0
    beta: float = 0.0

    @property
    def queue(self) -> bool:
        """Whether every episode is handed out once."""
        return self.limiter is LimiterKind.QUEUE

    @property
    def accounted(self) -> bool:
        """Whether the table keeps scores and what is not consumed."""
        return self.sampler is not SamplerKind.UNIFORM or self.max_times_sampled > 0

    @property
    def minimum(self) -> int:
        """Episodes that must be there before any is drawn."""
        return max(self.batch_size, self.min_episodes)

    def may_insert(self, fill: Fill, count: int, size_bytes: int) -> bool:
        """Whether a group of `count` episodes may enter."""
        if self.queue:
            fits = (
                fill.held + count <= self.window_episodes
                and fill.size_bytes + size_bytes <= self.window_bytes
            )
            return fits or (fill.held == fill.available and fill.available < self.batch_size)
        owed = self.samples_per_insert * fill.inserts - fill.samples
        return owed <= self.samples_per_insert * self.insert_lead_episodes or not self.may_sample(fill)

    def may_sample(self, fill: Fill) -> bool:
        """Whether a batch may go."""
        if self.queue:
            return fill.available >= self.batch_size
        return (
            fill.available >= self.minimum
            and fill.samples + self.batch_size <= self.samples_per_insert * fill.inserts
        )

    def must_evict(self, window: int, fill: Fill) -> bool:
        """Whether the oldest has to leave a window of so many. Bytes alone always leave a batch."""
        return not self.queue and (
            window > self.window_episodes
            or (fill.size_bytes > self.window_bytes and fill.available > self.minimum)
        )

    def too_old(self, weights_version: int, batch: int) -> bool:
        """Whether an episode is no use for a batch any more.

        Batch n is trained on by weights of version n. Those before the first step are version 1 too, and
        episodes that were begun before any weights came were played by the same.
        """
        age = abs(max(1, batch) - max(1, weights_version))
        return self.max_age_versions is not None and age > self.max_age_versions


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeRecord:
    """What is known of a stored episode without reading its payload."""

    meta: EpisodeMeta
    env_steps: int
    """Of the run when it was stored, its own included."""
    stored_at_s: float
    """Seconds since 1970, by the storage's clock."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Draws:
    """The episodes of one batch."""

    indices: tuple[int, ...]
    importance: tuple[float, ...] = ()
    """One per index where the sampler is prioritised."""


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What an accounted table lets a sampler choose from."""

    tail: int
    scores: npt.NDArray[np.float64]
    """Of the indices from tail on. Above 0: can be drawn; where the sampler is prioritised, the priority."""
    progress: float
    """Share of the run's environment steps that has been played."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reservation:
    """The answer to a stream that asks for its next batches."""

    granted: int
    """How many may go, from the one that was asked for on."""
    end_of_run: bool
    """The run has all its steps and no further batch is due."""
    tail: int
    head: int
    draws: Draws | None = None
    """The batch as it was given before."""
    view: View | None = None
    """The batch may go: choose from this and take it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TableStatus:
    """One table."""

    name: str
    inserts: int
    samples: int
    tail: int
    available: int
    """Episodes that can be drawn."""
    size_bytes: int
    dropped: int
    batch_due: bool


class Table(Protocol):
    """One table of a storage; see Storage for what holds of every method."""

    @property
    def rules(self) -> TableRules:
        """The table's rules."""
        ...

    async def open_stream(self, consumed_batches: int) -> int:
        """Begins a new Sample stream and returns its number; the streams before it are over.

        With the ratio limiter samples become consumed_batches * batch_size. Batches before consumed_batches
        count as consumed. If it is less than was consumed before, the batches that were not are undone:
        their episodes can be drawn again.
        """
        ...

    async def reserve(self, stream: int, batch: int, *, most: int, consumed: int = 0) -> Reservation:
        """Asks for batch number `batch` and those after it, and says how many batches have been consumed.

        A table without an account counts as many as may go, up to `most`, as handed out; one with an account
        answers for the first alone, with a view to choose from, or with the draws if it was taken before.
        Asking again for a batch that was granted grants it again; with the ratio limiter it counts again if
        opening the stream took it back. Raises StateConflictError if another stream was opened since.
        """
        ...

    async def take(self, stream: int, batch: int, draws: Draws) -> bool:
        """Counts a batch that was chosen from a view as handed out; false if the table has changed too much.

        Taking the same again changes nothing. Raises StateConflictError as `reserve` does.
        """
        ...

    async def status(self) -> TableStatus:
        """The figures now."""
        ...

    async def read(self, indices: Sequence[int]) -> list[bytes | None]:
        """The blobs of these episodes; None for those that have left the table."""
        ...

    async def records(self, indices: Sequence[int]) -> list[EpisodeRecord | None]:
        """What is known of these episodes; None for those that have left the table."""
        ...

    async def update_priorities(self, batch: int, priorities: Mapping[int, float]) -> None:
        """Gives episodes new priorities, unless an update of this or a later batch was applied before.

        Raises StateConflictError for a table that is not prioritised, InvalidRequestError for an index that
        was never stored.
        """
        ...
