"""ReadWindow: everything that is in the window, in order, also while the window moves."""

import pytest
from grpc import StatusCode

from common.codec import episode_from_proto
from protos import replay_pb2 as pb
from replay import window_reader
from replay.settings import DEFAULT_TABLE
from replay.storage import Group, NewEpisode
from replay.window_reader import read_window
from tests.replay.conftest import RUN, with_table
from tests.replay.groups import main
from tests.replay.running import TIMEOUT_S, message, refused

LEAD = 10**6


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(window_reader, "CHUNK_BYTES", 3000)


def messages(*seqs):
    episodes = [message(seq) for seq in seqs]
    new = [NewEpisode(meta=episode_from_proto(e).meta, blob=e.SerializeToString()) for e in episodes]
    return Group(table=DEFAULT_TABLE, episodes=tuple(new))


async def read(client, begin=0, end=0):
    responses = [
        response
        async for response in client.stub.ReadWindow(
            pb.ReadWindowRequest(begin=begin, end=end), timeout=TIMEOUT_S
        )
    ]
    return responses[0], [stored for response in responses for stored in response.episodes], len(responses)


async def test_all_of_the_window_in_order_and_bit_for_bit(replay, small_chunks):
    async with replay(insert_lead_episodes=LEAD, window_episodes=15) as client:
        await client.register()
        sent = [message(seq, length=1 + seq % 7) for seq in range(1, 21)]
        await client.insert(*sent)
        first, stored, responses = await read(client)
        assert (first.begin, first.end) == (5, 20)
        assert responses > 5, "no response grows with the window"
        assert [episode.number for episode in stored] == list(range(5, 20))
        assert [episode.episode for episode in stored] == sent[5:]
        assert stored[-1].env_steps == sum(episode.meta.length for episode in sent)
        counters = (await client.status()).counters
        assert (counters.samples, counters.episodes) == (0, 20), "nothing has moved"
        _, rest, _ = await read(client, begin=12, end=18)
        assert [episode.number for episode in rest] == list(range(12, 18))


async def test_what_leaves_the_window_meanwhile_is_left_out(replay, small_chunks):
    async with replay(insert_lead_episodes=LEAD, window_episodes=20) as client:
        await client.register()
        await client.insert(*(message(seq) for seq in range(1, 21)))
        call = client.stub.ReadWindow(pb.ReadWindowRequest(), timeout=TIMEOUT_S)
        assert (await call.read()).end == 20
        _, everything, _ = await read(client)
        await client.insert(*(message(seq) for seq in range(21, 31)))
        _, late, _ = await read(client, end=20)
        assert len(everything) == 20
        assert [episode.number for episode in late] == list(range(10, 20))
        call.cancel()


async def test_an_episode_that_leaves_between_its_payload_and_its_record_is_left_out(
    open_storage, monkeypatch
):
    storage = await open_storage(with_table(window_episodes=20, insert_lead_episodes=LEAD))
    await storage.open_run(RUN)
    table = main(storage)
    await storage.commit(messages(*range(1, 21)), again=False)
    records = table.records

    async def records_later(indices):
        await storage.commit(messages(*range(21, 26)), again=False)
        return await records(indices)

    monkeypatch.setattr(table, "records", records_later)
    stored = [e async for response in read_window(table, storage.changes, 0, 0) for e in response.episodes]
    assert [episode.number for episode in stored] == list(range(5, 20))
    assert all(episode.env_steps and episode.stored_at_s for episode in stored)


async def test_an_empty_window_and_an_end_that_is_not_there(replay):
    async with replay() as client:
        first, stored, _ = await read(client)
        assert (first.begin, first.end, stored) == (0, 0, [])
        with refused(StatusCode.INVALID_ARGUMENT, "end: 3"):
            await read(client, end=3)
