"""One connection that many callers share."""

import asyncio
import contextlib
import ssl
import subprocess

import pytest
import uvloop
from redis.asyncio import ConnectionPool, Redis

from replay.redis_connection import COPIED_BYTES, SharedConnection
from replay.redis_link import RedisLink


def connection_to(url, *, timeout_s=5.0, **options):
    return SharedConnection(ConnectionPool.from_url(url, protocol=2, **options).make_connection, timeout_s)


@pytest.fixture
async def connection(open_redis, redis_url):
    await open_redis()  # waits until it answers
    connection = connection_to(redis_url)
    yield connection
    await connection.close()


async def test_every_caller_gets_the_replies_of_its_commands(connection):
    sizes = [0, 1, COPIED_BYTES, COPIED_BYTES + 1, 10**6]
    echoes = [[("ECHO", bytes([n]) * size) for size in sizes[n % 3 :]] for n in range(20)]
    replies = await asyncio.gather(*(connection.call(*commands) for commands in echoes))
    assert replies == [[argument for _, argument in commands] for commands in echoes]


async def test_the_reply_of_a_caller_that_has_gone_is_nobody_elses(connection):
    await connection.call(("PING",))
    gone = asyncio.ensure_future(connection.call(("ECHO", "gone"), ("ECHO", "too")))
    staying = asyncio.ensure_future(connection.call(("ECHO", "staying")))
    await asyncio.sleep(0)  # both have sent
    gone.cancel()
    assert await staying == [b"staying"]


async def test_what_was_lost_with_the_connection_is_sent_again(connection, redis_url):
    await connection.call(("PING",))
    blocked = asyncio.ensure_future(connection.call(("BLPOP", f"lost:{id(connection)}", 60)))
    async with Redis.from_url(redis_url) as client:
        while not (await client.info("clients"))["blocked_clients"]:
            await asyncio.sleep(0)
        await client.client_kill_filter(_type="normal", skipme=True)
        await client.rpush(f"lost:{id(connection)}", "found")
    assert (await blocked)[0][1] == b"found"


async def test_an_answer_that_does_not_come_in_time(open_redis, redis_url):
    await open_redis()
    connection = connection_to(redis_url, timeout_s=0.05)
    waiting = asyncio.ensure_future(connection.call(("BLPOP", "never", 60)))
    with pytest.raises(TimeoutError, match=r"no answer in 0\.05 s"):
        await waiting
    assert await connection.call(("PING",)) == [b"PONG"], "on a new connection"
    await connection.close()


def test_encrypted_as_the_service_uses_it(redis_url, tmp_path):
    """On uvloop, as the service runs, with the certificate named in the address."""
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    files = ("-keyout", key, "-out", certificate)
    subprocess.run([*command.split(), *files], check=True, capture_output=True)

    async def talk():
        async with tls_before(redis_url, certificate, key) as port:
            url = f"rediss://localhost:{port}?ssl_ca_certs={certificate}"
            link = RedisLink(url, prefix="tls", timeout_s=5.0)
            await link.connect(10.0)
            large = bytes(10**6)
            assert await link.transaction(("SET", "large", large), ("GET", "large")) == [b"OK", large]
            await link.close()

    uvloop.run(talk())


@contextlib.asynccontextmanager
async def tls_before(redis_url, certificate, key):
    """A port that speaks TLS and hands everything on to a Redis, which may have been built without."""

    async def forward(reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader, writer):
        redis_reader, redis_writer = await asyncio.open_unix_connection(redis_url.removeprefix("unix://"))
        await asyncio.gather(forward(reader, redis_writer), forward(redis_reader, writer))

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with listening:
        yield listening.sockets[0].getsockname()[1]
