"""Which episodes make a batch, and where they come from.

Batch number n is drawn by a generator seeded with the run's seed and n: there is no generator state to lose,
and the same window gives the same batch.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from enum import Enum

import numpy as np

from replay.cache import EpisodeCache
from replay.changes import Topic
from replay.errors import InvalidRequestError, RequestError
from replay.stats import SampleRecorder
from replay.storage import Reservation, Storage


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Stored episodes, in the order in which they were drawn."""

    number: int
    blobs: list[bytes]


class Limiter(Enum):
    """What the rate limiter does to a stream with credits."""

    HOLDS = "holds"
    LETS_GO = "lets go"


class Credits:
    """How many batches a client allows to be sent."""

    def __init__(self) -> None:
        self.available = 0
        self._added = asyncio.Event()
        self._problem: RequestError | None = None

    def add(self, credits: int) -> None:
        """Allows so many more."""
        self.available += credits
        self._added.set()

    def take(self) -> None:
        """Uses one."""
        self.available -= 1

    def fail(self, problem: RequestError) -> None:
        """Has the stream end with this error."""
        self._problem = problem
        self._added.set()

    def check(self) -> None:
        """Raises what `fail` was given."""
        if self._problem is not None:
            raise self._problem

    def added(self) -> asyncio.Event:
        """Will be set by the next `add`."""
        self._added.clear()
        return self._added


class Sampler:
    """Hands out batches from a storage, through the cache."""

    def __init__(
        self,
        storage: Storage,
        cache: EpisodeCache,
        recorder: SampleRecorder,
        *,
        seed: int,
        batch_size: int,
    ) -> None:
        self._storage = storage
        self._cache = cache
        self._recorder = recorder
        self._seed = seed
        self._batch_size = batch_size

    async def batches(
        self, batch_size: int, consumed_batches: int, credits: Credits
    ) -> AsyncGenerator[Batch | Limiter, None]:
        """Opens the run's Sample stream: the batches after those consumed, until the run ends.

        In between it says when the rate limiter begins to hold the stream back, and when it lets go.

        Raises InvalidRequestError for another batch size than the run's, StateConflictError once another
        stream is opened.
        """
        if batch_size != self._batch_size:
            raise InvalidRequestError(
                f"open.batch_size: {batch_size}, but this run's batches have {self._batch_size} episodes"
            )
        changes, number = self._storage.changes, consumed_batches
        stream = await self._storage.open_stream(consumed_batches)
        waiting_since: float | None = None
        held = False
        while True:
            changed, added = changes.event(Topic.EPISODES), credits.added()
            credits.check()
            may_take = credits.available > 0
            if may_take and waiting_since is None:
                waiting_since = time.monotonic()
            reservation = await self._storage.reserve(stream, number, take=may_take)
            if reservation.granted:
                assert waiting_since is not None  # nothing is granted to a stream without credits
                credits.take()
                waited_s, waiting_since = time.monotonic() - waiting_since, None
                if held:
                    held = False
                    yield Limiter.LETS_GO
                batch = await self._batch(number, reservation)
                self._recorder.sent(batch.blobs, waited_s=waited_s)
                yield batch
                number += 1
            elif reservation.end_of_run:
                return
            else:
                if may_take and not held:
                    held = True
                    yield Limiter.HOLDS
                await changes.wait(changed, added)

    async def _batch(self, number: int, reservation: Reservation) -> Batch:
        rng = np.random.default_rng([self._seed, number])
        tail, head = reservation.tail, reservation.head
        self._cache.advance(tail, self._storage.epoch)
        indices = draw(rng, range(tail, head), self._batch_size)
        blobs = await self._read(indices)
        while missing := [slot for slot, index in enumerate(indices) if index not in blobs]:
            # They left the window after the draw. Others are drawn, so that no batch is an error.
            status = await self._storage.status()
            others = draw(rng, range(status.tail, status.head), len(missing), avoid=set(blobs))
            blobs |= await self._read(others)
            for slot, index in zip(missing, others, strict=True):
                indices[slot] = index
        return Batch(number=number, blobs=[blobs[index] for index in indices])

    async def _read(self, indices: list[int]) -> dict[int, bytes]:
        found = {index: blob for index in indices if (blob := self._cache.get(index)) is not None}
        misses = [index for index in indices if index not in found]
        for index, blob in zip(misses, await self._storage.read(misses), strict=True):
            if blob is not None:
                self._cache.put(index, blob)
                found[index] = blob
        return found


def draw(
    rng: np.random.Generator, window: range, count: int, avoid: set[int] | frozenset[int] = frozenset()
) -> list[int]:
    """`count` different indices, uniformly from the window without those to avoid."""
    if not avoid:
        return [int(offset) + window.start for offset in rng.choice(len(window), count, replace=False)]
    candidates = [index for index in window if index not in avoid]
    return [candidates[int(place)] for place in rng.choice(len(candidates), count, replace=False)]
