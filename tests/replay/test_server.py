"""How the service starts, tells its health, and ends."""

import asyncio
import os
import signal

import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc

from common.errors import BadInputError, FatalError
from common.lifecycle import StopSignal
from common.settings import RpcSettings
from protos import replay_pb2 as pb
from replay.redis_server import redis_server
from replay.server import serve
from replay.settings import ReplaySettings
from tests.replay.running import TIMEOUT_S, Client, message, refused, serving


async def starts(**kwargs):
    async with serving(**kwargs):
        pass


async def test_a_port_that_is_taken(replay):
    async with replay() as client:
        with pytest.raises(FatalError, match=rf"Cannot listen on {client.address}: .*rpc\.address"):
            await starts(rpc_settings=RpcSettings(address=client.address))


async def test_a_redis_that_is_not_there(tmp_path):
    url = f"unix://{tmp_path}/none.sock"
    with pytest.raises(FatalError, match=r"none\.sock.*replay\.redis_url"):
        await starts(redis_url=url, redis_connect_timeout_s=0.05)


async def test_an_end_while_redis_is_waited_for(tmp_path):
    stop, ready = StopSignal(), asyncio.Event()
    settings = ReplaySettings(redis_url=f"unix://{tmp_path}/none.sock", redis_connect_timeout_s=10**6)
    parameters = {"seed": 1, "total_env_steps": 1, "batch_size": 1, "data_dir": tmp_path, "stop": stop}
    service = asyncio.ensure_future(
        serve(settings, RpcSettings(), **parameters, on_ready=lambda _: ready.set())
    )
    await asyncio.sleep(0)
    stop.set()
    await service
    assert not ready.is_set()


async def test_a_directory_that_cannot_be_used(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FatalError, match=r"Cannot start .*file"):
        await starts(redis_url="", data_dir=tmp_path / "file")


async def test_an_address_that_is_no_redis():
    with pytest.raises(BadInputError, match="postgres"):
        await starts(redis_url="postgres://localhost")


async def test_a_window_smaller_than_a_batch():
    with pytest.raises(FatalError, match="window_episodes"):
        await starts(window_episodes=3)


async def test_a_restart_goes_on_and_must_not_change_the_run(replay):
    async with replay(total_env_steps=100) as client:
        await client.register()
        await client.insert(message(1), message(2))
    with pytest.raises(FatalError, match="seed is 1 in the stored run, but 2 was given"):
        await starts(**replay.keywords, seed=2)
    async with replay(total_env_steps=50) as client:
        status = await client.status()
        assert (status.counters.episodes, status.total_env_steps) == (2, 50)
        await client.insert(message(3))


async def test_draining_ends_what_waits_and_refuses_what_is_held_back(replay):
    async with replay(insert_lead_episodes=0) as client:
        await client.register()
        await client.insert(*(message(seq) for seq in range(1, 5)))
        idle, held, sampling = client.inserting(), client.inserting(), client.sampling()
        await idle.send(message(1, session="session-1"))
        await idle.receive()
        await held.send(message(5))
        await sampling.open()
        held_back, waiting = asyncio.ensure_future(held.receive()), asyncio.ensure_future(sampling.batch())
        idle_end = asyncio.ensure_future(idle.receive())
        fetching = asyncio.ensure_future(client.fetch(wait_ms=30_000))
        claiming = asyncio.ensure_future(client.claim(wait_ms=30_000))
        await client.status()  # the calls before have arrived
        client.stop.set()
        assert (await fetching).weights.version == 0
        assert not (await claiming).due
        for ending in (held_back, waiting, idle_end):
            with refused(StatusCode.UNAVAILABLE, "the replay service is shutting down"):
                await ending
        await client.service
    async with replay() as client:
        assert (await client.status()).counters.episodes == 4


async def health(client, service=""):
    stub = health_pb2_grpc.HealthStub(client.channel)
    return (await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT_S)).status


async def changed_health(client, to):
    stub = health_pb2_grpc.HealthStub(client.channel)
    request = health_pb2.HealthCheckRequest(service="vdfd.v1.Replay")
    watching = stub.Watch(request, timeout=TIMEOUT_S)
    async for response in watching:
        if response.status == to:
            watching.cancel()
            return


SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def test_health_follows_redis_and_the_service_recovers(tmp_path):
    async with redis_server(tmp_path) as server:
        settings = {"redis_url": server.url, "redis_timeout_s": 2.0}
        async with serving(**settings) as client:
            await client.register()
            await client.insert(message(1))
            assert await health(client) == await health(client, "vdfd.v1.Replay") == SERVING
            os.kill(server.pid, signal.SIGKILL)
            await changed_health(client, NOT_SERVING)
            with refused(StatusCode.UNAVAILABLE, "Redis at"):
                await client.status()
            with refused(StatusCode.UNAVAILABLE, "Redis at"):
                await client.insert(message(2))
            async with redis_server(tmp_path):
                await changed_health(client, SERVING)
                await client.insert(message(1), message(2))
                assert (await client.status()).counters.episodes == 2


@pytest.mark.parametrize("name", ["a b#c?d%20é", "long" * 40])  # no Unix socket can have such a long path
async def test_the_service_keeps_its_own_redis_and_its_data(tmp_path, name):
    data_dir = tmp_path / name
    for expected in (1, 2):
        async with serving(redis_url="", data_dir=data_dir) as client:
            await client.register()
            await client.insert(message(1), message(expected))
            assert (await client.status()).counters.episodes == expected


async def test_two_services_cannot_share_a_directory(tmp_path, monkeypatch):
    monkeypatch.setattr("replay.redis_server.LOCK_TIMEOUT_S", 0.05)
    async with serving(redis_url="", data_dir=tmp_path) as client:
        with pytest.raises(FatalError, match="Another replay service keeps its data"):
            await starts(redis_url="", data_dir=tmp_path)
        await client.register()


async def test_a_message_over_the_limit_is_refused_and_the_service_lives_on():
    rpc_settings = RpcSettings(address="127.0.0.1:0", max_message_bytes=10_000)
    async with serving(rpc_settings=rpc_settings) as client:
        large = Client(client.address)
        with refused(StatusCode.RESOURCE_EXHAUSTED):
            await large.publish(1, data=bytes(20_000))
        await large.channel.close()
        await client.publish(1, data=bytes(5_000))


async def test_two_replicas_over_one_redis_are_one_service(replay):
    settings = {
        "samples_per_insert": 4,
        "insert_lead_episodes": 3,
        "total_env_steps": 5 * 40,
        "evaluation_interval": 50,
    }
    async with replay(**settings) as one, replay(**settings) as two:
        await one.register()

        async def write(client, session):
            """Every group is sent twice, once to each replica."""
            sent = client.inserting(), (two if client is one else one).inserting()
            for seq in range(1, 1000, 2):
                group = message(seq, session=session), message(seq + 1, session=session)
                for stream in sent:
                    await stream.send(*group)
                responses = [await stream.receive() for stream in sent]
                if responses[1].counters.run_complete:
                    return

        sampling, batches = two.sampling(), 0
        await sampling.open(credits=1000)
        writing = [asyncio.ensure_future(write(client, f"w{n}")) for n, client in enumerate((one, two, one))]
        while batch := await sampling.batch():
            assert batch.number == batches
            assert len(set(batch.ids)) == 4
            batches += 1
        await asyncio.gather(*writing)
        first, second = await one.status(), await two.status()
        assert first.counters == second.counters
        assert (first.counters.episodes, first.samples_per_insert, batches) == (40, 4.0, 40)
        stored = [sum(actor.episodes for actor in status.actors) for status in (first, second)]
        assert sum(stored) == 40 and min(stored) > 0, "each id was stored by one replica only"

        await one.publish(1)
        claims = await asyncio.gather(*(client.claim(wait_ms=1) for client in (one, two) * 3))
        assert sorted(claim.env_steps for claim in claims if claim.due) == [50, 100, 150, 200]
        waiting = asyncio.ensure_future(two.fetch(have_session="learner-1", have_version=1, wait_ms=30_000))
        await one.publish(2)
        assert (await waiting).weights.version == 2


async def test_a_call_that_the_client_gives_up_leaves_the_service_usable(replay):
    async with replay(insert_lead_episodes=0) as client:
        await client.register()
        await client.insert(*(message(seq) for seq in range(1, 5)))
        for _ in range(5):
            stream = client.stub.Insert(timeout=0.02)
            await stream.write(pb.InsertRequest(episodes=[message(5)]))
            with refused(StatusCode.DEADLINE_EXCEEDED):
                await stream.read()
        sampling = client.sampling()
        await sampling.open(credits=1)
        await sampling.batch()
        response = await client.insert(message(5))
        assert response.results[0].outcome in (pb.INSERT_OUTCOME_STORED, pb.INSERT_OUTCOME_DUPLICATE)
        assert (await client.status()).counters.episodes == 5
