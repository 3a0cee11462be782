"""What every storage promises; one suite, run on all of them."""

import dataclasses

import numpy as np
import pytest

from common.codec import episode_from_proto
from common.types import Weights
from replay.changes import Topic
from replay.errors import RunMismatchError, StateConflictError
from replay.memory_storage import MemoryStorage
from replay.storage import NO_WEIGHTS, Group, NewEpisode, Outcome
from tests.episodes import SPEC
from tests.replay.conftest import RULES, RUN, with_table
from tests.replay.groups import blob, episode, evaluation, group, main
from tests.replay.running import BATCH_SIZE, message

STORED, DUPLICATE, RUN_COMPLETE = Outcome.STORED, Outcome.DUPLICATE, Outcome.RUN_COMPLETE


@pytest.fixture
def open_run(open_storage):
    async def opened(rules=RULES, **changes):
        storage = await open_storage(rules)
        await storage.open_run(dataclasses.replace(RUN, **changes))
        return storage

    return opened


def real_group(*seqs, imported=False, **meta):
    """Of whole messages, as `records` reads them."""
    episodes = [message(seq, **meta) for seq in seqs]
    blobs = [NewEpisode(meta=episode_from_proto(e).meta, blob=e.SerializeToString()) for e in episodes]
    return Group(table="default", episodes=tuple(blobs), imported=imported)


async def commit(storage, *seqs, **kwargs):
    return await storage.commit(group(*seqs, **kwargs), again=False)


async def sample(storage, batches, *, first=0):
    """Takes batches on a new stream."""
    stream = await main(storage).open_stream(first)
    return [await main(storage).reserve(stream, first + n, most=1) for n in range(batches)]


async def test_a_group_gets_consecutive_indices_in_its_order(open_run):
    storage = await open_run()
    await commit(storage, 1)
    done = await commit(storage, 2, 5, 9)
    assert (done.held_back, done.outcomes, done.first_index) == (False, (STORED,) * 3, 1)
    assert await main(storage).read([3, 0, 2, 1, 4]) == [
        blob("a", 9),
        blob("a", 1),
        blob("a", 5),
        blob("a", 2),
        None,
    ]
    assert (done.counters.episodes, done.counters.env_steps) == (4, 40)


async def test_an_episode_is_stored_once(open_run):
    storage = await open_run()
    await commit(storage, 1, 2)
    assert (await commit(storage, 1, 2)).outcomes == (DUPLICATE, DUPLICATE)
    assert (await commit(storage, 2, 3, 3)).outcomes == (DUPLICATE, STORED, DUPLICATE)
    assert (await commit(storage, 1, session="b")).outcomes == (STORED,)
    status = await storage.status()
    assert (status.counters.episodes, status.counters.env_steps, status.tables[0].inserts) == (4, 40, 4)


async def test_seqs_of_64_bits_are_told_apart(open_run):
    storage = await open_run()
    high = 2**64 - 2
    assert (await commit(storage, 9, 10, high, high + 1)).outcomes == (STORED,) * 4
    assert (await commit(storage, high)).outcomes == (DUPLICATE,)


async def test_the_limiter_holds_back_whole_groups_and_changes_nothing(open_run):
    storage = await open_run()  # 2 samples per insert, a lead of 4 episodes: 8 samples owed
    for seq in range(1, 6):
        assert not (await commit(storage, seq)).held_back
    before = await storage.status()
    late = group(6, 7)
    for again in (False, True, True):
        held = await storage.commit(late, again=again)
        assert (held.held_back, held.outcomes) == (True, ())
    assert await storage.status() == before
    assert (await commit(storage, 3)).outcomes == (DUPLICATE,), "a duplicate needs no room"
    await sample(storage, 1)
    assert (await storage.commit(late, again=True)).outcomes == (STORED, STORED)
    assert await main(storage).read([5, 6]) == [blob("a", 6), blob("a", 7)]


async def test_the_limiter_lets_a_first_batch_of_episodes_in_and_never_locks_both_sides(open_run):
    rules = with_table(samples_per_insert=1.5, insert_lead_episodes=0)
    storage = await open_run(rules)
    stream, batch, seq = await main(storage).open_stream(0), 0, 1
    for _ in range(50):
        held_back = (await commit(storage, seq)).held_back
        seq += not held_back
        granted = (await main(storage).reserve(stream, batch, most=1)).granted
        batch += granted
        assert granted or not held_back, (seq, batch)
    assert abs(batch * BATCH_SIZE - 1.5 * (seq - 1)) < 1.5 * BATCH_SIZE


async def test_a_batch_needs_a_window_and_is_granted_once_and_again(open_run):
    storage = await open_run()
    stream = await main(storage).open_stream(0)
    await commit(storage, 1, 2, 3)
    assert not (await main(storage).reserve(stream, 0, most=1)).granted, "3 episodes are no batch"
    await commit(storage, 4)
    assert not (await main(storage).reserve(stream, 0, most=0)).granted
    window = await main(storage).reserve(stream, 0, most=1)
    assert (window.tail, window.head) == (0, 4)
    for batch in (0, 1):
        assert (await main(storage).reserve(stream, batch, most=1)).granted
        assert (await main(storage).reserve(stream, batch, most=1)).granted, "the answer may have been lost"
        assert (await storage.status()).counters.samples == 4 * (batch + 1)
    assert not (await main(storage).reserve(stream, 2, most=1)).granted, "2 samples per insert are used up"


async def test_several_batches_are_granted_at_once_as_far_as_the_limiter_goes(open_run):
    storage = await open_run()  # 2 samples per insert
    for seq in range(1, 6):
        await commit(storage, seq)
    table = main(storage)
    stream = await table.open_stream(0)

    async def granted(batch, most):
        answer = await table.reserve(stream, batch, most=most)
        return answer.granted, (await table.status()).samples

    assert await granted(0, 1) == (1, 4)
    assert await granted(1, 5) == (1, 8), "10 samples are owed, which is two batches"
    assert await granted(0, 5) == (2, 8), "the answers may have been lost"
    assert await granted(2, 5) == (0, 8)
    await commit(storage, 6, 7)
    assert await granted(1, 5) == (2, 12), "one again and a new one"
    assert await granted(3, 5) == (0, 12)


async def test_a_new_stream_sets_the_samples_and_ends_the_old_one(open_run):
    storage = await open_run()
    await commit(storage, 1, 2, 3, 4, 5)
    old = await main(storage).open_stream(0)
    await main(storage).reserve(old, 0, most=1)
    await main(storage).reserve(old, 1, most=1)
    new = await main(storage).open_stream(1)
    assert (await storage.status()).counters.samples == BATCH_SIZE
    with pytest.raises(StateConflictError, match="stream"):
        await main(storage).reserve(old, 2, most=1)
    assert (await main(storage).reserve(new, 1, most=1)).granted


async def test_the_window_is_bounded_by_count(open_run):
    storage = await open_run(with_table(window_episodes=6, insert_lead_episodes=100))
    for seq in range(1, 10):
        done = await commit(storage, seq)
    assert (done.tail, (await storage.status()).tables[0].size_bytes) == (3, 600)
    assert await main(storage).read(range(2, 4)) == [None, blob("a", 4)]


async def test_the_window_is_bounded_by_bytes_but_keeps_a_batch(open_run):
    storage = await open_run(with_table(window_bytes=1000, insert_lead_episodes=100))
    for seq in range(1, 8):
        await commit(storage, seq, size=150)
    (status,) = (await storage.status()).tables
    assert (status.available, status.size_bytes) == (6, 900)
    await commit(storage, 8, size=5000)
    (status,) = (await storage.status()).tables
    assert (status.available, status.size_bytes) == (BATCH_SIZE, 5450)


async def test_records_tell_of_episodes_in_the_window(open_run):
    storage = await open_run(with_table(window_episodes=3))
    longest_names = {"session": "s" * 64, "actor": "é" * 64, "seed": 2**64 - 1, "weights_version": 2**64 - 1}
    before_s = await storage.now_s()
    await storage.commit(real_group(1, 2, length=7), again=False)
    await storage.commit(real_group(2**64 - 2, 2**64 - 1, length=3, **longest_names), again=False)
    gone, first, *_, last, not_yet = await main(storage).records([0, 1, 2, 3, 4])
    assert gone is None and not_yet is None
    assert (first.meta.seq, first.meta.length, first.env_steps) == (2, 7, 14)
    assert (last.meta.seq, last.meta.session, last.meta.actor) == (2**64 - 1, "s" * 64, "é" * 64)
    assert last.env_steps == 20
    assert before_s - 0.002 <= first.stored_at_s <= last.stored_at_s <= await storage.now_s()
    assert await main(storage).records([]) == []


async def test_an_imported_group_waits_for_nothing_and_makes_no_evaluation_due(open_run):
    storage = await open_run()
    await storage.publish_weights(Weights(session="l", version=1, data=b"w"))
    for first in range(1, 16, 5):
        done = await storage.commit(
            real_group(*range(first, first + 5), length=10, imported=True), again=False
        )
        assert not done.held_back
    status = await storage.status()
    assert (status.counters.env_steps, status.evaluations_pending) == (150, 0)
    assert (await storage.commit(real_group(16, length=10), again=False)).held_back
    assert [step.granted for step in await sample(storage, 9)] == [True] * 7 + [False] * 2, "2 per insert"
    await storage.commit(real_group(*range(16, 21), length=10), again=False)
    assert (await storage.status()).evaluations_pending == 1, "200 steps, by play again"


async def test_the_run_ends_at_its_steps(open_run):
    storage = await open_run(total_env_steps=35)
    done = await commit(storage, 1, 2, 3)
    assert not done.counters.run_complete
    done = await commit(storage, 4, 5)
    assert (done.outcomes, done.counters.run_complete) == ((STORED, RUN_COMPLETE), True)
    assert (await commit(storage, 4, 5)).outcomes == (DUPLICATE, RUN_COMPLETE)
    assert (await storage.status()).counters.env_steps == 40
    stream = await main(storage).open_stream(0)
    answers = [await main(storage).reserve(stream, n, most=1) for n in range(3)]
    assert [(a.granted, a.end_of_run) for a in answers] == [(True, False), (True, False), (False, True)]


async def test_no_end_of_run_while_a_batch_is_due(open_run):
    storage = await open_run(total_env_steps=40)
    await commit(storage, 1, 2, 3, 4)
    stream = await main(storage).open_stream(0)
    assert not (await main(storage).reserve(stream, 0, most=0)).end_of_run


async def test_a_later_start_may_change_only_the_total(open_run):
    storage = await open_run(total_env_steps=20)
    await commit(storage, 1, 2)
    await storage.open_run(dataclasses.replace(RUN, total_env_steps=50))
    status = await storage.status()
    assert (status.total_env_steps, status.counters.env_steps, status.counters.run_complete) == (
        50,
        20,
        False,
    )
    for change in ({"batch_size": 5}, {"seed": 2}):
        with pytest.raises(RunMismatchError, match=next(iter(change))):
            await storage.open_run(dataclasses.replace(RUN, total_env_steps=99, **change))
    assert (await storage.status()).total_env_steps == 50


async def test_the_first_spec_stays(open_run):
    storage = await open_run()
    assert await storage.spec() is None
    assert await storage.register_spec(SPEC) == SPEC
    assert await storage.register_spec(dataclasses.replace(SPEC, n_agents=9)) == SPEC
    assert await storage.spec() == SPEC


async def test_weights_go_forward_within_a_session(open_run):
    storage = await open_run()
    assert (await storage.newest_weights(NO_WEIGHTS))[0] == NO_WEIGHTS
    two = Weights(session="x", version=2, data=b"two")
    await storage.publish_weights(two)
    await storage.publish_weights(dataclasses.replace(two, data=b"sent again"))
    assert (await storage.newest_weights(NO_WEIGHTS))[0] == two
    with pytest.raises(StateConflictError, match="2"):
        await storage.publish_weights(Weights(session="x", version=1, data=b"one"))
    restarted = Weights(session="y", version=1, data=b"restarted")
    await storage.publish_weights(restarted)
    newest, counters = await storage.newest_weights(two)
    assert (newest, counters.weights_version) == (restarted, 1)
    assert (await storage.newest_weights(restarted))[0].data == b""


async def test_an_evaluation_is_of_the_weights_of_its_moment(open_run):
    storage = await open_run()
    for version, seqs in ((1, (1, 2)), (2, (3,)), (3, (4,))):
        await storage.publish_weights(Weights(session="x", version=version, data=b"%d" % version))
        await commit(storage, *seqs, length=60)  # env_steps 120, 180, 240
    await storage.publish_weights(Weights(session="x", version=4, data=b"4"))
    claims = [await storage.claim_evaluation() for _ in range(3)]
    assert [(c.env_steps, c.weights.version, c.weights.data) for c in claims] == [
        (100, 1, b"1"),
        (200, 3, b"3"),
        (None, 0, b""),
    ]
    assert (await storage.status()).evaluations_pending == 2


async def test_one_long_group_may_pass_several_points(open_run):
    storage = await open_run()
    await storage.publish_weights(Weights(session="x", version=1, data=b"1"))
    await commit(storage, 1, 2, 3, length=100)
    assert [(await storage.claim_evaluation()).env_steps for _ in range(4)] == [100, 200, 300, None]


async def test_points_without_weights_wait_for_the_first(open_run):
    storage = await open_run()
    await commit(storage, 1, length=100)
    assert (await storage.claim_evaluation()).env_steps is None
    first = Weights(session="x", version=7, data=b"7")
    await storage.publish_weights(first)
    await storage.publish_weights(Weights(session="x", version=8, data=b"8"))
    claim = await storage.claim_evaluation()
    assert (claim.env_steps, claim.weights) == (100, first)


async def test_a_lease_that_runs_out_is_handed_out_again(open_run):
    storage = await open_run(dataclasses.replace(RULES, evaluation_lease_s=0.0))
    await storage.publish_weights(Weights(session="x", version=1, data=b"1"))
    await commit(storage, 1, length=100)
    assert (await storage.claim_evaluation()).env_steps == 100
    assert (await storage.claim_evaluation()).env_steps == 100


async def test_a_running_lease_says_when_to_come_again(open_run):
    storage = await open_run()
    await storage.publish_weights(Weights(session="x", version=1, data=b"1"))
    assert (await storage.claim_evaluation()).retry_after_s is None
    await commit(storage, 1, length=100)
    await storage.claim_evaluation()
    waiting = await storage.claim_evaluation()
    assert waiting.env_steps is None
    assert 0 < waiting.retry_after_s <= RULES.evaluation_lease_s


async def test_the_first_result_of_a_point_stays(open_run):
    storage = await open_run(total_env_steps=200)
    await storage.publish_weights(Weights(session="x", version=1, data=b"1"))
    await commit(storage, 1, 2, length=100)
    assert not (await storage.claim_evaluation()).run_complete
    await storage.report_evaluation(evaluation(200, wins=3))
    await storage.report_evaluation(evaluation(200, wins=0))
    assert not (await storage.claim_evaluation()).run_complete
    await storage.report_evaluation(evaluation(100))
    assert await storage.evaluations() == [evaluation(100), evaluation(200, wins=3)]
    assert (await storage.claim_evaluation()).run_complete
    for unknown in (150, 300):
        with pytest.raises(StateConflictError, match=str(unknown)):
            await storage.report_evaluation(evaluation(unknown))
    assert len(await storage.evaluations()) == 2


async def test_changes_are_announced(open_run):
    storage = await open_run(total_env_steps=100)

    async def announced(topic, step):
        event = storage.changes.event(topic)
        await step
        await storage.changes.wait(event)

    await announced(Topic.EPISODES, commit(storage, 1, 2, 3, 4))  # a batch has fallen due
    await announced(Topic.WEIGHTS, storage.publish_weights(Weights(session="x", version=1, data=b"1")))
    await commit(storage, 5)
    assert (await commit(storage, 6)).held_back
    await announced(Topic.SAMPLES, sample(storage, 1))
    await announced(Topic.EVALUATIONS, commit(storage, 6, length=50))
    await announced(Topic.EPISODES, main(storage).open_stream(3))
    await announced(Topic.EVALUATIONS, storage.report_evaluation(evaluation(100)))


@pytest.mark.parametrize("seed", range(2))
async def test_redis_and_memory_agree_on_random_histories(open_redis, seed):
    """The Lua scripts against their plain statement in Python."""
    rng = np.random.default_rng(seed)
    rules = dataclasses.replace(
        with_table(window_episodes=7, window_bytes=900), evaluation_lease_s=0.0, evaluation_interval=30
    )
    run = dataclasses.replace(RUN, total_env_steps=600)
    storages = (MemoryStorage(rules), await open_redis(rules))
    for storage in storages:
        await storage.open_run(run)
    for step in range(400):
        operation = _random_operation(rng)
        memory, redis = [await _outcome(storage, operation) for storage in storages]
        assert memory == redis, (step, operation)
        assert await storages[0].status() == await storages[1].status(), (step, operation)
    blobs = [await main(storage).read(range(1000)) for storage in storages]
    assert blobs[0] == blobs[1]


def _random_operation(rng):
    kind = rng.choice(
        ["commit", "reserve", "open", "publish", "claim", "report"], p=[0.4, 0.4, 0.02, 0.06, 0.06, 0.06]
    )
    return str(kind), *(int(n) for n in rng.integers(0, 40, 6))


async def _outcome(storage, operation):
    kind, a, b, c, d, e, f = operation
    status = await storage.status()
    try:
        match kind:
            case "commit":
                seqs = [status.counters.episodes + n for n in sorted((a, b, c))[: 1 + d % 3]]
                members = tuple(
                    episode(seq + 1, session="xy"[e % 2], length=1 + f, size=10 * e + 1) for seq in seqs
                )
                return await storage.commit(Group(table="default", episodes=members), again=False)
            case "reserve":
                stream = await main(storage).open_stream(status.counters.samples // BATCH_SIZE)
                return [
                    await main(storage).reserve(stream, status.counters.samples // BATCH_SIZE, most=most)
                    for most in (0, 1 + a % 4, 1 + b % 3)
                ]
            case "open":
                return await main(storage).open_stream(max(0, status.counters.samples // BATCH_SIZE - a % 3))
            case "publish":
                weights = Weights(session="pq"[a % 2], version=1 + b, data=b"%d of %d" % (b, a % 2))
                return await storage.publish_weights(weights)
            case "claim":
                return await storage.claim_evaluation()
            case "report":
                return await storage.report_evaluation(evaluation(30 * a))
    except StateConflictError as error:
        return str(error)
