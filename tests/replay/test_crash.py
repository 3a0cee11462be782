"""The service as a process that is killed: what was acknowledged is there afterwards, once."""

import asyncio
import signal
import sys
from contextlib import asynccontextmanager

import grpc
import psutil
import pytest

from protos import replay_pb2 as pb
from replay.settings import ReplaySettings
from tests.replay.running import Client, message

LEAD = ReplaySettings(insert_lead_episodes=10**6)


@asynccontextmanager
async def service(data_dir):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.replay.service_process", str(data_dir), LEAD.model_dump_json()),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        address = (await process.stdout.readline()).decode().strip()
        client = Client(address)
        yield process, client
        await client.channel.close()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def write(client, session, acknowledged, killable):
    """Inserts groups until the service is gone; counts what was acknowledged."""
    stream = client.inserting()
    try:
        while True:
            first = acknowledged[session] + 1
            await stream.send(*(message(seq, session=session) for seq in range(first, first + 3)))
            response = await stream.receive()
            assert {result.outcome for result in response.results} == {pb.INSERT_OUTCOME_STORED}
            acknowledged[session] += 3
            if acknowledged[session] >= 30:
                killable.set()
    except grpc.aio.AioRpcError as error:
        # INTERNAL: what grpc.aio says of a message that it was writing when the connection broke.
        assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL)


@pytest.mark.parametrize("its_redis_too", [False, True])
async def test_no_acknowledged_episode_is_lost_or_double(tmp_path, its_redis_too):
    acknowledged, killable = dict.fromkeys(("a", "b", "c"), 0), asyncio.Event()
    async with service(tmp_path) as (process, client):
        await client.register()
        await client.publish(3, data=b"three")
        writing = [
            asyncio.ensure_future(write(client, name, acknowledged, killable)) for name in acknowledged
        ]
        await killable.wait()
        (redis,) = psutil.Process(process.pid).children()
        if its_redis_too:
            redis.kill()
        process.kill()
        await asyncio.gather(*writing)
    async with service(tmp_path) as (process, client):
        before = (await client.status()).counters
        stored = sum(acknowledged.values())
        assert stored <= before.episodes <= stored + 3 * len(acknowledged), "one group each was on its way"
        for name, seq in acknowledged.items():
            await client.insert(*(message(seq, session=name) for seq in range(1, seq + 4)))
        after = (await client.status()).counters
        assert after.episodes == stored + 3 * len(acknowledged)
        assert after.env_steps == 5 * after.episodes
        assert (await client.fetch()).weights.data == b"three"
        (redis,) = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
        assert not redis.is_running(), "it ends with its service"
