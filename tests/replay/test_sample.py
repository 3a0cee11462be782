"""Batches out, over real channels."""

import asyncio

import pytest
from grpc import StatusCode

from protos import replay_pb2 as pb
from replay.wire import CHUNK_BYTES
from tests.episodes import EnvSpec, make_episode
from tests.replay.running import BATCH_SIZE, TIMEOUT_S, codec, message, payload, refused


async def fill(client, episodes, *, session="session-1", first=1):
    return await client.insert(*(message(seq, session=session) for seq in range(first, first + episodes)))


async def test_a_batch_is_what_was_inserted(replay):
    async with replay() as client:
        await client.register()
        sent = {seq: message(seq) for seq in range(1, 9)}
        await client.insert(*sent.values())
        stream = client.sampling()
        await stream.open(credits=2)
        for number in range(2):
            batch = await stream.batch()
            assert batch.number == number
            assert len(set(batch.ids)) == BATCH_SIZE, "without replacement"
            for episode in batch.responses[0].episodes:
                assert episode == sent[episode.meta.seq]


async def test_no_more_batches_than_credits(replay):
    async with replay(samples_per_insert=100) as client:
        await client.register()
        await fill(client, 4)
        stream = client.sampling()
        await stream.open(credits=2)
        await stream.batch(), await stream.batch()
        third = asyncio.ensure_future(stream.batch())
        await client.insert(message(1, session="b"))
        assert (await client.status()).counters.samples == 2 * BATCH_SIZE
        assert not third.done()
        await stream.add_credits(3)
        assert (await third).number == 2
        assert [(await stream.batch()).number for _ in range(2)] == [3, 4]


@pytest.mark.parametrize("writers", [1, 2, 4])
async def test_the_ratio_is_exact_with_any_number_of_writers(replay, writers):
    async with replay(samples_per_insert=8, insert_lead_episodes=2, total_env_steps=5 * 48) as client:
        await client.register()

        async def write(session):
            stream = client.inserting()
            for seq in range(1, 1000):
                await stream.send(message(seq, session=session))
                if (await stream.receive()).counters.run_complete:
                    return

        stream, batches = client.sampling(), 0
        await stream.open(credits=10_000)
        writing = [asyncio.ensure_future(write(f"w{n}")) for n in range(writers)]
        while await stream.batch():
            batches += 1
        await asyncio.gather(*writing)
        status = await client.status()
        assert (status.counters.episodes, status.samples_per_insert) == (48, 8.0)
        assert batches == 8 * 48 // BATCH_SIZE


async def test_the_end_of_the_run_comes_after_the_last_batch_and_needs_no_credit(replay):
    async with replay(total_env_steps=40) as client:
        await client.register()
        stream = client.sampling()
        await stream.open(credits=2)
        await fill(client, 8)
        assert [(await stream.batch()).number for _ in range(2)] == [0, 1]
        assert await stream.batch() is None
        assert await stream.call.code() is StatusCode.OK
        late = client.sampling()
        await late.open(consumed=2)
        assert await late.batch() is None


async def test_a_stream_that_the_limiter_holds_is_told_so_once(replay):
    async with replay() as client:
        await client.register()
        await fill(client, 4)
        stream = client.sampling()
        await stream.open(credits=2)
        assert (await stream.batch()).number == 0
        assert stream.limiter == []
        second = asyncio.ensure_future(stream.batch())
        for seq in range(5, 9):
            await client.insert(message(seq))
        assert (await second).number == 1
        assert stream.limiter == [pb.LIMITER_HOLDS, pb.LIMITER_LETS_GO]


async def read_response(stream):
    return await asyncio.wait_for(stream.call.read(), TIMEOUT_S)


async def test_a_held_batch_is_sent_ahead_and_released_when_it_falls_due(replay):
    async with replay(samples_per_insert=BATCH_SIZE) as client:
        await client.register()
        await fill(client, 4)
        stream = client.sampling()
        await stream.open(credits=6)
        assert [(await stream.batch()).number for _ in range(4)] == [0, 1, 2, 3]
        assert (await read_response(stream)).limiter == pb.LIMITER_HOLDS
        ahead = await read_response(stream)
        assert (ahead.batch, len(ahead.episodes), ahead.end_of_batch) == (4, BATCH_SIZE, False)
        assert (await client.status()).counters.samples == 4 * BATCH_SIZE, "it counts as nothing"
        await client.insert(message(5), message(6))
        assert (await read_response(stream)).limiter == pb.LIMITER_LETS_GO
        assert await read_response(stream) == pb.SampleResponse(batch=4, end_of_batch=True)
        assert (await stream.batch()).number == 5
        assert (await client.status()).counters.samples == 6 * BATCH_SIZE


async def test_a_batch_that_was_sent_ahead_and_not_released_is_drawn_anew(replay):
    async with replay(samples_per_insert=BATCH_SIZE, total_env_steps=30) as client:
        await client.register()
        await fill(client, 4)
        first = client.sampling()
        await first.open(credits=5)
        for _ in range(4):
            await first.batch()
        assert (await read_response(first)).limiter == pb.LIMITER_HOLDS
        assert not (await read_response(first)).end_of_batch
        second = client.sampling()
        await second.open(credits=5, consumed=4)
        with refused(StatusCode.FAILED_PRECONDITION, "another Sample stream"):
            await read_response(first)
        await fill(client, 2, first=5)
        assert [(await second.batch()).number for _ in range(2)] == [4, 5]
        assert await second.batch() is None


@pytest.mark.parametrize(
    "settings",
    [
        {"samples_per_insert": BATCH_SIZE, "insert_lead_episodes": 0},
        {"samples_per_insert": BATCH_SIZE - 1},
        {"samples_per_insert": BATCH_SIZE, "tables": {"default": {"min_episodes": 5}}},
        {"samples_per_insert": BATCH_SIZE, "tables": {"default": {"sampler": "prioritised"}}},
    ],
    ids=["lockstep", "several episodes make one due", "too few to draw from", "an account"],
)
async def test_what_is_not_sent_ahead(replay, settings):
    async with replay(**settings) as client:
        await client.register()
        await fill(client, 4)
        stream = client.sampling()
        await stream.open(credits=100)
        while not (response := await read_response(stream)).limiter:
            assert response.end_of_batch
        await fill(client, 4, first=5)
        assert (await read_response(stream)).limiter == pb.LIMITER_LETS_GO, "comes next after HOLDS"


async def test_without_credits_nothing_is_held(replay):
    async with replay(total_env_steps=40) as client:
        await client.register()
        await fill(client, 4)
        stream = client.sampling()
        await stream.open(credits=1)
        assert (await stream.batch()).number == 0
        await fill(client, 4, first=5)
        await stream.add_credits()
        assert (await stream.batch()).number == 1
        assert stream.limiter == []


async def test_consumed_batches_set_the_counter(replay):
    async with replay(samples_per_insert=2) as client:
        await client.register()
        await fill(client, 8)
        stream = client.sampling()
        await stream.open(credits=4)
        before = [await stream.batch() for _ in range(4)]
        assert (await client.status()).samples_per_insert == 2
        restarted = client.sampling()
        await restarted.open(credits=3, consumed=1)
        after = [await restarted.batch() for _ in range(3)]
        assert [batch.number for batch in after] == [1, 2, 3]
        assert [batch.ids for batch in after] == [batch.ids for batch in before[1:]], "the window is the same"
        assert (await client.status()).samples_per_insert == 2


async def test_a_new_stream_ends_the_old_one(replay):
    async with replay() as client:
        await client.register()
        old, new = client.sampling(), client.sampling()
        await old.open(credits=5)
        waiting = asyncio.ensure_future(old.batch())
        await fill(client, 3)
        await new.open(credits=5)
        with refused(StatusCode.FAILED_PRECONDITION, "another Sample stream"):
            await waiting
        await client.insert(message(4))
        assert (await new.batch()).number == 0


async def test_wrong_openings_are_refused(replay):
    async with replay() as client:
        await client.register()
        wrong_size, without, twice = client.sampling(), client.sampling(), client.sampling()
        await wrong_size.open(batch_size=BATCH_SIZE + 1, credits=1)
        await without.add_credits()
        await twice.open()
        await twice.open()
        for stream, field in ((wrong_size, "open.batch_size"), (without, "open"), (twice, "open")):
            with refused(StatusCode.INVALID_ARGUMENT, field):
                await stream.batch()


async def lockstep(client, rounds):
    """One writer that waits for every batch before it writes again."""
    await client.register()
    drawn, stream = [], client.sampling()
    await stream.open(credits=10_000)
    await fill(client, BATCH_SIZE)
    drawn.append((await stream.batch()).ids)
    for seq in range(BATCH_SIZE + 1, BATCH_SIZE + 1 + rounds):
        await client.insert(message(seq))
        drawn.append((await stream.batch()).ids)
    return drawn


async def test_a_seeded_run_in_lockstep_draws_the_same_batches(redis_url, prefix, replay):
    settings = {"samples_per_insert": BATCH_SIZE, "insert_lead_episodes": 0, "window_episodes": 9}
    runs = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        async with replay(redis_prefix=prefix + name, seed=seed, **settings) as client:
            runs.append(await lockstep(client, 30))
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


async def test_large_batches_come_in_pieces(replay):
    spec = EnvSpec(
        env="synthetic",
        map="large",
        n_agents=10,
        n_actions=5,
        obs_size=500,
        state_size=10,
        episode_limit=100,
        fallback_action=0,
    )
    async with replay() as client:
        await client.register(spec)
        for seq in range(1, 5):
            episode = payload.encode_episode(make_episode(spec, seq=seq, length=90))
            await client.insert(codec.episode_to_proto(episode))
        stream = client.sampling()
        await stream.open(credits=1)
        batch = await stream.batch()
        assert len(set(batch.ids)) == BATCH_SIZE
        sizes = [part.ByteSize() for part in batch.responses]
        assert len(sizes) > 1
        assert max(sizes) < CHUNK_BYTES + 2 * 1024 * 1024
        assert [part.end_of_batch for part in batch.responses] == [False] * (len(sizes) - 1) + [True]
