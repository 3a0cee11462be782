"""Where the Redis of a run's own comes from, and what its end means."""

import os
import signal

import psutil
import pytest

from common.errors import FatalError
from replay.redis_server import find_program
from tests.replay.running import serving


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A PATH with nothing but what a test puts into it."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    return directory


def put(path, name, text="#!/bin/sh\nexit 7\n"):
    program = path / name
    program.write_text(text)
    program.chmod(0o755)
    return str(program)


def test_programs_of_the_path_come_first(path):
    embedded = find_program()
    assert embedded.endswith("valkey-server")
    assert not embedded.startswith(str(path))
    valkey = put(path, "valkey-server")
    assert find_program() == valkey
    redis = put(path, "redis-server")
    assert find_program() == redis


async def test_a_program_that_does_not_start(path, tmp_path):
    put(path, "redis-server")
    with pytest.raises(FatalError, match=r"ended with code 7; .*redis\.log"):
        async with serving(redis_url="", data_dir=tmp_path / "data"):
            pass


async def test_the_service_ends_with_a_sentence_when_its_redis_dies(tmp_path):
    with pytest.raises(FatalError, match=r"ended with code -9; .*redis\.log"):
        async with serving(redis_url="", data_dir=tmp_path) as client:
            children = psutil.Process(os.getpid()).children()
            alive = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
            (redis,) = [child for child in alive if str(tmp_path) in " ".join(child.cmdline())]
            os.kill(redis.pid, signal.SIGKILL)
            await client.service
