"""The connection to Redis: commands, scripts, and a listener that hears what other replicas change.

The only file that imports redis. What goes wrong comes out as UnavailableError.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import FullJitterBackoff, NoBackoff
from redis.exceptions import BusyLoadingError, NoScriptError, RedisError
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from common.histogram import Histogram
from replay.changes import Changes, Topic
from replay.errors import UnavailableError
from replay.redis_scripts import Script

log = logging.getLogger(__name__)

UPLOAD_TTL_S = 300
"""What was sent and never committed, because the service died in between, is gone after this."""
PROBE_INTERVAL_S = 2.0
"""A silent connection is asked for a sign of life this often."""
MAX_CONNECTIONS = 64
TOPICS = {topic.value.encode(): topic for topic in Topic}

Argument = str | int | bytes
Command = tuple[Argument, ...]
Reply: TypeAlias = Any
"""Bytes, an integer, None, or a list of these: whoever sends the command knows."""


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
        # One repetition hides a connection that went stale; every step may be repeated.
        once_more = Retry(FullJitterBackoff(cap=0.5, base=0.05), 1)
        pool = BlockingConnectionPool.from_url(
            url, max_connections=MAX_CONNECTIONS, timeout=timeout_s, retry=once_more, **options
        )
        self._redis: Any = Redis(connection_pool=pool)  # its types differ between versions
        # The listener has to see every break, because it may have missed messages in it.
        self._listening = Redis.from_url(url, retry=Retry(NoBackoff(), 0), **options)
        self._listener: asyncio.Task[None] | None = None
        self.changes = Changes()
        self.latency = Histogram()
        """Seconds per round trip."""
        self.reachable = False
        self.epoch = 0
        self._loading = False

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
                    if self._loading:
                        limit.reschedule(asyncio.get_running_loop().time() + timeout_s)
        except TimeoutError:
            await self.transaction(("PING",))  # says what is wrong
            raise self.unavailable(f"no answer in {timeout_s:g} s") from None

    async def close(self) -> None:
        """Gives up the connections. May be called twice."""
        if self._listener is not None:
            self._listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._listener
            self._listener = None
        await self._listening.aclose()
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()

    async def command(self, *command: Argument) -> Reply:
        """One command's reply."""
        async with self._errors():
            return await self._redis.execute_command(*command)

    async def transaction(self, *commands: Command) -> list[Reply]:
        """The replies of several commands, which Redis carries out with nothing in between."""
        async with self._errors():
            pipe = self._redis.pipeline(transaction=True)
            for command in commands:
                pipe.execute_command(*command)
            replies: list[Reply] = await pipe.execute()
            return replies

    async def run(
        self, script: Script, *arguments: Argument, uploads: Mapping[str, bytes] | None = None
    ) -> Reply:
        """A script's reply. Uploads are set before it in the same round trip and expire if it leaves them."""
        async with self._errors():
            pipe = self._redis.pipeline(transaction=False)
            for key, value in (uploads or {}).items():
                pipe.execute_command("SET", key, value, "EX", UPLOAD_TTL_S)
            pipe.execute_command("EVALSHA", script.sha, 1, self._prefix, *arguments)
            replies = await pipe.execute(raise_on_error=False)
            if isinstance(replies[-1], NoScriptError):  # a Redis that was restarted knows no scripts
                replies[-1] = await self._redis.execute_command(
                    "EVAL", script.text, 1, self._prefix, *arguments
                )
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
            return replies[-1]

    async def info(self) -> dict[str, Any]:
        """What Redis says of its memory and its append-only file; the client has parsed it."""
        memory, persistence = await self.transaction(("INFO", "memory"), ("INFO", "persistence"))
        return {**memory, **persistence}

    def unavailable(self, problem: object) -> UnavailableError:
        """The error that says that Redis cannot be used, and where it is."""
        return UnavailableError(f"Redis at {self._address} cannot be used now: {problem}")

    def lost_run(self) -> UnavailableError:
        """The error for a Redis that was emptied: going on would begin the run anew."""
        return self.unavailable(
            "it has lost the run's data; restore them, or restart the service to begin anew"
        )

    @contextlib.asynccontextmanager
    async def _errors(self) -> AsyncIterator[None]:
        began = time.monotonic()
        try:
            yield
            self.latency.observe(time.monotonic() - began)
        except (RedisError, OSError) as error:  # TimeoutError is an OSError
            if str(error).startswith("NORUN"):
                raise self.lost_run() from error
            raise self.unavailable(error or type(error).__name__) from error

    async def _listen(self) -> None:
        broken = (RedisError, OSError)
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(broken), wait=wait_random_exponential(multiplier=0.05, max=1.0)
        )
        async for attempt in retrying:
            with attempt:
                try:
                    await self._listening.ping()  # SUBSCRIBE is answered also while Redis loads its data
                    async with self._listening.pubsub() as subscription:
                        await self._hear(subscription)
                except broken as error:
                    self._lost(error)
                    raise

    async def _hear(self, subscription: PubSub) -> None:
        await subscription.subscribe(self.key("changes"))
        await self._message(subscription)  # the confirmation: from here on nothing is missed
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
        self._loading = isinstance(error, BusyLoadingError)
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
