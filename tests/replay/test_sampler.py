"""The parts that batches are made of."""

import collections
import dataclasses

import numpy as np
import pytest

from protos import replay_pb2 as pb
from replay import wire
from replay.cache import EpisodeCache
from replay.errors import UnavailableError
from replay.memory_storage import MemoryStorage
from replay.memory_table import MemoryTable
from replay.sampler import Credits, Sampler, draw
from replay.stats import SampleRecorder
from replay.table import SamplerKind
from tests.replay.conftest import TABLE, with_table
from tests.replay.groups import blob, episode


def test_a_draw_has_no_repetitions_and_avoids_what_it_must():
    rng = np.random.default_rng(0)
    for size in (4, 5, 100):
        drawn = draw(rng, range(1000, 1000 + size), 4)
        assert len(set(drawn)) == 4
        assert all(1000 <= index < 1000 + size for index in drawn)
    counts = collections.Counter(index for _ in range(2000) for index in draw(rng, range(6), 2, avoid={1, 4}))
    assert set(counts) == {0, 2, 3, 5}
    assert max(counts.values()) < 1.2 * min(counts.values())


class TurningTable(MemoryTable):
    """Its window moves on right after a draw, as when another replica inserts at that moment."""

    turn_by = 0

    async def read(self, indices):
        for _ in range(self.turn_by):
            self.add(episode(self.head + 1), 0)
            self.evict()
        self.turn_by = 0
        return await super().read(indices)


@pytest.mark.parametrize("sampler", SamplerKind)
@pytest.mark.parametrize("turn_by", [1, 5, 8, 20])
async def test_an_episode_that_leaves_between_draw_and_read_is_replaced(turn_by, sampler):
    rules = dataclasses.replace(
        TABLE, samples_per_insert=4.0, insert_lead_episodes=1000, window_episodes=8, sampler=sampler
    )
    storage = MemoryStorage(with_table())
    table = TurningTable(rules, storage.changes, lambda: 0.0)
    for seq in range(1, 9):
        table.add(episode(seq), 0)
    credits = Credits()
    credits.add(3)
    sampling = Sampler(storage, {"default": EpisodeCache(10**6)}, SampleRecorder(), seed=5)
    table.turn_by = turn_by
    batches = sampling.batches(table, 4, credits)
    for number in range(3):
        batch = await anext(batches)
        assert batch.number == number
        assert len(batch.blobs) == 4
        assert len(set(batch.blobs)) == 4 or sampler is SamplerKind.PRIORITISED
        stored = [blob("a", seq) for seq in range(1, 9 + turn_by)]
        at_once = number == 0 or sampler is SamplerKind.UNIFORM  # drawn of the window at that moment
        assert set(batch.blobs) <= set(stored if at_once else stored[-8:])
    await batches.aclose()


class LosingTable(MemoryTable):
    """Episode 2 is gone although nothing has removed it."""

    async def read(self, indices):
        return [
            None if index == 2 else blob
            for index, blob in zip(indices, await super().read(indices), strict=True)
        ]


async def test_an_episode_that_the_storage_has_lost_is_told_and_not_waited_for():
    rules = dataclasses.replace(TABLE, sampler=SamplerKind.FIFO)
    storage = MemoryStorage(with_table())
    table = LosingTable(rules, storage.changes, lambda: 0.0)
    for seq in range(1, 9):
        table.add(episode(seq), 0)
    credits = Credits()
    credits.add(1)
    sampling = Sampler(storage, {"default": EpisodeCache(10**6)}, SampleRecorder(), seed=5)
    with pytest.raises(UnavailableError, match="has lost episodes of the window, 2 for one"):
        await anext(sampling.batches(table, 4, credits))


def test_the_cache_keeps_what_was_used_last_within_its_bytes():
    cache = EpisodeCache(100)
    for index in range(4):
        cache.put(index, bytes(25))
    cache.get(0)
    cache.put(4, bytes(25))
    assert [index for index in range(5) if cache.get(index) is not None] == [0, 2, 3, 4]
    assert cache.size_bytes == 100
    cache.put(5, bytes(101))
    assert cache.size_bytes <= 100


def test_the_cache_follows_the_window_and_forgets_all_in_a_new_epoch():
    cache = EpisodeCache(1000)
    for index in range(5):
        cache.put(index, bytes(10))
    cache.advance(3, 0)
    cache.put(1, bytes(10))
    assert (len(cache), cache.size_bytes, cache.get(1), cache.get(2)) == (2, 20, None, None)
    cache.advance(2, 1)
    assert (len(cache), cache.size_bytes) == (0, 0)
    cache.put(2, b"other")
    assert cache.get(2) == b"other"


@pytest.mark.parametrize("sizes", [[1], [0, 127, 128, 20_000], [3 * 2**20] * 5, [5 * 2**20, 1]])
def test_responses_on_the_wire_are_what_protobuf_would_write(sizes):
    episodes = [
        pb.Episode(meta=pb.EpisodeMeta(session="s", seq=n), payload=bytes(size))
        for n, size in enumerate(sizes, 1)
    ]
    parts = [
        pb.SampleResponse.FromString(raw)
        for raw in wire.batch_responses(300, [episode.SerializeToString() for episode in episodes])
    ]
    assert [episode for part in parts for episode in part.episodes] == episodes
    assert [part.end_of_batch for part in parts] == [False] * (len(parts) - 1) + [True]
    assert {part.batch for part in parts} == {300}
    assert all(part.episodes for part in parts)
    assert max(part.ByteSize() for part in parts) < wire.CHUNK_BYTES + max(sizes) + 1000
    assert pb.SampleResponse.FromString(wire.end_of_run()) == pb.SampleResponse(end_of_run=True)
