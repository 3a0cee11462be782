"""Tables over real channels."""

import asyncio

import pytest
from grpc import StatusCode

from common.errors import FatalError
from protos import replay_pb2 as pb
from tests.replay.running import BATCH_SIZE, TIMEOUT_S, message, refused

QUEUE = {"sampler": "fifo", "limiter": "queue", "window_episodes": 12}


async def read_all(call):
    return [response async for response in call]


METHODS = pb.DESCRIPTOR.services_by_name["Replay"].methods_by_name


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("garbage", [b"\xff", b"\x0a\x7fcut", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"])
async def test_bytes_that_are_no_message_are_told_as_that(replay, method, garbage):
    async with replay() as client:
        await client.register()
        before = await client.status()
        path = f"/vdfd.v1.Replay/{method}"
        kind = METHODS[method]
        if kind.client_streaming:
            call = client.channel.stream_stream(path)(timeout=TIMEOUT_S)
            await call.write(garbage)
            answer = call.read()
        elif kind.server_streaming:
            answer = read_all(client.channel.unary_stream(path)(garbage, timeout=TIMEOUT_S))
        else:
            answer = client.channel.unary_unary(path)(garbage, timeout=TIMEOUT_S)
        with refused(StatusCode.INVALID_ARGUMENT, "request: is no "):
            await answer
        assert await client.status() == before


async def test_a_table_that_is_not_there_is_not_found(replay):
    async with replay(tables={"recent": {}}) as client:
        await client.register()
        stub, sampling = client.stub, client.sampling()
        await sampling.open(table="other", credits=1)
        for call in (
            client.insert(message(1), table="other"),
            sampling.batch(),
            stub.UpdatePriorities(pb.UpdatePrioritiesRequest(table="other"), timeout=TIMEOUT_S),
            stub.GetStats(pb.GetStatsRequest(table="other"), timeout=TIMEOUT_S),
            read_all(stub.ReadWindow(pb.ReadWindowRequest(table="other"), timeout=TIMEOUT_S)),
        ):
            with refused(StatusCode.NOT_FOUND, "table: there is no 'other'; there are default, recent"):
                await call
        assert (await client.status()).counters.episodes == 0


async def test_the_empty_name_is_the_default_table(replay):
    async with replay(tables={"recent": {}}, insert_lead_episodes=100) as client:
        await client.register()
        await client.insert(message(1), message(2))
        await client.insert(message(3), table="default")
        await client.insert(message(4), table="recent")
        status = await client.status()
        assert [(table.table, table.inserts) for table in status.tables] == [("default", 3), ("recent", 1)]
        assert (status.counters.episodes, status.window_episodes) == (4, 4)


async def test_a_group_that_waits_for_one_table_does_not_hold_up_another(replay):
    async with replay(tables={"recent": {}}, insert_lead_episodes=0) as client:
        await client.register()
        await client.insert(*(message(seq) for seq in range(1, 5)))
        waiting = client.inserting()
        await waiting.send(message(5))
        await client.insert(message(1, session="b"), table="recent")
        sampling = client.sampling()
        await sampling.open(credits=1)
        await waiting.receive()


async def queue_batches(client, count, *, consumed=0, prefetch=2):
    """Ids of so many batches, consumed one after the other as a learner does."""
    sampling = client.sampling()
    await sampling.open(credits=1 + prefetch, consumed=consumed, table="queue")
    ids = []
    for number in range(consumed, consumed + count):
        batch = await sampling.batch()
        assert batch.number == number
        ids += batch.ids
        await sampling.add_credits(consumed=number + 1)
    sampling.call.cancel()
    return ids


async def test_a_queue_is_back_pressure_and_every_episode_is_trained_on_once(replay):
    async with replay(tables={"queue": QUEUE}) as client:
        await client.register()

        async def write(session):
            stream = client.inserting()
            for seq in range(1, 41, 2):
                await stream.send(
                    message(seq, session=session), message(seq + 1, session=session), table="queue"
                )
                await stream.receive()

        writing = [asyncio.ensure_future(write(f"w{n}")) for n in range(3)]
        ids = await queue_batches(client, 3 * 40 // BATCH_SIZE)
        await asyncio.gather(*writing)
        assert len(ids) == len(set(ids)) == 120
        for writer in range(3):
            assert [seq for session, seq in ids if session == f"w{writer}"] == list(range(1, 41))


async def test_a_queue_survives_its_service_with_what_was_sent_and_not_consumed(replay):
    settings = {"tables": {"queue": QUEUE | {"max_age_versions": 2}}}
    async with replay(**settings) as client:
        await client.register()
        await client.insert(*(message(seq) for seq in range(1, 13)), table="queue")
        sampling = client.sampling()
        await sampling.open(credits=3, table="queue")
        before = [await sampling.batch() for _ in range(3)]
        held = (await client.status()).tables[1].window_bytes
        await sampling.add_credits(consumed=1)
        while (await client.status()).tables[1].window_bytes == held:
            pass  # until the service has heard of it
    async with replay(**settings) as client:
        again = client.sampling()
        await again.open(credits=3, consumed=1, table="queue")
        assert [(await again.batch()).ids for _ in range(2)] == [batch.ids for batch in before[1:]]
        await client.insert(*(message(seq, weights_version=9) for seq in range(13, 17)), table="queue")
        await client.insert(*(message(seq, weights_version=5) for seq in range(17, 21)), table="queue")
        fourth = await again.batch()
        assert fourth.ids == [("session-1", seq) for seq in range(17, 21)]
        assert (await client.status()).tables[1].dropped == 4


async def test_a_learner_cannot_have_consumed_what_was_not_sent(replay):
    async with replay(tables={"queue": QUEUE}) as client:
        await client.register()
        await client.insert(*(message(seq) for seq in range(1, 9)), table="queue")
        sampling = client.sampling()
        await sampling.open(credits=1, table="queue")
        await sampling.batch()
        await sampling.add_credits(0, consumed=2)
        with refused(StatusCode.INVALID_ARGUMENT, "consumed_batches: 2, but 1 were sent"):
            await sampling.batch()
        far = client.sampling()
        await far.open(credits=1, consumed=2**63, table="queue")
        with refused(StatusCode.INVALID_ARGUMENT, "open.consumed_batches: "):
            await far.batch()
        assert (await client.status()).tables[1].samples == BATCH_SIZE


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"sampler": "fifo"}, "tables.queue.limiter is queue in the stored run, but ratio was given"),
        (QUEUE | {"sampler": "uniform", "limiter": "ratio"}, "tables.queue.sampler is fifo"),
    ],
)
async def test_a_table_keeps_its_kind_over_a_run(replay, changes, problem):
    async with replay(tables={"queue": QUEUE}):
        pass
    with pytest.raises(FatalError, match=problem):
        async with replay(tables={"queue": changes}):
            pass
    async with replay(tables={"queue": QUEUE | {"window_episodes": 20, "max_age_versions": 3}, "new": {}}):
        pass
