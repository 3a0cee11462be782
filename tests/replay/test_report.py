"""GetStats: what it says is so, and of bounded work."""

from itertools import pairwise

import pytest

from protos import replay_pb2 as pb
from replay import report
from tests.replay.running import TIMEOUT_S, message


async def stats(client) -> pb.GetStatsResponse:
    return await client.stub.GetStats(pb.GetStatsRequest(), timeout=TIMEOUT_S)


async def test_an_empty_service_has_figures_too(replay):
    async with replay() as client:
        answer = await stats(client)
        assert answer.table.examined == 0
        assert answer.table.age_s == pb.Distribution()
        assert answer.storage.memory_bytes > 0
        assert answer.storage.writes_to_disk


async def test_figures_are_of_the_window(replay):
    async with replay(insert_lead_episodes=10**6, window_episodes=8) as client:
        await client.register()
        await client.insert(*(message(seq, length=seq, weights_version=seq) for seq in range(1, 13)))
        await client.publish(20)
        sampling = client.sampling()
        await sampling.open(credits=2)
        await sampling.batch()
        await sampling.batch()
        answer = await stats(client)
    table = answer.table
    assert (table.inserts, table.samples, table.episodes, table.max_episodes) == (12, 8, 8, 8)
    assert (table.examined, table.samples_per_insert, table.target_samples_per_insert) == (8, 8 / 12, 1)
    assert (table.length.min, table.length.mean, table.length.max) == (5, 8.5, 12)
    assert (table.staleness_versions.min, table.staleness_versions.max) == (8, 15)
    assert table.age_env_steps.min == 0
    assert table.age_env_steps.max == sum(range(6, 13))
    assert sum(table.age_env_steps.counts) == 8
    assert len(table.age_env_steps.edges) == len(table.age_env_steps.counts) + 1
    assert 0 <= table.age_s.min <= table.age_s.max < 60
    assert (answer.replica.stored, answer.replica.sampled, answer.replica.cache_episodes) == (12, 8, 8)
    assert answer.replica.memory_bytes > 10**6
    assert answer.storage.file_bytes > 0


@pytest.mark.parametrize(("tail", "head", "at_most"), [(0, 0, 5), (3, 4, 5), (3, 8, 5), (7, 1007, 10)])
def test_examined_episodes_are_spread_evenly(tail, head, at_most):
    indices = report.evenly_spread(tail, head, at_most)
    assert len(indices) == min(at_most, head - tail)
    assert all(tail <= index < head for index in indices)
    if indices:
        gaps = {after - before for before, after in pairwise(indices)}
        assert max(gaps, default=1) <= -(-(head - tail) // len(indices))
        assert indices[-1] == head - 1
