"""The link to Redis: commands, scripts, and a listener that hears what other replicas change.

The only file that imports redis. What goes wrong comes out as UnavailableError.
"""

import asyncio
import logging
import time
from typing import Any
from urllib.parse import unquote, urlsplit

from hiredis import ReplyError
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, ReadOnlyError, RedisError
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from common.histogram import Histogram
from replay.changes import Changes, Topic
from replay.errors import UnavailableError
from replay.redis_connection import Argument, Command, Reply, SharedConnection
from replay.redis_scripts import Script

log = logging.getLogger(__name__)

PROBE_INTERVAL_S = 2.0
"""A silent connection is asked for a sign of life this often."""
CANCEL_AGAIN_S = 0.1
TOPICS = {topic.value.encode(): topic for topic in Topic}


class RedisLink:
    """One Redis, one key prefix. Call `connect` first."""

    def __init__(self, url: str, *, prefix: str, timeout_s: float, password: str | None = None) -> None:
        """Opens nothing yet. Raises ValueError if `url` is no Redis address.

        A password in `url` wins over `password`.

        All keys begin with "{prefix}:"; the braces keep them in one slot of a cluster.
        """
        self._address = address_of(url)
        self._prefix = f"{{{prefix}}}:"
        self._timeout_s = timeout_s
        # Without time-outs a network that swallows packets would hang the client for ever.
        options: dict[str, Any] = {
            "socket_timeout": timeout_s,
            "socket_connect_timeout": timeout_s,
            "protocol": 2,
        }
        if password is not None:
            options["password"] = password
        once = Retry(NoBackoff(), 0)
        make = ConnectionPool.from_url(url, retry=once, **options).make_connection
        self._small, self._bulk = SharedConnection(make, timeout_s), SharedConnection(make, timeout_s)
        # The listener has to see every break, because it may have missed messages in it.
        self._listening = Redis.from_url(url, retry=once, **options)
        self._listener: asyncio.Task[None] | None = None
        self.changes = Changes()
        self.latency = Histogram()
        """Seconds per round trip."""
        self.reachable = False
        self.epoch = 0
        self._problem: Exception | None = None
        """Why the listener has lost Redis, or not found it yet."""
        self._heard: asyncio.Transport
        """The listener's, while Redis is reachable."""

    def key(self, name: str) -> str:
        """The run's key of that name."""
        return self._prefix + name

    async def connect(self, timeout_s: float) -> None:
        """Waits until Redis answers and changes are heard; UnavailableError when the time is over.

        The time begins anew as long as Redis says that it is loading its data.
        """
        self._listener = asyncio.create_task(self._listen())
        self._listener.add_done_callback(self._stopped_listening)
        try:
            async with asyncio.timeout(timeout_s) as limit:
                while not self.reachable:
                    await self.changes.wait(self.changes.event(Topic.HEALTH))
                    if isinstance(self._problem, BusyLoadingError):
                        limit.reschedule(asyncio.get_running_loop().time() + timeout_s)
        except TimeoutError:
            await self.transaction(("PING",))  # says what is wrong
            raise self.unavailable(self._problem or f"no answer in {timeout_s:g} s") from None

    async def close(self) -> None:
        """Gives up the connections. May be called twice."""
        if self._listener is not None:
            while not self._listener.done():
                self._listener.cancel()  # before Python 3.12 it is lost where asyncio.wait_for has just ended
                await asyncio.wait((self._listener,), timeout=CANCEL_AGAIN_S)
            self._listener = None
        await self._listening.aclose()
        await self._small.close()
        await self._bulk.close()

    async def command(self, *command: Argument) -> Reply:
        """One command's reply."""
        (reply,) = await self._call(self._small, command)
        return self._checked(reply)

    async def transaction(self, *commands: Command) -> list[Reply]:
        """The replies of several commands, which Redis carries out with nothing in between."""
        *queued, replies = await self._call(self._small, ("MULTI",), *commands, ("EXEC",))
        for reply in queued:
            self._checked(reply)
        return [self._checked(reply) for reply in self._checked(replies)]

    async def run(self, script: Script, *arguments: Argument, bulk: bool = False) -> Reply:
        """A script's reply. `bulk`: the arguments are so large that no other call should wait behind them."""
        connection, given = self._bulk if bulk else self._small, (1, self._prefix, *arguments)
        (reply,) = await self._call(connection, ("EVALSHA", script.sha, *given))
        if isinstance(reply, ReplyError) and str(reply).startswith("NOSCRIPT"):  # Redis was restarted
            (reply,) = await self._call(connection, ("EVAL", script.text, *given))
        return self._checked(reply)

    async def info(self) -> dict[str, str]:
        """What Redis says of its memory and its append-only file."""
        sections = await self.transaction(("INFO", "memory"), ("INFO", "persistence"))
        lines = b"".join(sections).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def unavailable(self, problem: object) -> UnavailableError:
        """The error that says that Redis cannot be used, and where it is."""
        return UnavailableError(f"Redis at {self._address} cannot be used now: {problem}")

    def lost_run(self) -> UnavailableError:
        """The error for a Redis that was emptied: going on would begin the run anew."""
        return self.unavailable(
            "it has lost the run's data; restore them, or restart the service to begin anew"
        )

    async def _call(self, connection: SharedConnection, *commands: Command) -> list[Reply]:
        began = time.monotonic()
        try:
            replies = await connection.call(*commands)
        except (RedisError, OSError) as error:  # TimeoutError is an OSError
            raise self.unavailable(error or type(error).__name__) from error
        self.latency.observe(time.monotonic() - began)
        for reply in replies:
            if isinstance(reply, ReplyError) and str(reply).startswith("READONLY"):
                self._demoted(reply)
        return replies

    def _demoted(self, reply: ReplyError) -> None:
        """A failover made a replica of this Redis and left our connections open; new ones find the master."""
        for connection in (self._small, self._bulk):
            connection.abort()
        if self.reachable:
            self._lost(reply)
            self._heard.abort()

    def _checked(self, reply: Reply) -> Reply:
        if not isinstance(reply, ReplyError):
            return reply
        if str(reply) == "ERR NORUN":
            raise self.lost_run()
        raise self.unavailable(reply)

    async def _listen(self) -> None:
        broken = (RedisError, OSError)
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(broken), wait=wait_random_exponential(multiplier=0.05, max=1.0)
        )
        async for attempt in retrying:
            with attempt:
                try:
                    await self._find_master()
                    async with self._listening.pubsub() as subscription:
                        await self._hear(subscription)
                except broken as error:
                    self._lost(error)
                    raise

    async def _find_master(self) -> None:
        """Raises RedisError where nothing can be written: SUBSCRIBE would be answered all the same."""
        await self._listening.ping()  # refused while Redis loads its data
        if (await self._listening.info("replication")).get("role") == "slave":
            await self._listening.connection_pool.disconnect()
            raise ReadOnlyError("it is a replica, which cannot be written to")

    async def _hear(self, subscription: PubSub) -> None:
        await subscription.subscribe(self.key("changes"))
        await self._message(subscription)  # the confirmation: from here on nothing is missed
        connection: Any = subscription.connection
        self._heard = connection._writer.transport
        self.reachable = True
        self.changes.notify(*Topic)
        while True:
            message = await subscription.get_message(timeout=PROBE_INTERVAL_S)
            if message is None:
                await subscription.ping()
                message = await self._message(subscription)
            if message["type"] == "message" and (topic := TOPICS.get(message["data"])):
                self.changes.notify(topic)

    async def _message(self, subscription: PubSub) -> dict[str, Any]:
        message: dict[str, Any] | None = await subscription.get_message(timeout=self._timeout_s)
        if message is None:
            raise TimeoutError(f"no sign of life in {self._timeout_s:g} s")
        return message

    def _lost(self, error: Exception) -> None:
        if self.reachable:
            log.warning("lost Redis at %s: %s", self._address, error)
            self.reachable = False
            self.epoch += 1
        self._problem = error
        self.changes.notify(Topic.HEALTH)

    def _stopped_listening(self, listener: asyncio.Task[None]) -> None:
        if not listener.cancelled() and (error := listener.exception()) is not None:
            log.critical("changes of other replicas are not heard any more", exc_info=error)
            self.reachable = False
            self.changes.notify(Topic.HEALTH)


def address_of(url: str) -> str:
    """A Redis address for people, without user and password."""
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ValueError(f"{url!r} is no redis://, rediss:// or unix:// address")
    if parts.scheme == "unix":
        return unquote(parts.path)
    return f"{parts.hostname}:{parts.port or 6379}"
