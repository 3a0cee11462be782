"""Many actors on one replay service for minutes: does it answer, lose nothing, and stay as large as it is?

    python -m tests.bench.replay_soak [--actors 512] [--seconds 300] [--period 10] [--shape 3m]

Every actor is an asyncio client with a connection of its own that sends one episode about every `period`
seconds and waits for its acknowledgement. The service runs in a process of its own with a Redis on
appendfsync everysec and a window that is full after the first minute, so that its memory has to stay as it
is. A checker reads what was stored, in order, and counts every id. The last line is one JSON object.
"""

import argparse
import asyncio
import collections
import dataclasses
import json
import random
import tempfile
import time

import grpc.aio
import numpy as np
import psutil

from common import rpc
from common.codec import episode_to_proto
from common.payload import encode_episode
from common.settings import RpcSettings
from protos import replay_pb2 as pb
from protos.replay_pb2_grpc import ReplayStub
from tests.bench.replay_episodes import SHAPES
from tests.bench.replay_ours import TIMEOUT_S, make_episode, register, started_service

WINDOW_EPISODES = 2048
EPISODES = 64
"""Different ones, which the actors send again and again under new ids."""
LOOK_EVERY_S = 10.0

Ids = collections.Counter[tuple[str, int]]


class Actor:
    """One client."""

    def __init__(self, address: str, name: str, messages: list[pb.Episode]) -> None:
        self._channel = rpc.aio_channel(RpcSettings(address=address))
        self._call = ReplayStub(self._channel).Insert(timeout=3600)
        self._name, self._messages, self._seq = name, messages, 0
        self.acknowledged = Ids()
        self.latencies_s: list[float] = []

    async def play(self, period_s: float, until_s: float) -> None:
        """Sends an episode whenever one is finished. Raises if one is not stored."""
        rng = random.Random(self._name)
        due = time.monotonic() + rng.uniform(0, period_s)
        while due < until_s:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await self._send()
            due += period_s * rng.uniform(0.8, 1.2)
        await self._call.done_writing()
        if await self._call.code() is not grpc.StatusCode.OK:
            raise RuntimeError(f"{self._name}: {await self._call.details()}")
        await self._channel.close()

    async def _send(self) -> None:
        self._seq += 1
        message = pb.Episode.FromString(self._messages[self._seq % len(self._messages)].SerializeToString())
        message.meta.session, message.meta.seq, message.meta.actor = self._name, self._seq, self._name
        began = time.monotonic()
        await self._call.write(pb.InsertRequest(episodes=[message]))
        response = await self._call.read()
        self.latencies_s.append(time.monotonic() - began)
        outcomes = [result.outcome for result in response.results]
        if outcomes != [pb.INSERT_OUTCOME_STORED]:
            raise RuntimeError(f"{self._name}: episode {self._seq} was answered with {response}")
        self.acknowledged[self._name, self._seq] += 1


@dataclasses.dataclass
class Looks:
    """What was seen of the service."""

    stored: Ids = dataclasses.field(default_factory=Ids)
    next_index: int = 0
    rss_mb: list[float] = dataclasses.field(default_factory=list)
    cores: list[float] = dataclasses.field(default_factory=list)


async def look(stub: ReplayStub, looks: Looks) -> None:
    """Counts the ids that were stored since the last look."""
    request = pb.ReadWindowRequest(begin=looks.next_index)
    async for response in stub.ReadWindow(request, timeout=TIMEOUT_S):
        for stored in response.episodes:
            if stored.number != looks.next_index:
                raise RuntimeError(f"episode {looks.next_index} left the window before it was looked at")
            looks.stored[stored.episode.meta.session, stored.episode.meta.seq] += 1
            looks.next_index += 1


async def watch(stub: ReplayStub, service: psutil.Process, looks: Looks) -> None:
    """Looks again and again, until it is cancelled."""
    cpu, then = sum(service.cpu_times()[:2]), time.monotonic()
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        await look(stub, looks)
        cpu_now, now = sum(service.cpu_times()[:2]), time.monotonic()
        looks.cores.append((cpu_now - cpu) / (now - then))
        looks.rss_mb.append(service.memory_info().rss / 2**20)
        cpu, then = cpu_now, now


async def soak(address: str, service_pid: int, a: argparse.Namespace) -> dict[str, object]:
    episodes = [make_episode(a.shape, seed, "soak") for seed in range(EPISODES)]
    messages = [episode_to_proto(encode_episode(episode)) for episode in episodes]
    actors = [Actor(address, f"actor-{n}", messages) for n in range(a.actors)]
    async with rpc.aio_channel(RpcSettings(address=address)) as channel:
        looks, stub = Looks(), ReplayStub(channel)
        watching = asyncio.ensure_future(watch(stub, psutil.Process(service_pid), looks))
        until = time.monotonic() + a.seconds
        playing = asyncio.gather(*(actor.play(a.period, until) for actor in actors))
        await asyncio.wait((watching, playing), return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            watching.result()
        watching.cancel()
        await playing
        await look(stub, looks)
        status = await stub.GetStatus(pb.GetStatusRequest(), timeout=TIMEOUT_S)
    return figures(actors, looks, status)


def figures(actors: list[Actor], looks: Looks, status: pb.GetStatusResponse) -> dict[str, object]:
    acknowledged = Ids()
    for actor in actors:
        acknowledged.update(actor.acknowledged)
    latencies_ms = 1e3 * np.concatenate([actor.latencies_s for actor in actors])
    warm = len(looks.rss_mb) // 3
    return {
        "actors": len(actors),
        "acknowledged": acknowledged.total(),
        "stored": looks.stored.total(),
        "lost": len(acknowledged - looks.stored),
        "doubled": sum(count - 1 for count in looks.stored.values()),
        "duplicates": status.duplicates,
        "rejected": status.rejected,
        "latency_ms": {f"p{q}": round(float(np.percentile(latencies_ms, q)), 1) for q in (50, 90, 99, 100)},
        "service_cores": round(float(np.mean(looks.cores)), 3),
        "rss_mb_after_a_third": round(looks.rss_mb[warm], 1),
        "rss_mb_at_the_end": round(looks.rss_mb[-1], 1),
        "rss_mb_most": round(max(looks.rss_mb), 1),
        "rss_mb": [round(rss) for rss in looks.rss_mb],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--actors", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--period", type=float, default=10.0)
    parser.add_argument("--shape", choices=list(SHAPES), default="3m")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".", prefix=".bench-") as data_dir:  # /tmp may be memory
        service, address = started_service(a.shape, "everysec", data_dir, WINDOW_EPISODES)
        try:
            register(address, a.shape)
            result = asyncio.run(soak(address, service.pid, a))
        finally:
            service.terminate()
            service.join(20)
    print(json.dumps(result))
    if result["lost"] or result["doubled"] or result["acknowledged"] != result["stored"]:
        raise SystemExit("episodes were lost or doubled")


if __name__ == "__main__":
    main()
