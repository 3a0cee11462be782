"""Evaluations claimed and reported, over real channels."""

import asyncio

import pytest
from grpc import StatusCode

from tests.replay.running import message, refused


async def play(client, count, *, first=1):
    await client.insert(*(message(seq, length=5) for seq in range(first, first + count)))


async def test_an_evaluation_falls_due_while_the_evaluator_waits(replay):
    async with replay(evaluation_interval=10, evaluation_episodes=7, evaluation_lease_s=33) as client:
        await client.register()
        await client.publish(3, data=b"three")
        assert not (await client.claim()).due
        waiting = asyncio.ensure_future(client.claim(wait_ms=30_000))
        await play(client, 2)
        claim = await waiting
        assert (claim.due, claim.env_steps, claim.episodes, claim.lease_s) == (True, 10, 7, 33)
        assert (claim.weights.version, claim.weights.data) == (3, b"three")
        assert not (await client.claim(wait_ms=1)).due


async def test_the_weights_are_those_of_the_moment(replay):
    async with replay(evaluation_interval=10) as client:
        await client.register()
        await play(client, 2)
        assert not (await client.claim()).due
        waiting = asyncio.ensure_future(client.claim(wait_ms=30_000))
        await client.publish(1, data=b"first")
        assert (await waiting).weights.data == b"first"
        await play(client, 2, first=3)
        for version in range(2, 5):
            await client.publish(version, data=b"later")
        assert (await client.claim()).weights.version == 1


async def test_a_lease_that_was_not_reported_goes_to_the_next_who_waits(replay):
    async with replay(evaluation_interval=10, evaluation_lease_s=1) as client:
        await client.register()
        await client.publish(1)
        await play(client, 2)
        assert (await client.claim()).due
        again = await client.claim(wait_ms=30_000)
        assert (again.due, again.env_steps) == (True, 10)


async def test_results_are_listed_and_the_first_stays(replay):
    async with replay(evaluation_interval=10, total_env_steps=20) as client:
        await client.register()
        await client.publish(1)
        await play(client, 4)
        assert (await client.status()).evaluations_pending == 2
        await client.report(20, wins=2)
        await client.report(20, wins=0)
        waiting = asyncio.ensure_future(client.claim(wait_ms=30_000))
        assert (await waiting).env_steps == 10
        over = asyncio.ensure_future(client.claim(wait_ms=30_000))
        await client.report(10)
        answer = await over
        assert (answer.due, answer.run_complete) == (False, True)
        assert [(e.env_steps, e.wins, e.mean_return) for e in await client.evaluations()] == [
            (10, 1, 3.5),
            (20, 2, 3.5),
        ]


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("evaluation.wins", {"wins": 3}),
        ("evaluation.episodes", {"episodes": 0}),
        ("evaluation.mean_return", {"mean_return": float("nan")}),
        ("evaluation.mean_length", {"mean_length": float("inf")}),
    ],
)
async def test_a_malformed_result_changes_nothing(replay, field, wrong):
    async with replay(evaluation_interval=10) as client:
        await client.register()
        await play(client, 2)
        with refused(StatusCode.INVALID_ARGUMENT, field):
            await client.report(10, **wrong)
        with refused(StatusCode.FAILED_PRECONDITION, "no evaluation is due at 20"):
            await client.report(20)
        with refused(StatusCode.INVALID_ARGUMENT, "wait_ms"):
            await client.claim(wait_ms=30_001)
        assert await client.evaluations() == []
        assert (await client.status()).evaluations_pending == 1
