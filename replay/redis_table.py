"""A table in Redis; its steps are in redis_table_scripts.py and redis_batch_scripts.py."""

from collections.abc import Mapping, Sequence

import numpy as np

from replay import wire
from replay.errors import InvalidRequestError, StateConflictError
from replay.redis_batch_scripts import OPEN_STREAM, RESERVE, TAKE
from replay.redis_connection import Argument, Reply
from replay.redis_link import RedisLink
from replay.redis_table_scripts import UPDATE_PRIORITIES
from replay.settings import DEFAULT_TABLE
from replay.table import Draws, EpisodeRecord, Fill, Reservation, SamplerKind, TableRules, TableStatus, View

STATE_FIELDS = ("head", "tail", "bytes", "samples", "available", "dropped")


class RedisTable:
    """Implements Table. `names` are those of all tables."""

    def __init__(self, link: RedisLink, rules: TableRules, names: Sequence[str]) -> None:
        self._link = link
        self._rules = rules
        self._part = "" if rules.name == DEFAULT_TABLE else f"table:{rules.name}:"
        self.script_arguments = _rules(rules, names)
        """What every script of a table is told of its rules."""

    @property
    def rules(self) -> TableRules:
        """See Table."""
        return self._rules

    @property
    def state_command(self) -> tuple[Argument, ...]:
        """The command whose reply `figures` understands."""
        return ("HMGET", self._key("state"), *STATE_FIELDS)

    def figures(self, reply: list[bytes | None]) -> TableStatus:
        """The status. Raises UnavailableError if Redis has none of this table."""
        if None in reply[:4]:
            raise self._link.lost_run()
        head, tail, size_bytes, samples, kept, dropped = (int(value or 0) for value in reply)
        available = kept if self._rules.accounted else head - tail
        fill = Fill(inserts=head, samples=samples, available=available, held=available, size_bytes=size_bytes)
        return TableStatus(
            name=self._rules.name,
            inserts=head,
            samples=samples,
            tail=tail,
            available=available,
            size_bytes=size_bytes,
            dropped=dropped,
            batch_due=self._rules.may_sample(fill),
        )

    async def open_stream(self, consumed_batches: int) -> int:
        """See Table."""
        return int(await self._link.run(OPEN_STREAM, *self.script_arguments, consumed_batches))

    async def reserve(self, stream: int, batch: int, *, most: int, consumed: int = 0) -> Reservation:
        """See Table."""
        arguments = (*self.script_arguments, stream, batch, consumed, most)
        answer, tail, head, *more = await self._link.run(RESERVE, *arguments)
        _check_stream(answer)
        return Reservation(
            granted=more[0] if answer == b"GRANTED" else int(answer == b"AGAIN"),
            end_of_run=answer == b"END",
            tail=tail,
            head=head,
            draws=_draws(more[0]) if answer == b"AGAIN" else None,
            view=_view(tail, *more) if answer == b"CHOOSE" else None,
        )

    async def take(self, stream: int, batch: int, draws: Draws) -> bool:
        """See Table."""
        arguments = (*self.script_arguments, stream, batch, _draws_text(draws))
        answer, *_ = await self._link.run(TAKE, *arguments)
        _check_stream(answer)
        return bool(answer == b"TAKEN")

    async def status(self) -> TableStatus:
        """See Table."""
        return self.figures(await self._link.command(*self.state_command))

    async def read(self, indices: Sequence[int]) -> list[bytes | None]:
        """See Table."""
        if not indices:
            return []
        keys = (self._key(f"episode:{index}") for index in indices)
        blobs: list[bytes | None] = await self._link.command("MGET", *keys)
        return blobs

    async def records(self, indices: Sequence[int]) -> list[EpisodeRecord | None]:
        """See Table. Reads the beginnings of the episodes only."""
        if not indices:
            return []
        marks, *heads = await self._link.transaction(
            ("HMGET", self._key("stored"), *indices),
            *(("GETRANGE", self._key(f"episode:{index}"), 0, wire.META_BYTES - 1) for index in indices),
        )
        return [_record(mark, head) for mark, head in zip(marks, heads, strict=True)]

    async def update_priorities(self, batch: int, priorities: Mapping[int, float]) -> None:
        """See Table."""
        if self._rules.sampler is not SamplerKind.PRIORITISED:
            raise StateConflictError(f"table: {self._rules.name!r} is not prioritised")
        pairs: list[Argument] = []
        for index, priority in priorities.items():
            pairs += (index, repr(priority))
        unknown = await self._link.run(UPDATE_PRIORITIES, *self.script_arguments, batch, *pairs)
        if int(unknown) >= 0:
            raise InvalidRequestError(f"indices: {int(unknown)} was never stored")

    def _key(self, name: str) -> str:
        return self._link.key(self._part + name)


def _rules(rules: TableRules, names: Sequence[str]) -> tuple[Argument, ...]:
    """ARGV 1-13 of every script."""
    return (
        rules.name,
        " ".join(names),
        rules.batch_size,
        rules.minimum,
        rules.limiter.value,
        repr(rules.samples_per_insert),
        rules.insert_lead_episodes,
        rules.window_episodes,
        rules.window_bytes,
        rules.sampler.value,
        int(rules.accounted),
        rules.max_times_sampled,
        -1 if rules.max_age_versions is None else rules.max_age_versions,
    )


def _record(mark: bytes | None, head: bytes) -> EpisodeRecord | None:
    if mark is None:
        return None
    env_steps, stored_at_ms = map(int, mark.split())
    return EpisodeRecord(meta=wire.episode_meta(head), env_steps=env_steps, stored_at_s=stored_at_ms / 1000)


def _check_stream(answer: bytes) -> None:
    if answer == b"SUPERSEDED":
        raise StateConflictError("another Sample stream was opened; a table has one learner")


def _draws_text(draws: Draws) -> str:
    """Indices and importance weights as text that a script can take apart: "3 17 4|0.5 1.0 0.25"."""
    return f"{' '.join(map(str, draws.indices))}|{' '.join(map(repr, draws.importance))}"


def _draws(text: bytes) -> Draws:
    indices, importance = text.decode().split("|")
    return Draws(indices=tuple(map(int, indices.split())), importance=tuple(map(float, importance.split())))


def _view(tail: int, scores: bytes, env_steps: Reply, total: Reply) -> View:
    array = np.frombuffer(scores, dtype="<f8").astype(np.float64)
    return View(tail=tail, scores=array, progress=min(1.0, env_steps / total))
