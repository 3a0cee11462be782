"""All of a run's state in Redis: it survives the service, and several replicas may use it at once.

The steps themselves, and the keys, are in redis_scripts.py; those of a table are in redis_table.py.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from common import codec
from common.types import Counters, EnvSpec, Evaluation, Weights
from protos import replay_pb2 as pb
from replay import redis_scripts as scripts
from replay.changes import Changes
from replay.errors import RunMismatchError, StateConflictError, UnknownTableError
from replay.redis_connection import Argument
from replay.redis_link import RedisLink
from replay.redis_table import RedisTable
from replay.redis_table_scripts import COMMIT
from replay.settings import DEFAULT_TABLE
from replay.storage import (
    NO_WEIGHTS,
    Claim,
    Commit,
    Group,
    Outcome,
    Rules,
    RunParameters,
    RunStatus,
    StorageStats,
)
from replay.table import LimiterKind, SamplerKind, TableRules, TableStatus

STATE_FIELDS = ("env_steps", "weights_session", "weights_version")


class RedisStorage:
    """Implements Storage over a link that is connected."""

    def __init__(self, link: RedisLink, rules: Rules) -> None:
        self._link = link
        self._rules = rules
        self._tables = {
            name: RedisTable(link, table, list(rules.tables)) for name, table in rules.tables.items()
        }
        self._newest = NO_WEIGHTS

    @property
    def changes(self) -> Changes:
        """See Storage."""
        return self._link.changes

    @property
    def reachable(self) -> bool:
        """See Storage."""
        return self._link.reachable

    @property
    def epoch(self) -> int:
        """See Storage."""
        return self._link.epoch

    async def close(self) -> None:
        """See Storage."""
        await self._link.close()

    async def stats(self) -> StorageStats:
        """See Storage."""
        info = await self._link.info()
        last_writes = (info["aof_last_write_status"], info["aof_last_bgrewrite_status"])
        return StorageStats(
            memory_bytes=int(info["used_memory"]),
            memory_limit_bytes=int(info["maxmemory"]),
            writes_to_disk=info["aof_enabled"] == "1" and set(last_writes) == {"ok"},
            file_bytes=int(info.get("aof_current_size", 0)),
            latency=self._link.latency.stats(),
        )

    async def open_run(self, run: RunParameters) -> None:
        """See Storage."""
        compared: list[Argument] = []
        for name in ("batch_size", "seed"):
            compared += (name, "", repr(getattr(run, name)))
        for table in self._rules.tables.values():
            for name, before, value in _fixed(table):
                compared += (name, before, value)
        names = " ".join(self._tables)
        differs = await self._link.run(scripts.OPEN_RUN, run.total_env_steps, names, *compared)
        if differs:
            raise RunMismatchError(*(value.decode() for value in differs))

    async def register_spec(self, spec: EnvSpec) -> EnvSpec:
        """See Storage."""
        held = await self._link.run(scripts.REGISTER_SPEC, codec.spec_to_proto(spec).SerializeToString())
        return codec.spec_from_proto(pb.EnvSpec.FromString(held))

    async def spec(self) -> EnvSpec | None:
        """See Storage."""
        total, held = await self._link.command("HMGET", self._link.key("run"), "total_env_steps", "spec")
        if total is None:
            raise self._link.lost_run()
        return None if held is None else codec.spec_from_proto(pb.EnvSpec.FromString(held))

    async def status(self) -> RunStatus:
        """See Storage."""
        state, total, pending, tables = await self._state()
        return RunStatus(
            counters=_counters(state, total, tables),
            total_env_steps=total,
            tables=tables,
            evaluations_pending=pending,
        )

    def table(self, name: str) -> RedisTable:
        """See Storage."""
        if name not in self._tables:
            raise UnknownTableError(name, self._tables)
        return self._tables[name]

    async def commit(self, group: Group, *, again: bool) -> Commit:
        """See Storage. What was held back asks whether it may enter before it is sent again."""
        reply = await self._commit(group, with_blobs=not again)
        if reply[0] == b"MISSING":
            reply = await self._commit(group, with_blobs=True)
        return _commit(reply)

    async def _commit(self, group: Group, *, with_blobs: bool) -> list[Any]:
        arguments: list[Argument] = [
            *self.table(group.table).script_arguments,
            *(self._rules.evaluation_interval, int(group.imported)),
        ]
        for episode in group.episodes:
            meta, blob = episode.meta, episode.blob
            arguments += (
                *(meta.session, _decimal(meta.seq), meta.length),
                *(len(blob), meta.weights_version, blob if with_blobs else b""),
            )
        reply: list[Any] = await self._link.run(COMMIT, *arguments, bulk=True)
        return reply

    async def now_s(self) -> float:
        """See Storage."""
        seconds, microseconds = await self._link.command("TIME")
        return int(seconds) + int(microseconds) / 1e6

    async def publish_weights(self, weights: Weights) -> None:
        """See Storage."""
        version = _decimal(weights.version)
        arguments = (weights.session, version, weights.data)
        newer = await self._link.run(scripts.PUBLISH_WEIGHTS, *arguments, bulk=True)
        if newer:
            raise StateConflictError(f"version {weights.version} is older than the newest, {int(newer)}")

    async def newest_weights(self, have: Weights) -> tuple[Weights, Counters]:
        """See Storage. Keeps a copy, since every actor asks for the same."""
        while True:
            state, total, _, tables = await self._state()
            session, version = state["weights_session"].decode(), int(state["weights_version"])
            newest = Weights(session=session, version=version)
            if version and newest != replace(have, data=b""):
                if newest != replace(self._newest, data=b""):
                    data = await self._weights_data(newest)
                    if data is None:  # replaced since; look again
                        continue
                    self._newest = replace(newest, data=data)
                newest = self._newest
            return newest, _counters(state, total, tables)

    async def claim_evaluation(self) -> Claim:
        """See Storage."""
        while True:
            lease_ms = int(self._rules.evaluation_lease_s * 1000)
            point, weights_id, *rest = await self._link.run(scripts.CLAIM_EVALUATION, lease_ms)
            if not point:
                wait_ms, run_complete = rest
                wait_s = None if wait_ms < 0 else wait_ms / 1000
                return _claim(None, NO_WEIGHTS, wait_s, run_complete=bool(run_complete))
            session, version = weights_id.decode().split(" ")
            weights = Weights(session=session, version=int(version))
            data = await self._weights_data(weights)
            if data is not None:  # else it was reported since; take the next
                return _claim(int(point), replace(weights, data=data), None, run_complete=False)

    async def report_evaluation(self, evaluation: Evaluation) -> None:
        """See Storage."""
        message = codec.evaluation_to_proto(evaluation).SerializeToString()
        if not await self._link.run(scripts.REPORT_EVALUATION, evaluation.env_steps, message):
            raise StateConflictError(f"no evaluation is due at {evaluation.env_steps} environment steps")

    async def evaluations(self) -> list[Evaluation]:
        """See Storage."""
        messages = await self._link.command("HVALS", self._link.key("results"))
        results = [codec.evaluation_from_proto(pb.Evaluation.FromString(message)) for message in messages]
        return sorted(results, key=lambda result: result.env_steps)

    async def _state(self) -> tuple[dict[str, bytes], int, int, tuple[TableStatus, ...]]:
        """The state hash, total_env_steps, how many evaluations are due, and the tables."""
        key = self._link.key
        state, total, pending, *replies = await self._link.transaction(
            ("HMGET", key("state"), *STATE_FIELDS),
            ("HGET", key("run"), "total_env_steps"),
            ("ZCARD", key("due")),
            *(table.state_command for table in self._tables.values()),
        )
        if total is None or None in state:
            raise self._link.lost_run()
        tables = tuple(
            table.figures(reply) for table, reply in zip(self._tables.values(), replies, strict=True)
        )
        return dict(zip(STATE_FIELDS, state, strict=True)), int(total), pending, tables

    async def _weights_data(self, weights: Weights) -> bytes | None:
        key = self._link.key(f"weights:{weights.session} {_decimal(weights.version)}")
        data: bytes | None = await self._link.command("GET", key)
        return data


def _decimal(number: int) -> str:
    return f"{number:020d}"


def _fixed(rules: TableRules) -> Iterator[tuple[str, str, str]]:
    """What a table must keep over a run's life: name, what it is in a run that does not say it yet, value."""
    whose = "" if rules.name == DEFAULT_TABLE else f"tables.{rules.name}."
    new = rules.name != DEFAULT_TABLE
    for name, usual, value in (
        ("sampler", SamplerKind.UNIFORM.value, rules.sampler.value),
        ("limiter", LimiterKind.RATIO.value, rules.limiter.value),
        ("max_times_sampled", "0", str(rules.max_times_sampled)),
        ("samples_per_insert", "", "" if rules.queue else repr(rules.samples_per_insert)),
    ):
        yield whose + name, value if new else usual, value


def _counters(state: dict[str, bytes], total_env_steps: int, tables: Sequence[TableStatus]) -> Counters:
    env_steps = int(state["env_steps"])
    return Counters(
        env_steps=env_steps,
        episodes=sum(table.inserts for table in tables),
        samples=sum(table.samples for table in tables),
        weights_version=int(state["weights_version"]),
        run_complete=env_steps >= total_env_steps,
    )


def _commit(reply: list[Any]) -> Commit:
    answer, first_index, tail, env_steps, head, samples, version, total = reply
    held_back = answer == b"HELD"
    return Commit(
        held_back=held_back,
        outcomes=() if held_back else tuple(Outcome(letter) for letter in answer.decode()),
        first_index=first_index,
        tail=tail,
        counters=Counters(
            env_steps=env_steps,
            episodes=head,
            samples=samples,
            weights_version=int(version),
            run_complete=env_steps >= total,
        ),
    )


def _claim(env_steps: int | None, weights: Weights, wait_s: float | None, *, run_complete: bool) -> Claim:
    return Claim(env_steps=env_steps, weights=weights, retry_after_s=wait_s, run_complete=run_complete)
