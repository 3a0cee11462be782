"""Weights in and out, over real channels."""

import asyncio

from grpc import StatusCode

from protos import replay_pb2 as pb
from tests.replay.running import message, refused


async def test_before_the_first_there_is_nothing(replay):
    async with replay() as client:
        response = await client.fetch(wait_ms=1)
        assert (response.weights.version, response.weights.data, response.not_modified) == (0, b"", False)
        waiting = asyncio.ensure_future(client.fetch(wait_ms=30_000))
        await client.publish(1, data=b"one")
        response = await waiting
        assert (response.weights.data, response.counters.weights_version) == (b"one", 1)


async def test_a_caller_that_has_the_newest_waits_for_a_newer_one(replay):
    async with replay() as client:
        await client.register()
        await client.publish(5, data=b"five")
        await client.insert(message(1))
        have = {"have_session": "learner-1", "have_version": 5}
        response = await client.fetch(wait_ms=1, **have)
        assert response.not_modified and not response.HasField("weights")
        assert response.counters.episodes == 1
        waiting = asyncio.ensure_future(client.fetch(wait_ms=30_000, **have))
        await client.publish(6, data=b"six")
        assert (await waiting).weights.data == b"six"
        assert (await client.fetch(**have)).weights.version == 6


async def test_waiting_for_a_version(replay):
    async with replay() as client:
        await client.publish(5)
        waiting = asyncio.ensure_future(client.fetch(min_version=7, wait_ms=30_000))
        await client.publish(6)
        assert (await client.fetch(min_version=7, wait_ms=1)).weights.version == 6, "what there is"
        assert not waiting.done()
        await client.publish(7)
        assert (await waiting).weights.version == 7
        response = await client.fetch(have_session="learner-1", have_version=7, min_version=7, wait_ms=30_000)
        assert response.not_modified


async def test_versions_of_a_session_only_rise(replay):
    async with replay() as client:
        await client.publish(5, data=b"five")
        await client.publish(5, data=b"sent again")
        with refused(StatusCode.FAILED_PRECONDITION, "version 4"):
            await client.publish(4)
        assert (await client.fetch()).weights.data == b"five"
        await client.publish(2, session="restarted")
        assert (await client.fetch()).weights == pb.Weights(session="restarted", version=2, data=b"weights")


async def test_malformed_weights_change_nothing(replay):
    async with replay() as client:
        for wrong, field in (
            ({"version": 0}, "weights.version"),
            ({"version": 1, "session": "not valid"}, "weights.session"),
            ({"version": 1, "data": b""}, "weights.data"),
        ):
            with refused(StatusCode.INVALID_ARGUMENT, field):
                await client.publish(**wrong)
        with refused(StatusCode.INVALID_ARGUMENT, "wait_ms"):
            await client.fetch(wait_ms=30_001)
        assert (await client.fetch()).weights.version == 0
