"""A real server that speaks Redis's protocol, one for all tests; each test has its own keys in it."""

import uuid

import pytest
import pytest_asyncio

from replay.redis_server import redis_server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def redis_url(tmp_path_factory):
    async with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture
def prefix():
    return f"test-{uuid.uuid4().hex}"
