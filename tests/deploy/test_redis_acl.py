"""Redis with the users that make_secrets.sh makes: what was acknowledged is there after it was killed."""

import subprocess

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from replay.redis_server import find_program


def start(secrets, directory):
    options = {
        "port": "0",
        "unixsocket": str(directory / "s"),
        "dir": str(directory),
        "aclfile": str(secrets / "redis" / "users.acl"),
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
    }
    arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
    return subprocess.Popen([find_program(), *arguments], stdout=subprocess.DEVNULL)


def client(directory, password):
    wait = Retry(ConstantBackoff(0.05), 200)  # until it listens and has read its file
    errors = [redis.ConnectionError, FileNotFoundError, redis.BusyLoadingError]
    return redis.Redis(
        unix_socket_path=str(directory / "s"),
        username="vdfd",
        password=password,
        retry=wait,
        retry_on_error=errors,
    )


def test_transactions_survive_a_kill_and_the_default_user_is_shut_out(secrets, tmp_path):
    password = (secrets / "replay" / "redis_password").read_text()
    server = start(secrets, tmp_path)
    try:
        with client(tmp_path, password) as connection:
            connection.ping()
            pipe = connection.pipeline(transaction=True)
            pipe.set("{run}:blob", b"episode").hset("{run}:state", "head", 1)
            pipe.execute()
            with pytest.raises(redis.ResponseError, match="no permissions"):
                connection.flushall()
        server.kill()
        server.wait()
        server = start(secrets, tmp_path)
        with client(tmp_path, password) as connection:
            assert connection.hget("{run}:state", "head") == b"1"
            assert connection.get("{run}:blob") == b"episode"
        nobody = redis.Redis(unix_socket_path=str(tmp_path / "s"))
        with nobody, pytest.raises(redis.AuthenticationError):
            nobody.ping()
    finally:
        server.kill()
        server.wait()
