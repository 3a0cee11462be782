"""What every kind of table promises, in every storage."""

import dataclasses

import numpy as np
import pytest

from replay.changes import Topic
from replay.choosing import choose
from replay.errors import InvalidRequestError, StateConflictError, UnknownTableError
from replay.memory_storage import MemoryStorage
from replay.storage import Outcome
from replay.table import Draws, LimiterKind, SamplerKind, View
from tests.replay.conftest import RUN, TABLE, with_table, with_tables
from tests.replay.groups import blob, group, main
from tests.replay.running import BATCH_SIZE

QUEUE = {
    "sampler": SamplerKind.FIFO,
    "limiter": LimiterKind.QUEUE,
    "max_times_sampled": 1,
    "window_episodes": 12,
}
PRIORITISED = {"sampler": SamplerKind.PRIORITISED, "alpha": 0.6, "beta": 0.4}
RNG = np.random.default_rng(0)


@pytest.fixture
def open_run(open_storage):
    async def opened(rules, **changes):
        storage = await open_storage(rules)
        await storage.open_run(dataclasses.replace(RUN, **changes))
        return storage

    return opened


@pytest.fixture
def open_queue(open_run):
    """A storage with a queue, and the queue."""

    async def opened(run=RUN, **changes):
        storage = await open_run(with_table(**QUEUE | changes), total_env_steps=run.total_env_steps)
        return storage, main(storage)

    return opened


async def commit(storage, *seqs, **kwargs):
    return await storage.commit(group(*seqs, **kwargs), again=False)


async def take(table, stream, batch, *, consumed=0, rng=RNG) -> Draws | None:
    """What the service does for a batch; None if there is none."""
    answer = await table.reserve(stream, batch, most=1, consumed=consumed)
    if answer.view is not None:
        draws = choose(rng, answer.view, table.rules)
        assert await table.take(stream, batch, draws)
        return draws
    return answer.draws


async def test_messages_for_a_table_that_is_not_there_are_refused(open_run):
    storage = await open_run(with_tables(recent={}))
    with pytest.raises(UnknownTableError, match="'other'; there are default, recent"):
        storage.table("other")
    with pytest.raises(UnknownTableError):
        await commit(storage, 1, table="other")
    assert (await storage.status()).counters.episodes == 0


async def test_tables_have_their_own_windows_limiters_and_streams_but_one_run(open_run):
    storage = await open_run(with_tables(recent={"window_episodes": 5}), total_env_steps=200)
    await commit(storage, 1, 2, 3, 4, 5)
    assert (await commit(storage, 6)).held_back, "the lead of the default table is used up"
    done = await commit(storage, 6, 7, 8, 9, table="recent")
    assert (done.outcomes, done.first_index) == ((Outcome.STORED,) * 4, 0)
    assert (done.counters.episodes, done.counters.env_steps) == (9, 90)
    assert (await commit(storage, 9)).outcomes == (Outcome.DUPLICATE,), "one identity per run"
    recent = main(storage, "recent")
    assert await recent.read([0, 3, 4]) == [blob("a", 6), blob("a", 9), None]
    assert await main(storage).read([0, 4, 5]) == [blob("a", 1), blob("a", 5), None]
    streams = await main(storage).open_stream(0), await recent.open_stream(0)
    assert (await recent.reserve(streams[1], 0, most=1)).granted
    assert (await main(storage).reserve(streams[0], 0, most=1)).granted, "its stream is not over"
    default, other = (await storage.status()).tables
    assert (default.name, default.inserts, default.samples, default.available) == ("default", 5, 4, 5)
    assert (other.name, other.inserts, other.samples, other.available) == ("recent", 4, 4, 4)
    assert (await storage.status()).counters.samples == 8


async def test_a_queue_hands_out_every_episode_once_in_order(open_queue):
    storage, queue = await open_queue()
    stream = await queue.open_stream(0)
    await commit(storage, 1, 2, 3)
    assert await take(queue, stream, 0) is None, "three are no batch"
    await commit(storage, *range(4, 11))
    assert (await take(queue, stream, 0)).indices == (0, 1, 2, 3)
    assert (await take(queue, stream, 1, consumed=1)).indices == (4, 5, 6, 7)
    assert await take(queue, stream, 2, consumed=2) is None
    (status,) = (await storage.status()).tables
    assert (status.inserts, status.samples, status.available, status.size_bytes) == (10, 8, 2, 200)
    assert await queue.read([0, 4, 7, 8]) == [None, None, None, blob("a", 9)]


async def test_inserts_wait_while_a_queue_is_full_and_enter_when_the_learner_is_done(open_queue):
    storage, queue = await open_queue()
    stream = await queue.open_stream(0)
    await commit(storage, *range(1, 11))
    late = group(11, 12, 13)
    assert (await storage.commit(late, again=False)).held_back, "13 are more than 12"
    assert not (await commit(storage, 11, 12, session="b")).held_back
    await take(queue, stream, 0)
    assert (await storage.commit(late, again=True)).held_back, "what the learner has counts too"
    freed = storage.changes.event(Topic.SAMPLES)
    await queue.reserve(stream, 1, most=0, consumed=1)
    await storage.changes.wait(freed)
    assert (await storage.commit(late, again=True)).outcomes == (Outcome.STORED,) * 3
    (status,) = (await storage.status()).tables
    assert status.available == 11


async def test_a_queue_is_bounded_by_bytes_too(open_queue):
    storage, queue = await open_queue(window_bytes=1000)
    stream = await queue.open_stream(0)
    await commit(storage, 1, 2, 3, 4, 5, size=180)
    assert (await commit(storage, 6, size=180)).held_back
    await take(queue, stream, 0)
    await take(queue, stream, 1, consumed=1)
    assert not (await commit(storage, 6, size=180)).held_back


@pytest.mark.parametrize("members", [3, 5, 11])
async def test_a_queue_never_locks_both_sides(open_queue, members):
    """Groups that do not fit beside what is there, which is no batch; also groups larger than the queue."""
    storage, queue = await open_queue(window_episodes=4)
    stream, batch, first = await queue.open_stream(0), 0, 1
    for _ in range(20):
        await take(queue, stream, batch, consumed=batch)
        held_back = (await commit(storage, *range(first, first + members))).held_back
        first += 0 if held_back else members
        draws = await take(queue, stream, batch, consumed=batch)
        assert draws or not held_back
        batch += draws is not None
    (status,) = (await storage.status()).tables
    assert status.inserts == first - 1
    assert status.samples == batch * BATCH_SIZE >= 20


async def test_episodes_of_old_weights_are_dropped_and_counted(open_queue):
    storage, queue = await open_queue(max_age_versions=3)
    stream = await queue.open_stream(10)
    for seq, version in enumerate((0, 10, 6, 7, 13, 14, 12), start=1):
        await commit(storage, seq, version=version)
    freed = storage.changes.event(Topic.SAMPLES)
    assert (await take(queue, stream, 10)).indices == (1, 3, 4, 6)
    await storage.changes.wait(freed)
    (status,) = (await storage.status()).tables
    assert (status.dropped, status.available, status.samples, status.size_bytes) == (3, 0, 4, 400)
    assert await queue.read([0, 2, 5]) == [None] * 3


async def test_only_dropped_episodes_are_no_batch(open_queue):
    storage, queue = await open_queue(max_age_versions=0)
    stream = await queue.open_stream(5)
    await commit(storage, *range(1, 13), version=4)
    assert await take(queue, stream, 5) is None
    (status,) = (await storage.status()).tables
    assert (status.dropped, status.tail, status.batch_due) == (12, 12, False)
    await commit(storage, *range(13, 17), version=5)
    assert (await take(queue, stream, 5)).indices == (12, 13, 14, 15)


async def test_weights_of_the_beginning_are_as_good_as_none(open_queue):
    storage, queue = await open_queue(max_age_versions=0)
    stream = await queue.open_stream(0)
    await commit(storage, 1, 2, version=0)
    await commit(storage, 3, 4, version=1)
    assert await take(queue, stream, 0) is not None


async def test_a_batch_that_was_not_consumed_is_given_again_as_it_was(open_queue):
    storage, queue = await open_queue()
    await commit(storage, *range(1, 13))
    old = await queue.open_stream(0)
    first, second = await take(queue, old, 0), await take(queue, old, 1)
    assert await take(queue, old, 1) == second, "the answer may have been lost"
    assert await queue.take(old, 1, second)
    new = await queue.open_stream(1)
    with pytest.raises(StateConflictError, match="stream"):
        await queue.take(old, 2, first)
    assert await take(queue, new, 1, consumed=1) == second
    assert (await take(queue, new, 2, consumed=1)).indices == (8, 9, 10, 11)
    assert (await storage.status()).counters.samples == 12


async def test_a_learner_that_goes_back_gets_what_it_had_not_consumed_and_nothing_twice(open_queue):
    storage, queue = await open_queue(window_episodes=20)
    await commit(storage, *range(1, 17))
    stream = await queue.open_stream(7)
    assert (await take(queue, stream, 7)).indices == (0, 1, 2, 3)
    assert (await take(queue, stream, 8, consumed=8)).indices == (4, 5, 6, 7)
    assert (await take(queue, stream, 9, consumed=8)).indices == (8, 9, 10, 11)
    stream = await queue.open_stream(5)  # from a checkpoint of batch 5
    assert (await storage.status()).counters.samples == 4
    assert [(await take(queue, stream, n, consumed=n)).indices[0] for n in (5, 6, 7)] == [4, 8, 12]
    assert await take(queue, stream, 8, consumed=8) is None
    assert (await storage.status()).counters.samples == 16


async def test_a_run_with_a_queue_ends_when_no_batch_is_left(open_queue):
    storage, queue = await open_queue(dataclasses.replace(RUN, total_env_steps=60))
    stream = await queue.open_stream(0)
    await commit(storage, *range(1, 7))
    assert not (await queue.reserve(stream, 0, most=0)).end_of_run
    await take(queue, stream, 0)
    assert not (await queue.reserve(stream, 0, most=0)).end_of_run, "it may have to be given again"
    assert (await queue.reserve(stream, 1, most=1, consumed=1)).end_of_run


@pytest.mark.parametrize("kind", [PRIORITISED, {"max_times_sampled": 4}], ids=["prioritised", "limited"])
async def test_batches_that_are_given_again_count(open_run, kind):
    """Else the ratio would let one batch too many go for every stream that is opened again."""
    storage = await open_run(with_table(**kind, insert_lead_episodes=100))
    table = main(storage)
    await commit(storage, *range(1, 9))
    for _ in range(3):
        stream = await table.open_stream(1)
        assert None not in [await take(table, stream, batch, consumed=1) for batch in (1, 2, 3)]
        assert await take(table, stream, 4, consumed=1) is None
        assert (await storage.status()).counters.samples == 2 * 8


LIMITED = {"max_times_sampled": 2, "samples_per_insert": 2.0, "insert_lead_episodes": 100}


@pytest.mark.parametrize("sampler", SamplerKind)
async def test_no_episode_is_sampled_more_often_than_may_be(open_run, sampler):
    storage = await open_run(with_table(**LIMITED, sampler=sampler))
    table, counts = main(storage), np.zeros(16, dtype=int)
    await commit(storage, *range(1, 17))
    stream = await table.open_stream(0)
    batch, seen = 0, []
    while draws := await take(table, stream, batch, consumed=max(0, batch - 2)):
        assert len(set(draws.indices)) == BATCH_SIZE
        np.add.at(counts, list(draws.indices), 1)
        batch += 1
        seen.append(draws)
        assert draws == await take(table, stream, batch - 1)
        for given in seen[-3:]:
            assert None not in await table.read(given.indices), "until they are consumed they are kept"
    assert counts.max() == 2
    (status,) = (await storage.status()).tables
    assert status.samples == counts.sum() == 4 * batch
    assert status.available == np.sum(counts < 2) < BATCH_SIZE
    await table.reserve(stream, batch, most=0, consumed=batch)
    left = await table.read(range(16))
    assert [blob is None for blob in left] == list(counts == 2)


async def test_a_table_without_enough_episodes_to_draw_lets_more_in(open_run):
    """samples_per_insert is never reached here, but nothing stands still."""
    storage = await open_run(with_table(max_times_sampled=1, insert_lead_episodes=0))
    table, batch = main(storage), 0
    stream = await table.open_stream(0)
    for seq in range(1, 30):
        assert not (await commit(storage, seq)).held_back or await take(table, stream, batch, consumed=batch)
        batch = (await storage.status()).counters.samples // BATCH_SIZE
    assert batch >= 3


async def test_an_evicted_batch_is_drawn_again(open_run):
    storage = await open_run(with_table(**PRIORITISED, window_episodes=6, insert_lead_episodes=100))
    table = main(storage)
    await commit(storage, *range(1, 7))
    stream = await table.open_stream(0)
    view = (await table.reserve(stream, 0, most=1)).view
    await commit(storage, 7, 8)
    stale = choose(RNG, dataclasses.replace(view, scores=view.scores[:2]), table.rules)
    assert not await table.take(stream, 0, stale)
    first = await take(table, stream, 0)
    assert first is not None and min(first.indices) >= 2
    assert await take(table, stream, 0) == first
    await commit(storage, *range(9, 15))
    again = await take(table, stream, 0)
    assert again is not None and min(again.indices) >= 8
    assert (await storage.status()).counters.samples == BATCH_SIZE


async def test_new_episodes_have_the_highest_priority_so_far_and_updates_are_applied_once(open_run):
    storage = await open_run(with_table(**PRIORITISED))
    table = main(storage)
    stream = await table.open_stream(0)

    async def scores():
        (status,) = (await storage.status()).tables
        answer = await table.reserve(stream, status.samples // BATCH_SIZE, most=1)
        return list(answer.view.scores)

    await commit(storage, 1, 2, 3, 4)
    assert await scores() == [1.0] * 4
    await table.update_priorities(3, {0: 0.1, 2: 7.25})
    await commit(storage, 5)
    assert await scores() == [0.1, 1.0, 7.25, 1.0, 7.25]
    for batch in (3, 1):  # sent again, and late
        await table.update_priorities(batch, {0: 5.0, 1: 5.0})
    assert await scores() == [0.1, 1.0, 7.25, 1.0, 7.25]
    with pytest.raises(InvalidRequestError, match="indices: 5 was never stored"):
        await table.update_priorities(4, {0: 0.5, 5: 1.0})
    assert await scores() == [0.1, 1.0, 7.25, 1.0, 7.25]
    await table.update_priorities(4, {0: 0.3})
    stream = await table.open_stream(2)  # the learner went back
    await table.update_priorities(2, {1: 0.2})
    assert list((await table.reserve(stream, 1, most=1)).view.scores) == [0.3, 0.2, 7.25, 1.0, 7.25]


async def test_priorities_of_episodes_that_left_are_passed_over(open_run):
    storage = await open_run(with_table(**PRIORITISED, window_episodes=4, insert_lead_episodes=100))
    table = main(storage)
    await commit(storage, *range(1, 8))
    await table.update_priorities(0, {0: 9.0, 5: 2.0})
    view = (await table.reserve(await table.open_stream(0), 0, most=1)).view
    assert (view.tail, list(view.scores)) == (3, [1.0, 1.0, 2.0, 1.0])


async def test_only_a_prioritised_table_takes_priorities(open_run):
    storage = await open_run(with_tables(queue=QUEUE))
    for name in ("default", "queue"):
        with pytest.raises(StateConflictError, match="not prioritised"):
            await main(storage, name).update_priorities(0, {})


async def test_sampling_waits_for_min_episodes(open_run):
    storage = await open_run(with_table(min_episodes=7, insert_lead_episodes=0))
    table = main(storage)
    stream = await table.open_stream(0)
    for seq in range(1, 7):
        assert not (await commit(storage, seq)).held_back, "else both sides would wait"
        assert not (await table.reserve(stream, 0, most=1)).granted
    await commit(storage, 7)
    assert (await table.reserve(stream, 0, most=1)).granted


def test_importance_weights_are_those_of_the_paper():
    rules = dataclasses.replace(TABLE, **PRIORITISED, batch_size=1000)
    priorities = np.array([0.0, 1.0, 4.0, -3.0, 0.25])
    draws = choose(np.random.default_rng(1), View(tail=10, scores=priorities, progress=0.5), rules)
    assert set(draws.indices) == {11, 12, 14}, "not what has left or is used up"
    p = np.array([1.0, 4.0, 0.25]) ** 0.6
    p /= p.sum()
    w = (3 * p) ** -0.7
    expected = dict(zip((11, 12, 14), w / w.max(), strict=True))
    for index, importance in zip(draws.indices, draws.importance, strict=True):
        assert importance == pytest.approx(expected[index], rel=1e-9)


KINDS = {
    "queue": QUEUE | {"max_age_versions": 4},
    "prioritised": PRIORITISED | {"window_episodes": 9, "window_bytes": 1500},
    "limited": LIMITED | {"window_episodes": 9, "samples_per_insert": 1.5},
    "prioritised-limited": PRIORITISED | LIMITED | {"window_bytes": 1500, "insert_lead_episodes": 3},
    "fifo": {"sampler": SamplerKind.FIFO, "max_times_sampled": 3, "min_episodes": 6},
}


@pytest.mark.parametrize("kind", KINDS)
async def test_redis_and_memory_agree_on_random_histories(open_redis, kind):
    """The Lua scripts against their plain statement in Python."""
    rng = np.random.default_rng(list(KINDS).index(kind))
    rules = with_tables(**{"other": KINDS[kind]})
    storages = (MemoryStorage(rules), await open_redis(rules))
    for storage in storages:
        await storage.open_run(dataclasses.replace(RUN, total_env_steps=3000))
    player = _Player(rng)
    for step in range(400):
        operation = player.next()
        outcomes = [await player.play(storage, operation, step + 1) for storage in storages]
        _assert_equal(*outcomes, (step, operation))
        assert await storages[0].status() == await storages[1].status(), (step, operation)
        player.learn(outcomes[0])
    blobs = [await main(storage, "other").read(range(1000)) for storage in storages]
    assert blobs[0] == blobs[1]
    (_, status) = (await storages[0].status()).tables
    assert min(status.inserts, status.samples) > 100, "a history in which nothing happens tests nothing"


class _Player:
    """Chooses what is done, and remembers as a learner would what is outstanding."""

    def __init__(self, rng) -> None:
        self.rng = rng
        self.stream, self.batch, self.consumed = 1, 0, 0
        self.operation = ("open", 0)

    def next(self):
        kind = str(self.rng.choice(["commit", "sample", "open", "update"], p=[0.4, 0.45, 0.05, 0.1]))
        if self.operation is None or kind != "open":
            if kind == "sample" and self.rng.random() < 0.7:
                self.consumed = self.batch - int(self.rng.integers(0, 1 + min(3, self.batch - self.consumed)))
            self.operation = (kind, *(int(n) for n in self.rng.integers(0, 40, 4)))
        else:
            self.batch = max(0, self.consumed - int(self.rng.integers(0, 3)))
            self.consumed = self.batch
            self.operation = ("open", self.batch)
        return self.operation

    async def play(self, storage, operation, seq):
        table, (kind, a, *more) = main(storage, "other"), operation
        if kind == "open":
            return await table.open_stream(a)
        if kind == "commit":
            b, c, d = more
            shape = {"length": 1 + a % 7, "size": 10 * b + 1, "version": max(0, self.batch + c % 9 - 6)}
            given = group(*range(4 * seq, 4 * seq + 1 + d % 3), table="other", **shape)
            return await storage.commit(given, again=False)
        if kind == "update":
            head = (await storage.status()).tables[1].inserts
            indices = {max(0, head - n): (1 + n) / 4 for n in more}
            try:
                return await table.update_priorities(a, indices)
            except (StateConflictError, InvalidRequestError) as error:
                return str(error)
        try:
            return await self._sample(table, most=min(4, more[0] // 4))
        except StateConflictError as error:
            return str(error)

    async def _sample(self, table, *, most):
        answer = await table.reserve(self.stream, self.batch, most=most, consumed=self.consumed)
        if answer.view is None:
            return answer
        draws = choose(np.random.default_rng(self.batch), answer.view, table.rules)
        return answer, await table.take(self.stream, self.batch, draws), draws

    def learn(self, outcome):
        if isinstance(outcome, int):
            self.stream = outcome
        elif isinstance(outcome, tuple):
            self.batch += outcome[1]
        else:
            self.batch += getattr(outcome, "granted", 0)


def _assert_equal(memory, redis, where):
    if isinstance(memory, tuple):
        np.testing.assert_array_equal(memory[0].view.scores, redis[0].view.scores, str(where))
        assert memory[0].view.progress == redis[0].view.progress
        memory, redis = (
            (dataclasses.replace(answer[0], view=None), *answer[1:]) for answer in (memory, redis)
        )
    assert memory == redis, where


async def test_a_full_queue_holds_back_an_import_too(open_queue):
    storage, _ = await open_queue()
    first = dataclasses.replace(group(*range(1, 13)), imported=True)
    assert not (await storage.commit(first, again=False)).held_back
    more = dataclasses.replace(group(13), imported=True)
    assert (await storage.commit(more, again=False)).held_back
