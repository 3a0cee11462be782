"""Which episodes make a batch, and where they come from.

Batch number n is drawn by a generator seeded with the run's seed and n: there is no generator state to lose,
and the same window gives the same batch.
"""

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from replay.admission import checked_batch_number
from replay.cache import EpisodeCache
from replay.changes import Event, Topic
from replay.choosing import choose
from replay.errors import InvalidRequestError, RequestError, UnavailableError
from replay.stats import SampleRecorder
from replay.storage import Storage
from replay.table import Draws, Reservation, Table, TableRules

MAX_OUTSTANDING = 1024
"""Batches of an accounted table that may have been sent and not consumed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Stored episodes, in the order in which they were drawn."""

    number: int
    blobs: list[bytes]
    draws: Draws | None = None
    """Of a table that keeps an account."""
    released: bool = True
    """False: sent ahead while the rate limiter holds it back; a Release follows when it may be trained on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """A batch that was sent ahead may be trained on now."""

    number: int


class Limiter(Enum):
    """What the rate limiter does to a stream with credits."""

    HOLDS = "holds"
    LETS_GO = "lets go"


class Credits:
    """How many batches a client allows to be sent, and how many it has consumed."""

    def __init__(self, consumed: int = 0) -> None:
        self.available = 0
        self.consumed = consumed
        self.sent = consumed
        """Number of the next batch."""
        self._added = Event()
        self._problem: RequestError | None = None

    def add(self, credits: int) -> None:
        """Allows so many more."""
        self.available += credits
        self._added.set()

    def take(self) -> None:
        """Uses one."""
        self.available -= 1
        self.sent += 1

    @property
    def outstanding(self) -> bool:
        """Whether so much is not consumed that no more may go where it is remembered."""
        return self.sent - self.consumed >= MAX_OUTSTANDING

    def consume(self, consumed: int) -> None:
        """The client is done with batches before number `consumed`."""
        self.consumed = max(self.consumed, consumed)

    def fail(self, problem: RequestError) -> None:
        """Has the stream end with this error."""
        self._problem = problem
        self._added.set()

    def check(self) -> None:
        """Raises what `fail` was given."""
        if self._problem is not None:
            raise self._problem

    def added(self) -> Event:
        """Will happen with the next `add`."""
        self._added = Event()
        return self._added


class Sampler:
    """Hands out batches from a storage's tables, through their caches."""

    def __init__(
        self, storage: Storage, caches: Mapping[str, EpisodeCache], recorder: SampleRecorder, *, seed: int
    ) -> None:
        self._storage = storage
        self._caches = caches
        self._recorder = recorder
        self._seed = seed

    async def batches(
        self, table: Table, batch_size: int, credits: Credits
    ) -> AsyncGenerator[Batch | Release | Limiter, None]:
        """Opens the table's Sample stream: the batches after those consumed, until the run ends.

        In between it says when the rate limiter begins to hold the stream back, and when it lets go. The next
        batch is drawn and sent while it holds, where the table's rules allow that, so that only a word has to
        follow when the batch falls due. It counts as handed out from then on.

        Raises InvalidRequestError for another batch size than the run's, StateConflictError once another
        stream is opened.
        """
        if batch_size != table.rules.batch_size:
            raise InvalidRequestError(
                f"open.batch_size: {batch_size}, but this run's batches are of {table.rules.batch_size}"
            )
        number = checked_batch_number("open.consumed_batches", credits.consumed)
        changes, stream = self._storage.changes, await table.open_stream(number)
        waiting_since: float | None = None
        held = False
        ahead: Batch | None = None
        while True:
            changed, added = changes.event(Topic.EPISODES), credits.added()
            credits.check()
            changes.check_draining()
            most = 0 if table.rules.accounted and credits.outstanding else credits.available
            if most and waiting_since is None:
                waiting_since = time.monotonic()
            reservation = await self._reserve(table, stream, number, most, credits.consumed)
            if reservation.granted:
                assert waiting_since is not None  # nothing is granted to a stream without credits
                waited_s, waiting_since = time.monotonic() - waiting_since, None
                if held:
                    held = False
                    yield Limiter.LETS_GO
                for _ in range(reservation.granted):
                    batch, ahead = ahead or await self._batch(table, number, reservation), None
                    if batch is None:
                        break
                    credits.take()
                    self._recorder.sent(batch.blobs, waited_s=waited_s)
                    yield batch if batch.released else Release(number=number)
                    number += 1
            elif reservation.end_of_run:
                return
            else:
                if most and not held:
                    held = True
                    yield Limiter.HOLDS
                    if ahead is None and _may_go_ahead(table.rules, reservation):
                        batch = await self._uniform_batch(table, number, reservation)
                        ahead = replace(batch, released=False)
                        yield ahead
                await changes.wait(changed, added)

    async def _reserve(self, table: Table, stream: int, number: int, most: int, consumed: int) -> Reservation:
        """The table's answer, after the draws were made if it left them to us."""
        while True:
            reservation = await table.reserve(stream, number, most=most, consumed=consumed)
            if reservation.view is None:
                return reservation
            draws = choose(self._rng(number), reservation.view, table.rules)
            if await table.take(stream, number, draws):
                return replace(reservation, granted=1, draws=draws, view=None)

    async def _batch(self, table: Table, number: int, reservation: Reservation) -> Batch | None:
        """The batch; None if some of it was evicted after the draw: then the table has it drawn anew."""
        draws = reservation.draws
        if draws is None:
            return await self._uniform_batch(table, number, reservation)
        self._caches[table.rules.name].advance(reservation.tail, self._storage.epoch)
        blobs = await self._read(table, draws.indices)
        missing = set(draws.indices) - blobs.keys()
        if not missing:
            return Batch(number=number, blobs=[blobs[index] for index in draws.indices], draws=draws)
        tail = (await table.status()).tail
        if max(missing) >= tail:
            raise UnavailableError(f"the storage has lost episodes of the window, {max(missing)} for one")
        return None

    async def _uniform_batch(self, table: Table, number: int, reservation: Reservation) -> Batch:
        rng, batch_size = self._rng(number), table.rules.batch_size
        tail, head = reservation.tail, reservation.head
        self._caches[table.rules.name].advance(tail, self._storage.epoch)
        indices = draw(rng, range(tail, head), batch_size)
        blobs = await self._read(table, indices)
        while missing := [slot for slot, index in enumerate(indices) if index not in blobs]:
            # They left the window after the draw. Others are drawn, so that no batch is an error.
            now = await table.status()
            others = draw(rng, range(now.tail, now.inserts), len(missing), avoid=set(blobs))
            blobs |= await self._read(table, others)
            for slot, index in zip(missing, others, strict=True):
                indices[slot] = index
        return Batch(number=number, blobs=[blobs[index] for index in indices])

    async def _read(self, table: Table, indices: Sequence[int]) -> dict[int, bytes]:
        cache = self._caches[table.rules.name]
        found = {index: blob for index in indices if (blob := cache.get(index)) is not None}
        misses = [index for index in dict.fromkeys(indices) if index not in found]
        for index, blob in zip(misses, await table.read(misses), strict=True):
            if blob is not None:
                cache.put(index, blob)
                found[index] = blob
        return found

    def _rng(self, number: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, number])


def _may_go_ahead(rules: TableRules, reservation: Reservation) -> bool:
    """Whether the next batch may be drawn before it is due: then without the episode that makes it due.

    Not where several episodes do, nor where draws are kept in an account; and not in lockstep, where chance
    would decide whether the newest episode is among those to draw from.
    """
    one_makes_it_due = rules.samples_per_insert >= rules.batch_size
    lockstep, drawable = rules.insert_lead_episodes == 0, reservation.head - reservation.tail
    return one_makes_it_due and not (lockstep or rules.accounted) and drawable >= rules.minimum


def draw(
    rng: np.random.Generator, window: range, count: int, avoid: set[int] | frozenset[int] = frozenset()
) -> list[int]:
    """`count` different indices, uniformly from the window without those to avoid."""
    if not avoid:
        return [int(offset) + window.start for offset in rng.choice(len(window), count, replace=False)]
    candidates = [index for index in window if index not in avoid]
    return [candidates[int(place)] for place in rng.choice(len(candidates), count, replace=False)]
