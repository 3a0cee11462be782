"""What only the Redis storage has to do: clean up, find its way back, and work as several replicas."""

import asyncio
import os
import signal

import pytest
from redis.asyncio import Redis

from common import codec
from common.types import Weights
from replay.changes import Topic
from replay.errors import UnavailableError
from replay.redis_link import RedisLink, address_of
from replay.redis_server import redis_server
from replay.storage import NO_WEIGHTS, Outcome
from tests.episodes import SPEC
from tests.replay.conftest import RUN, with_table
from tests.replay.groups import blob, evaluation, group, main
from tests.replay.running import BATCH_SIZE


@pytest.fixture
async def storage(open_redis):
    storage = await open_redis()
    await storage.open_run(RUN)
    return storage


@pytest.fixture
async def redis(redis_url):
    async with Redis.from_url(redis_url) as client:
        yield client


async def keys(redis, prefix):
    return {key.decode().split(":", 1)[1] async for key in redis.scan_iter(f"{{{prefix}}}:*")}


async def commit(storage, *seqs):
    return await storage.commit(group(*seqs), again=False)


async def until(storage, *, reachable):
    while storage.reachable != reachable:
        await storage.changes.wait(storage.changes.event(Topic.HEALTH))


async def test_nothing_is_left_beside_the_window(storage, redis, prefix):
    for seq in range(1, 5):
        await commit(storage, seq, seq)
        await commit(storage, seq)
    for version in (1, 2, 2):
        await storage.publish_weights(Weights(session="x", version=version, data=b"w"))
    episodes = {f"episode:{index}" for index in range(4)}
    assert await keys(redis, prefix) == episodes | {"run", "state", "stored", "seqs", f"weights:x {2:020d}"}
    for name in episodes | {f"weights:x {2:020d}"}:
        assert await redis.ttl(f"{{{prefix}}}:{name}") == -1, "what is stored must not expire"


async def test_weights_of_a_point_go_with_its_result(storage, redis, prefix):
    for version in (1, 2, 3):
        await storage.publish_weights(Weights(session="x", version=version, data=b"w"))
        await storage.commit(group(version, length=100), again=False)
    await storage.publish_weights(Weights(session="x", version=4, data=b"w"))
    for point in (100, 200, 300):
        await storage.report_evaluation(evaluation(point))
    assert {name for name in await keys(redis, prefix) if name.startswith(("weights", "due"))} == {
        f"weights:x {4:020d}"
    }


async def test_a_group_that_is_held_back_leaves_nothing_and_is_sent_again_when_it_may_enter(
    storage, redis, prefix
):
    for seq in range(1, 6):
        await commit(storage, seq)
    before, held = await keys(redis, prefix), group(6, 7)
    for again in (False, True):
        assert (await storage.commit(held, again=again)).held_back
    assert await keys(redis, prefix) == before
    stream = await main(storage).open_stream(0)
    assert (await main(storage).reserve(stream, 0, most=1)).granted
    assert (await storage.commit(held, again=True)).outcomes == (Outcome.STORED,) * 2
    assert await main(storage).read([5, 6]) == [blob("a", 6), blob("a", 7)]


async def test_thousands_enter_and_leave_in_one_step(open_redis, redis, prefix):
    """A Redis command within a script takes some thousand arguments, no more."""
    rules = with_table(window_episodes=10_000, insert_lead_episodes=10_000)
    wide = await open_redis(rules)
    await wide.open_run(RUN)
    for first in range(0, 5 * 1024, 1024):
        outcomes = (await commit(wide, *range(first + 1, first + 1025))).outcomes
        assert set(outcomes) == {Outcome.STORED}
    narrow = await open_redis(with_table(window_episodes=20, insert_lead_episodes=10_000))
    await commit(narrow, 5121)
    names = {name for name in await keys(redis, prefix) if name.startswith("episode:")}
    assert names == {f"episode:{index}" for index in range(5101, 5121)}
    assert await redis.hlen(f"{{{prefix}}}:stored") == 20


async def test_a_full_redis_takes_nothing_of_a_group(open_redis, tmp_path):
    async with redis_server(tmp_path) as server, Redis.from_url(server.url) as client:
        storage = await open_redis(url=server.url)
        await storage.open_run(RUN)
        await commit(storage, 1)
        before, names = await storage.status(), await client.keys()
        await client.config_set("maxmemory", 100_000)
        with pytest.raises(UnavailableError, match="OOM"):
            await commit(storage, 2, 3)
        await client.config_set("maxmemory", 0)
        assert (await storage.status(), await client.keys()) == (before, names)
        assert (await commit(storage, 2, 3)).outcomes == (Outcome.STORED,) * 2


async def test_a_full_redis_stops_both_sides_and_the_start_of_a_service(open_redis, tmp_path):
    """What docs/operations.md says of it: the window can be made smaller only before."""
    async with redis_server(tmp_path) as server, Redis.from_url(server.url) as client:
        storage = await open_redis(url=server.url)
        await storage.open_run(RUN)
        await commit(storage, 1, 2, 3, 4)
        stream = await main(storage).open_stream(0)
        await client.config_set("maxmemory", 100_000)
        smaller = await open_redis(with_table(window_episodes=BATCH_SIZE), url=server.url)
        for write in (main(storage).reserve(stream, 0, most=1), smaller.open_run(RUN), commit(smaller, 5)):
            with pytest.raises(UnavailableError, match="OOM"):
                await write
        await client.config_set("maxmemory", 0)
        await smaller.open_run(RUN)
        assert (await commit(smaller, 5)).tail == 1


async def test_a_redis_that_was_emptied_is_not_begun_anew(storage, redis, prefix):
    await commit(storage, 1)
    for name in await keys(redis, prefix):
        await redis.delete(f"{{{prefix}}}:{name}")
    for call in (
        commit(storage, 2),
        storage.status(),
        storage.newest_weights(NO_WEIGHTS),
        storage.spec(),
        storage.register_spec(SPEC),
    ):
        with pytest.raises(UnavailableError, match="lost the run's data"):
            await call
    assert not await keys(redis, prefix)
    await storage.open_run(RUN)  # as a restarted service does
    assert (await storage.status()).counters.episodes == 0


async def test_a_run_of_which_only_the_spec_is_left_is_begun_anew(open_redis, redis, prefix):
    await redis.hset(f"{{{prefix}}}:run", "spec", codec.spec_to_proto(SPEC).SerializeToString())
    storage = await open_redis()
    await storage.open_run(RUN)
    assert (await storage.spec(), (await storage.status()).counters.episodes) == (SPEC, 0)


async def test_scripts_are_loaded_again_when_redis_has_forgotten_them(storage, redis):
    await commit(storage, 1)
    await redis.script_flush()
    assert (await commit(storage, 2)).outcomes == (Outcome.STORED,)


async def test_replicas_wake_each_other(open_redis, storage):
    other = await open_redis()
    event = other.changes.event(Topic.EPISODES)
    waiting = asyncio.ensure_future(other.changes.wait(event))
    await commit(storage, 1, 2, 3, 4)
    await waiting


async def test_a_redis_that_was_killed_comes_back_with_everything(open_redis, tmp_path):
    async with redis_server(tmp_path) as server:
        storage = await open_redis(url=server.url)
        await storage.open_run(RUN)
        await commit(storage, 1, 2, 3)
        os.kill(server.pid, signal.SIGKILL)
        await until(storage, reachable=False)
        with pytest.raises(UnavailableError, match=r"redis\.sock"):
            await storage.status()
        async with redis_server(tmp_path):
            await until(storage, reachable=True)
            assert storage.epoch > 0
            assert (await storage.status()).counters.episodes == 3
            assert await main(storage).read([0, 1, 2]) == [blob("a", seq) for seq in (1, 2, 3)]
            assert (await commit(storage, 3, 4)).outcomes == (Outcome.DUPLICATE, Outcome.STORED)


async def test_a_redis_that_hangs_counts_as_unreachable(open_redis, tmp_path):
    async with redis_server(tmp_path) as server:
        storage = await open_redis(url=server.url, timeout_s=0.2)
        await storage.open_run(RUN)
        os.kill(server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(UnavailableError):
                await storage.status()
            await until(storage, reachable=False)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        await until(storage, reachable=True)
        assert (await storage.status()).counters.episodes == 0


async def test_a_redis_that_became_a_replica_counts_as_unreachable(open_redis, tmp_path, prefix):
    """As a managed one does in a failover; its connections stay open, and only new ones lead elsewhere."""
    async with redis_server(tmp_path) as server, Redis.from_url(server.url) as client:
        storage = await open_redis(url=server.url)
        await storage.open_run(RUN)
        await commit(storage, 1)
        connections = {each["id"] for each in await client.client_list()}
        await client.replicaof("127.0.0.1", 1)
        with pytest.raises(UnavailableError, match="READONLY"):
            await commit(storage, 2)
        for _ in range(3):  # each time that the listener has tried again
            assert (storage.reachable, storage.epoch) == (False, 1)
            await storage.changes.wait(storage.changes.event(Topic.HEALTH))
        late = RedisLink(server.url, prefix=prefix, timeout_s=1.0)
        with pytest.raises(UnavailableError, match="replica"):
            await late.connect(0.5)
        await late.close()
        await client.replicaof("NO", "ONE")
        await until(storage, reachable=True)
        assert (await commit(storage, 2)).outcomes == (Outcome.STORED,)
        (staying,) = connections & {each["id"] for each in await client.client_list()}
        assert int(staying) == await client.client_id(), "every other connection is a new one"


async def test_an_address_where_nothing_listens(tmp_path, prefix):
    link = RedisLink(f"unix://{tmp_path}/none.sock", prefix=prefix, timeout_s=1.0)
    with pytest.raises(UnavailableError, match=r"none\.sock"):
        await link.connect(0.05)
    await link.close()


async def test_a_link_is_closed_although_a_cancellation_was_lost(redis_url, prefix, monkeypatch):
    link, trying, tries = RedisLink(redis_url, prefix=prefix, timeout_s=1.0), asyncio.Event(), []

    async def ping():
        tries.append(True)
        trying.set()
        try:
            await asyncio.sleep(60)
        finally:
            if len(tries) == 1:
                raise ConnectionError

    monkeypatch.setattr(link._listening, "ping", ping)
    connecting = asyncio.ensure_future(link.connect(60))
    await trying.wait()
    await link.close()
    connecting.cancel()


def test_addresses_are_shown_without_secrets():
    assert address_of("redis://user:secret@host:7000/3") == "host:7000"
    assert address_of("rediss://host") == "host:6379"
    assert address_of("unix:///a%20b/redis.sock") == "/a b/redis.sock"
    with pytest.raises(ValueError, match="redis://"):
        address_of("http://host")
