"""A table in memory: the plain statement of what the scripts of redis_table_scripts.py do."""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from replay.changes import Changes, Topic
from replay.errors import InvalidRequestError, StateConflictError
from replay.storage import NewEpisode
from replay.table import Draws, EpisodeRecord, Fill, Reservation, SamplerKind, TableRules, TableStatus, View


class MemoryTable:
    """Implements Table. `progress` tells the share of the run's steps that has been played."""

    def __init__(self, rules: TableRules, changes: Changes, progress: Callable[[], float]) -> None:
        self._rules = rules
        self._changes = changes
        self._progress = progress
        self.head = self.tail = 0
        self.samples = 0
        self._blobs: dict[int, bytes] = {}
        self._records: dict[int, EpisodeRecord] = {}
        self._available = self._bytes = self._dropped = 0
        self._stream = 0
        self._scores: dict[int, float] = {}
        """Of an accounted table. Below 0: handed out as often as may be, and not consumed yet."""
        self._max_priority = 1.0
        self._times: Counter[int] = Counter()
        """How often an episode was handed out, where that is limited."""
        self._times_consumed: Counter[int] = Counter()
        self._batches: dict[int, Draws] = {}
        """Taken and not consumed."""
        self._consumed = 0
        self._updated = -1
        """Newest batch of which priorities were taken."""

    @property
    def rules(self) -> TableRules:
        """See Table."""
        return self._rules

    @property
    def batch_due(self) -> bool:
        """Whether a batch may go."""
        return self._rules.may_sample(self._fill())

    def may_insert(self, count: int = 1, size_bytes: int = 0) -> bool:
        """Whether a group of this many episodes may enter."""
        return self._rules.may_insert(self._fill(), count, size_bytes)

    def add(self, episode: NewEpisode, env_steps: int) -> None:
        """Stores an episode, with which the run has so many steps; `evict` has to follow."""
        index, self.head = self.head, self.head + 1
        self._records[index] = EpisodeRecord(meta=episode.meta, env_steps=env_steps, stored_at_s=time.time())
        self._blobs[index] = episode.blob
        self._bytes += len(episode.blob)
        self._available += 1
        if self._rules.sampler is SamplerKind.PRIORITISED:
            self._scores[index] = self._max_priority
        elif self._rules.accounted:
            self._scores[index] = episode.meta.weights_version + 1.0

    def evict(self) -> None:
        """Removes the oldest episodes until the table has its size."""
        while self._rules.must_evict(self.head - self.tail, self._fill()):
            self._remove(self.tail)

    def figures(self) -> TableStatus:
        """The status, at once."""
        return TableStatus(
            name=self._rules.name,
            inserts=self.head,
            samples=self.samples,
            tail=self.tail,
            available=self._available,
            size_bytes=self._bytes,
            dropped=self._dropped,
            batch_due=self.batch_due,
        )

    async def open_stream(self, consumed_batches: int) -> int:
        """See Table."""
        self._stream += 1
        if self._rules.accounted:
            if consumed_batches < self._consumed:
                for batch in list(self._batches):
                    self._undo(batch)
            self._consume(consumed_batches)
            self._consumed = consumed_batches
        self._updated = min(self._updated, consumed_batches - 1)
        if not self._rules.queue:
            self.samples = consumed_batches * self._rules.batch_size
        self._changes.notify(Topic.SAMPLES, Topic.EPISODES)
        return self._stream

    async def reserve(self, stream: int, batch: int, *, most: int, consumed: int = 0) -> Reservation:
        """See Table."""
        self._check_stream(stream)
        self._consume(consumed)
        again = self._taken(batch)
        if again is not None:
            if most and not self._rules.queue:
                self._count(batch)  # opening the stream took it back
            return self._reservation(granted=min(most, 1), draws=again if most else None)
        if most:
            self._drop_old(batch)
        if not (most and self._is_due(batch)):
            return self._reservation(end_of_run=self._progress() >= 1.0 and not self.batch_due)
        if self._rules.accounted:
            return self._reservation(view=self._view())
        granted = 0
        while granted < most and self._is_due(batch + granted):
            self._count(batch + granted)
            granted += 1
        return self._reservation(granted=granted)

    async def take(self, stream: int, batch: int, draws: Draws) -> bool:
        """See Table."""
        self._check_stream(stream)
        if batch in self._batches:
            return self._batches[batch] == draws
        drawable = all(self._scores.get(index, 0.0) > 0.0 for index in draws.indices)
        if not (drawable and self._is_due(batch)):
            return False
        self._batches[batch] = draws
        if self._rules.max_times_sampled:
            for index in draws.indices:
                self._times[index] += 1
                if self._times[index] == self._rules.max_times_sampled:
                    self._scores[index] *= -1.0
                    self._available -= 1
        self._count(batch)
        return True

    async def status(self) -> TableStatus:
        """See Table."""
        return self.figures()

    async def read(self, indices: Sequence[int]) -> list[bytes | None]:
        """See Table."""
        return [self._blobs.get(index) for index in indices]

    async def records(self, indices: Sequence[int]) -> list[EpisodeRecord | None]:
        """See Table."""
        return [self._records.get(index) for index in indices]

    async def update_priorities(self, batch: int, priorities: Mapping[int, float]) -> None:
        """See Table."""
        if self._rules.sampler is not SamplerKind.PRIORITISED:
            raise StateConflictError(f"table: {self._rules.name!r} is not prioritised")
        if any(index >= self.head for index in priorities):
            raise InvalidRequestError(f"indices: {max(priorities)} was never stored")
        if batch <= self._updated:
            return
        self._updated = batch
        for index, priority in priorities.items():
            if index in self._scores:
                self._scores[index] = math.copysign(priority, self._scores[index])
        self._max_priority = max(self._max_priority, *priorities.values(), 0.0)

    def _fill(self) -> Fill:
        kept = len(self._batches) * self._rules.batch_size if self._rules.queue else 0
        return Fill(
            inserts=self.head,
            samples=self.samples,
            available=self._available,
            held=self._available + kept,
            size_bytes=self._bytes,
        )

    def _check_stream(self, stream: int) -> None:
        if stream != self._stream:
            raise StateConflictError("another Sample stream was opened; a table has one learner")

    def _is_due(self, batch: int) -> bool:
        """Whether the batch may go, or was counted before and the answer or its draws are gone."""
        enough = self._available >= self._rules.batch_size
        counted = not self._rules.queue and self.samples >= (batch + 1) * self._rules.batch_size
        return self.batch_due or (enough and counted)

    def _count(self, batch: int) -> None:
        held_back = not self.may_insert()
        after = (batch + 1) * self._rules.batch_size
        self.samples = (
            self.samples + self._rules.batch_size if self._rules.queue else max(self.samples, after)
        )
        if held_back and self.may_insert():
            self._changes.notify(Topic.SAMPLES)

    def _view(self) -> View:
        scores = [self._scores.get(index, 0.0) for index in range(self.tail, self.head)]
        return View(tail=self.tail, scores=np.array(scores, dtype=np.float64), progress=self._progress())

    def _taken(self, batch: int) -> Draws | None:
        """The draws of a batch that was taken, unless an episode of it has been evicted since."""
        if batch in self._batches and not all(i in self._blobs for i in self._batches[batch].indices):
            self._undo(batch)
        return self._batches.get(batch)

    def _undo(self, batch: int) -> None:
        """As if the batch had not been taken."""
        for index in self._batches.pop(batch).indices:
            if self._rules.max_times_sampled and index in self._blobs:
                self._times[index] -= 1
                if self._scores[index] < 0.0:
                    self._scores[index] *= -1.0
                    self._available += 1
        if self._rules.queue:
            self.samples -= self._rules.batch_size

    def _consume(self, consumed: int) -> None:
        """Forgets batches before `consumed`, and episodes that no batch will have again."""
        done = [batch for batch in self._batches if batch < consumed]
        self._consumed = max(self._consumed, consumed)
        for batch in done:
            draws = self._batches.pop(batch)
            limited = draws.indices if self._rules.max_times_sampled else ()
            for index in limited:
                self._times_consumed[index] += 1
                used_up = self._scores.get(index, 0.0) < 0.0
                if used_up and self._times_consumed[index] == self._times[index]:
                    self._remove(index)
        if done:
            self._changes.notify(Topic.SAMPLES)

    def _drop_old(self, batch: int) -> None:
        """Removes from a queue what is too old for the batch, until a whole one is left at its front."""
        fresh = 0
        for index in range(self.tail, self.head):
            score = self._scores.get(index, 0.0)
            if score > 0.0 and self._rules.too_old(int(score) - 1, batch):
                self._remove(index)
                self._dropped += 1
                self._changes.notify(Topic.SAMPLES)
            elif score > 0.0:
                fresh += 1
            if self._rules.max_age_versions is None or fresh == self._rules.batch_size:
                return

    def _remove(self, index: int) -> None:
        self._bytes -= len(self._blobs.pop(index))
        del self._records[index]
        if self._scores.pop(index, 1.0) > 0.0:
            self._available -= 1
        del self._times[index], self._times_consumed[index]
        while self.tail < self.head and self.tail not in self._blobs:
            self.tail += 1

    def _reservation(
        self,
        *,
        granted: int = 0,
        end_of_run: bool = False,
        draws: Draws | None = None,
        view: View | None = None,
    ) -> Reservation:
        return Reservation(
            granted=granted, end_of_run=end_of_run, tail=self.tail, head=self.head, draws=draws, view=view
        )
