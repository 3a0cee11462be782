"""A real server that speaks Redis's protocol, one for all tests; each test has its own keys in it."""

import dataclasses
import uuid
from contextlib import AsyncExitStack
from functools import partial

import pytest
import pytest_asyncio

from replay.memory_storage import MemoryStorage
from replay.redis_link import RedisLink
from replay.redis_server import redis_server
from replay.redis_storage import RedisStorage
from replay.settings import DEFAULT_TABLE
from replay.storage import Rules, RunParameters
from replay.table import TableRules
from tests.replay.running import BATCH_SIZE, NO_END, serving


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def redis_url(tmp_path_factory):
    async with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture
def prefix():
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture
def replay(redis_url, prefix):
    """`async with replay(**settings) as client`: a service whose keys are this test's."""
    return partial(serving, redis_url=redis_url, redis_prefix=prefix)


TABLE = TableRules(
    name=DEFAULT_TABLE,
    batch_size=BATCH_SIZE,
    samples_per_insert=2.0,
    insert_lead_episodes=4,
    window_episodes=20,
    window_bytes=10**9,
)
RULES = Rules(tables={DEFAULT_TABLE: TABLE}, evaluation_interval=100, evaluation_lease_s=60.0)
RUN = RunParameters(total_env_steps=NO_END, batch_size=BATCH_SIZE, seed=1)


def with_tables(rules=RULES, **tables) -> Rules:
    """These rules with other tables: changes of TABLE by name; the default table need not be named."""
    named = {
        name: dataclasses.replace(TABLE, name=name, **changes)
        for name, changes in {DEFAULT_TABLE: {}, **tables}.items()
    }
    return dataclasses.replace(rules, tables=named)


def with_table(**changes) -> Rules:
    """The rules with another default table."""
    return with_tables(default=changes)


@pytest_asyncio.fixture
async def open_redis(redis_url, prefix):
    """Opens a RedisStorage on this test's keys; every call is another replica."""
    async with AsyncExitStack() as stack:

        async def open_storage(rules=RULES, *, url=redis_url, timeout_s=5.0):
            link = RedisLink(url, prefix=prefix, timeout_s=timeout_s)
            stack.push_async_callback(link.close)
            await link.connect(10.0)
            return RedisStorage(link, rules)

        yield open_storage


@pytest.fixture(params=["memory", "redis"])
def open_storage(request, open_redis):
    """Opens one empty storage of each kind."""

    async def open_memory(rules=RULES):
        return MemoryStorage(rules)

    return open_memory if request.param == "memory" else open_redis
