"""Two replicas over one Redis as processes, with clients in processes of their own; one replica is killed."""

import asyncio
import itertools
import sys

import grpc
import pytest

from protos import replay_pb2 as pb
from replay.settings import ReplaySettings
from tests.replay.running import BATCH_SIZE, TIMEOUT_S, Client

EPISODES, LENGTH, WINDOW = 600, 5, 60
PREFETCH = 2
WRITERS = {"default": ("d0", "d1", "d2"), "queue": ("q0", "q1")}


@pytest.fixture
async def start():
    """Starts Python modules as processes; kills at the end what still runs."""
    processes = []

    async def started(*arguments):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", *arguments, stdout=asyncio.subprocess.PIPE
        )
        processes.append(process)
        return process

    yield started
    for process in processes:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def line(process):
    return (await process.stdout.readline()).decode().strip()


class Learner:
    """Trains on a table until the run is complete; goes to the next replica when its own is gone."""

    def __init__(self, addresses, table) -> None:
        self.addresses, self.table = addresses, table
        self.batches = []
        self.changed = asyncio.Event()

    async def run(self):
        places = itertools.chain(self.addresses, itertools.repeat(self.addresses[-1]))
        while True:
            client = Client(next(places))
            try:
                await self._read(client)
                return
            except grpc.aio.AioRpcError as error:
                # INTERNAL: what grpc.aio says of a message that it was writing when the stream ended.
                assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL), error
            finally:
                await client.channel.close()

    async def _read(self, client):
        stream = client.sampling()
        await stream.open(credits=1 + PREFETCH, consumed=len(self.batches), table=self.table)
        while batch := await stream.batch():
            assert batch.number == len(self.batches)
            self.batches.append(batch.ids)
            self.changed.set()
            await stream.add_credits(consumed=len(self.batches))

    async def until(self, batches):
        while len(self.batches) < batches:
            self.changed.clear()
            await self.changed.wait()


async def window_of(client, table):
    call = client.stub.ReadWindow(pb.ReadWindowRequest(table=table), timeout=TIMEOUT_S)
    stored = [one async for response in call for one in response.episodes]
    ids = [(one.episode.meta.session, one.episode.meta.seq) for one in stored]
    return ids, [one.number for one in stored]


async def test_a_killed_replica_loses_nothing_and_the_other_keeps_every_count(start, redis_url, prefix):
    settings = ReplaySettings(
        redis_url=redis_url,
        redis_prefix=prefix,
        samples_per_insert=4,
        insert_lead_episodes=6,
        window_episodes=WINDOW,
        tables={"queue": {"sampler": "fifo", "limiter": "queue", "window_episodes": 24}},
    ).model_dump_json()
    service = ("tests.replay.service_process", "unused", settings, str(EPISODES * LENGTH))
    killed, survivor = [await start(*service) for _ in range(2)]
    addresses = [await line(killed), await line(survivor)]
    client = Client(addresses[1])
    await client.register()
    writing = {
        session: await start(
            "tests.replay.writer_process", ",".join(addresses[:: 1 - 2 * (n % 2)]), session, table
        )
        for table, sessions in WRITERS.items()
        for n, session in enumerate(sessions)
    }
    learners = {table: Learner(addresses, table) for table in WRITERS}
    learning = [asyncio.ensure_future(learner.run()) for learner in learners.values()]
    await learners["default"].until(50)
    await learners["queue"].until(8)
    killed.kill()
    await asyncio.gather(*learning)
    acknowledged = {session: int(await line(process)) for session, process in writing.items()}

    status = await client.status()
    default, queue = status.tables
    for table in status.tables:
        stored = sum(acknowledged[session] for session in WRITERS[table.table])
        assert table.inserts == stored, "none lost, none double"
    assert default.inserts + queue.inserts == status.counters.episodes == EPISODES
    assert default.samples == 4 * default.inserts == 4 * len(learners["default"].batches)
    assert default.window_episodes == WINDOW
    ids, numbers = await window_of(client, "default")
    assert len(set(ids)) == WINDOW
    assert numbers == list(range(default.inserts - WINDOW, default.inserts))

    handed_out = [one for batch in learners["queue"].batches for one in batch]
    assert len(handed_out) == len(set(handed_out)) == queue.samples, "each once"
    assert queue.inserts - BATCH_SIZE < len(handed_out) <= queue.inserts
    for session in WRITERS["queue"]:
        seqs = [seq for whose, seq in handed_out if whose == session]
        assert seqs == list(range(1, len(seqs) + 1)), "in order, without a gap"
    await client.channel.close()
