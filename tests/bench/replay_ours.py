"""This replay service under the load of replay_speed.py, as a program.

    python -m tests.bench.replay_ours SHAPE FSYNC

The service runs with a Redis of its own, which appends to a file and syncs as FSYNC says. Writers are the
actors' ReplayWriter, the sampler is the learner's ReplayReader, each in a process of its own over loopback.
An insert counts when it is acknowledged, a batch when its arrays are decoded and handed out.
"""

import dataclasses
import sys
import tempfile
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import psutil
import uvloop

from actor.replay_writer import ReplayWriter
from actor.settings import ActorSettings
from common import rpc
from common.codec import spec_to_proto
from common.lifecycle import StopSignal
from common.settings import RpcSettings
from common.types import EnvSpec, Episode, EpisodeMeta
from learner.malloc import keep_freed_memory
from learner.replay_reader import ReplayReader
from learner.settings import LearnerSettings
from protos import replay_pb2 as pb
from protos.replay_pb2_grpc import ReplayStub
from replay.server import serve
from replay.settings import ReplaySettings
from tests.bench.replay_episodes import SHAPES, make_arrays
from tests.bench.replay_workers import (
    BATCH,
    EPISODES_PER_WRITER,
    FILL_EPISODES,
    MAX_WRITERS,
    SPAWN,
    Worker,
    answer_requests,
)

ACTOR = ActorSettings(queue_episodes=128, queue_bytes=256 * 1024 * 1024)
NO_LIMIT = 10**9
TIMEOUT_S = 120.0


def spec_of(shape_name: str) -> EnvSpec:
    shape = SHAPES[shape_name]
    return EnvSpec(
        env="synthetic",
        map=shape_name,
        n_agents=shape.agents,
        n_actions=shape.actions,
        obs_size=shape.obs,
        state_size=shape.state,
        episode_limit=shape.steps,
        fallback_action=1,
    )


def make_episode(shape_name: str, seed: int, session: str) -> Episode:
    arrays = make_arrays(SHAPES[shape_name], seed)
    meta = EpisodeMeta(
        session=session,
        seq=1,
        actor=session,
        seed=seed,
        weights_version=0,
        length=len(arrays["reward"]),
        episode_return=float(arrays["reward"].sum(dtype="f8")),
        won=False,
        terminated=True,
    )
    fields = {name: arrays[name] for name in ("obs", "state", "avail_actions", "reward")}
    return Episode(meta=meta, actions=arrays["actions"].astype("u1"), **fields)


def started_service(shape_name: str, fsync: str, data_dir: str, window: int) -> tuple[BaseProcess, str]:
    """The service as a process, which ends with this one, and its address."""
    addresses = SPAWN.Queue()
    service = SPAWN.Process(target=run_service, args=(window, fsync, data_dir, addresses), daemon=True)
    service.start()
    return service, addresses.get(timeout=TIMEOUT_S)


def run_service(window: int, fsync: str, data_dir: str, address: "Queue[str]") -> None:
    settings = ReplaySettings(
        redis_appendfsync=fsync,
        window_episodes=window,
        samples_per_insert=NO_LIMIT,
        insert_lead_episodes=NO_LIMIT,
        evaluation_interval=NO_LIMIT,
    )
    uvloop.run(
        serve(
            settings,
            RpcSettings(address="127.0.0.1:0"),
            seed=1,
            total_env_steps=NO_LIMIT,
            batch_size=BATCH,
            data_dir=Path(data_dir),
            stop=StopSignal(),
            on_ready=address.put,
        )
    )


class Writing:
    """An actor's writer, without the play."""

    def __init__(self, address: str, shape_name: str, number: int) -> None:
        session = f"writer-{number}"
        self._episodes = [
            make_episode(shape_name, 100 * number + i, session) for i in range(EPISODES_PER_WRITER)
        ]
        rpc_settings = RpcSettings(address=address)
        channel = rpc.channel(rpc_settings)
        self.writer = ReplayWriter(channel, ACTOR, rpc_settings, stop=StopSignal())
        self._put = 0

    def step(self, mode: int) -> None:
        episode = self._episodes[self._put % EPISODES_PER_WRITER]
        self._put += 1
        meta = dataclasses.replace(episode.meta, seq=self._put)
        assert self.writer.put(dataclasses.replace(episode, meta=meta))

    def done(self) -> int:
        return self.writer.stats().stored


class Sampling:
    """The learner's reader, without the training."""

    def __init__(self, address: str, shape_name: str) -> None:
        keep_freed_memory()  # as a learner does
        rpc_settings = RpcSettings(address=address)
        self._reader = ReplayReader(
            rpc.channel(rpc_settings),
            rpc_settings,
            spec_of(shape_name),
            batch_size=BATCH,
            prefetch_batches=LearnerSettings().prefetch_batches,
        )
        self._done = 0
        self.step(0)

    def step(self, mode: int) -> None:
        batch = next(self._reader)
        assert batch.batch_size == BATCH
        self._done += 1

    def done(self) -> int:
        return self._done


def register(address: str, shape_name: str) -> None:
    with rpc.channel(RpcSettings(address=address)) as channel:
        request = pb.RegisterSpecRequest(spec=spec_to_proto(spec_of(shape_name)))
        ReplayStub(channel).RegisterSpec(request, timeout=TIMEOUT_S)


def fill(address: str, shape_name: str) -> None:
    filling = Writing(address, shape_name, 0)
    for _ in range(FILL_EPISODES):
        filling.step(0)
    assert filling.writer.drain(TIMEOUT_S)
    filling.writer.close()


def main(shape_name: str, fsync: str) -> None:
    with tempfile.TemporaryDirectory(dir=".", prefix=".bench-") as data_dir:  # /tmp may be memory
        service, address = started_service(shape_name, fsync, data_dir, SHAPES[shape_name].window)
        try:
            register(address, shape_name)
            fill(address, shape_name)
            answer(address, shape_name, service)
        finally:
            service.terminate()
            service.join(20)


def answer(address: str, shape_name: str, service: BaseProcess) -> None:
    writers = [Worker(Writing, address, shape_name, n + 1) for n in range(MAX_WRITERS)]
    sampler = Worker(Sampling, address, shape_name)

    def choose(request: dict[str, Any]) -> dict[str, tuple[list[Worker], int]]:
        samplers = [] if request["kind"] == "insert" else [sampler]
        return {"writers": (writers[: request["writers"]], 0), "samplers": (samplers, 0)}

    try:
        for worker in (*writers, sampler):
            worker.start()
        for worker in (*writers, sampler):
            worker.await_ready()
        redis = psutil.Process(service.pid).children(recursive=True)
        answer_requests(choose, {"service": [service.pid], "redis": [child.pid for child in redis]})
    finally:
        for worker in (*writers, sampler):
            worker.end()


if __name__ == "__main__":
    main(*sys.argv[1:])
