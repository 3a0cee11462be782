"""Samplers and priorities over real channels."""

import asyncio
import contextlib
import math

import grpc
import numpy as np
import pytest
from grpc import StatusCode
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from protos import replay_pb2 as pb
from replay.admission import MAX_PRIORITIES, PRIORITY_RANGE
from tests.replay.running import TIMEOUT_S, message, refused, serving

DRAWS = 100_000
PRIORITISED = {"sampler": "prioritised", "alpha": 0.6, "beta": 0.4}
LEAD = 10**6


async def fill(client, episodes, *, table=""):
    for first in range(1, episodes + 1, 500):
        last = min(episodes, first + 499)
        await client.insert(*(message(seq, length=1) for seq in range(first, last + 1)), table=table)


async def update(client, batch, priorities, *, table=""):
    request = pb.UpdatePrioritiesRequest(
        table=table, batch=batch, indices=priorities.keys(), priorities=priorities.values()
    )
    await client.stub.UpdatePriorities(request, timeout=TIMEOUT_S)


async def drawn(client, batches, batch_size, **opening):
    """Index and importance of everything in so many batches; without importance, of uniform tables."""
    stream = client.sampling()
    await stream.open(credits=batches, batch_size=batch_size, **opening)
    seqs, indices, importance = [], [], []
    for _ in range(batches):
        batch = await stream.batch()
        seqs += [seq for _, seq in batch.ids]
        indices += [index for part in batch.responses for index in part.indices]
        importance += [weight for part in batch.responses for weight in part.importance]
    stream.call.cancel()
    return np.array(seqs), np.array(indices), np.array(importance)


async def test_the_uniform_sampler_is_uniform(replay):
    batch_size, window = 500, 2000
    async with replay(
        samples_per_insert=DRAWS, batch_size=batch_size, window_episodes=window, insert_lead_episodes=LEAD
    ) as client:
        await client.register()
        await fill(client, window + 100)
        seqs, indices, _ = await drawn(client, DRAWS // batch_size, batch_size)
    assert not len(indices), "who draws uniformly says no more than before"
    counts = np.bincount(seqs - 1, minlength=window + 100)
    assert not counts[:100].any(), "only the window"
    # Without replacement counts vary less, by this factor.
    less = (window - batch_size) / (window - 1)
    chi_squared = stats.chisquare(counts[100:]).statistic / less
    assert 1e-3 < stats.chi2(window - 1).sf(chi_squared) < 1 - 1e-3


async def test_the_prioritised_sampler_follows_its_priorities(replay):
    batch_size, window = 1000, 400
    async with replay(
        samples_per_insert=DRAWS,
        batch_size=batch_size,
        window_episodes=1000,
        insert_lead_episodes=LEAD,
        tables={"default": PRIORITISED},
    ) as client:
        await client.register()
        await fill(client, 1000)
        rng = np.random.default_rng(0)
        priorities = np.full(1000, PRIORITY_RANGE[0])
        priorities[:window] = rng.uniform(0.1, 20.0, window)
        await update(client, 0, dict(enumerate(priorities)))
        seqs, indices, importance = await drawn(client, DRAWS // batch_size, batch_size)
    np.testing.assert_array_equal(seqs - 1, indices)
    expected = priorities**0.6 / np.sum(priorities**0.6)
    counts = np.bincount(indices, minlength=1000)
    likely = expected * DRAWS > 5
    assert likely.sum() == window
    rest = [*counts[likely], counts[~likely].sum()]
    result = stats.chisquare(rest, DRAWS * np.array([*expected[likely], expected[~likely].sum()]))
    assert 1e-3 < result.pvalue < 1 - 1e-3
    weight = (1000 * expected[indices]) ** -0.4
    weight /= np.max((1000 * expected) ** -0.4)
    np.testing.assert_allclose(importance, weight, rtol=1e-4)


async def test_a_batch_whose_answer_was_lost_comes_again_as_it_was(replay):
    """Also when priorities, and the window, have changed since; a batch that was consumed does not."""
    settings = {"tables": {"default": PRIORITISED | {"max_times_sampled": 3}}, "samples_per_insert": 2}
    async with replay(**settings, insert_lead_episodes=LEAD) as client:
        await client.register()
        await fill(client, 40)
        await update(client, 0, {index: 1.0 + index for index in range(40)})
        before = await drawn(client, 3, 4)
    async with replay(**settings, insert_lead_episodes=LEAD) as client:
        await update(client, 1, {index: 50.0 - index for index in range(40)})
        await client.insert(*(message(seq) for seq in range(41, 60)))
        again = await drawn(client, 3, 4)
        for first, second in zip(before, again, strict=True):
            np.testing.assert_array_equal(first, second)
        later = await drawn(client, 3, 4, consumed=2)
        np.testing.assert_array_equal(later[0][:4], before[0][8:])
        assert (await client.status()).counters.samples == 5 * 4


async def test_no_episode_is_sampled_more_often_than_may_be(replay):
    table = {"max_times_sampled": 2, "samples_per_insert": 2}
    async with replay(tables={"default": table}, insert_lead_episodes=LEAD) as client:
        await client.register()
        await fill(client, 64)
        stream, counts = client.sampling(), np.zeros(65, dtype=int)
        await stream.open(credits=3)
        for number in range(100):
            if (await client.status()).tables[0].window_episodes < 4:
                break
            for _, seq in (await stream.batch()).ids:
                counts[seq] += 1
            await stream.add_credits(consumed=number + 1)
        assert counts.max() == 2
        assert counts.sum() > 100


async def test_a_table_keeps_its_bytes(replay):
    size = message(1, length=1).ByteSize()
    table = PRIORITISED | {"window_bytes": 10 * size + size // 2}
    async with replay(tables={"default": table}, insert_lead_episodes=LEAD) as client:
        await client.register()
        for seq in range(1, 30):
            await client.insert(message(seq, length=1))
            (status,) = (await client.status()).tables
            assert status.window_bytes <= table["window_bytes"]
        assert status.window_episodes in (9, 10)


@pytest.mark.parametrize(
    ("changes", "code", "problem"),
    [
        ({"table": "queue"}, StatusCode.FAILED_PRECONDITION, "table: 'queue' is not prioritised"),
        ({"table": "none"}, StatusCode.NOT_FOUND, "table: there is no 'none'"),
        ({"table": "x" * 10**6}, StatusCode.NOT_FOUND, "table: there is no"),
        ({"indices": [0, 12]}, StatusCode.INVALID_ARGUMENT, "indices: 12 was never stored"),
        ({"indices": [0, 2**64 - 1]}, StatusCode.INVALID_ARGUMENT, "indices: "),
        ({"indices": [1, 1]}, StatusCode.INVALID_ARGUMENT, "indices: one is there twice"),
        ({"indices": [1]}, StatusCode.INVALID_ARGUMENT, "priorities: 2 for 1 indices"),
        ({"priorities": [1.0, math.nan]}, StatusCode.INVALID_ARGUMENT, "priorities: nan is not between"),
        ({"priorities": [1.0, math.inf]}, StatusCode.INVALID_ARGUMENT, "priorities: inf is not between"),
        ({"priorities": [1.0, -1.0]}, StatusCode.INVALID_ARGUMENT, "priorities: -1.0 is not between"),
        ({"priorities": [1.0, 0.0]}, StatusCode.INVALID_ARGUMENT, "priorities: 0.0 is not between"),
        ({"priorities": [1.0, 1e7]}, StatusCode.INVALID_ARGUMENT, "priorities: 10000000.0 is not"),
        ({"batch": 2**41}, StatusCode.INVALID_ARGUMENT, "batch: "),
        (
            {"indices": range(MAX_PRIORITIES + 1), "priorities": [1.0] * (MAX_PRIORITIES + 1)},
            StatusCode.INVALID_ARGUMENT,
            f"indices: {MAX_PRIORITIES + 1}, more than {MAX_PRIORITIES}",
        ),
    ],
)
async def test_wrong_updates_are_refused_and_change_nothing(replay, changes, code, problem):
    tables = {"default": PRIORITISED, "queue": {"sampler": "fifo", "limiter": "queue"}}
    async with replay(tables=tables, insert_lead_episodes=LEAD) as client:
        await client.register()
        await fill(client, 12)
        await update(client, 3, {index: 0.5 + index for index in range(12)})
        right = {"batch": 7, "indices": [0, 1], "priorities": [9.0, 9.0]}
        request = pb.UpdatePrioritiesRequest(**right | changes)
        with refused(code, problem):
            await client.stub.UpdatePriorities(request, timeout=TIMEOUT_S)
        _, indices, importance = await drawn(client, 2, 4)
        np.testing.assert_allclose(importance, ((0.5 + indices) / 0.5) ** (-0.6 * 0.4), rtol=1e-4)


NAMES = st.sampled_from(["", "default", "queue", "none"]) | st.text(max_size=40)
UINT64 = st.integers(0, 20) | st.integers(0, 2**64 - 1)
UPDATES = st.builds(
    pb.UpdatePrioritiesRequest,
    table=NAMES,
    batch=UINT64,
    indices=st.lists(UINT64, max_size=5),
    priorities=st.lists(st.floats() | st.floats(0.1, 9.0), max_size=5),
)
OPENINGS = st.builds(
    pb.SampleRequest,
    open=st.builds(
        pb.SampleOpen, table=NAMES, batch_size=st.just(4) | st.integers(0, 2**32 - 1), consumed_batches=UINT64
    ),
    credits=st.integers(0, 2**32 - 1),
    consumed_batches=UINT64,
)
SAID = {StatusCode.INVALID_ARGUMENT, StatusCode.NOT_FOUND, StatusCode.FAILED_PRECONDITION}


@given(st.lists(st.tuples(UPDATES, OPENINGS, OPENINGS, NAMES), min_size=1, max_size=20))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_no_garbage_harms_the_service(rounds):
    asyncio.run(_send_garbage(rounds))


async def _send_garbage(rounds):
    tables = {"default": PRIORITISED, "queue": {"sampler": "fifo", "limiter": "queue"}}
    async with serving(tables=tables, insert_lead_episodes=LEAD) as client:
        await client.register()
        await fill(client, 8)
        await fill(client, 8, table="queue")
        for request, opening, following, name in rounds:
            before = await client.status()
            await _said(client.stub.UpdatePriorities(request, timeout=TIMEOUT_S), request)
            await _said(client.insert(table=name), name)
            after = await client.status()
            assert [table.inserts for table in after.tables] == [table.inserts for table in before.tables]
            stream = client.sampling()
            await stream.call.write(opening)
            with contextlib.suppress(grpc.aio.AioRpcError):  # it may have been refused by now
                await stream.call.write(following)
            stream.call.cancel()
        stream = client.sampling()
        await stream.open(credits=1)
        assert len((await stream.batch()).ids) == 4


async def _said(call, what):
    try:
        await call
    except grpc.aio.AioRpcError as error:
        assert error.code() in SAID, what
        assert error.details()
