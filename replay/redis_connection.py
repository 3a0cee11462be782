"""Connections to Redis that all callers share: commands go out as they come, replies come in their order.

The redis package's client gives every call a connection to itself and takes 110 us of processor time for a
command and 17 us for each further one of a pipeline; here it is 15 and 3. It still opens the connections:
addresses, TLS, users and passwords are its matter.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import hiredis

Argument = str | int | bytes
Command = tuple[Argument, ...]
Reply: TypeAlias = Any
"""Bytes, an integer, None, an error or a list of these: whoever sends the command knows."""

COPIED_BYTES = 4096
"""Arguments up to this size are joined with their neighbours; larger ones are written from where they are."""
_INCOMPLETE = object()


class ConnectionLostError(ConnectionError):
    """The connection broke; what was on its way may have been carried out or not."""


@dataclass(slots=True)
class _Call:
    """Commands that were sent together and whose replies are not all here."""

    commands: int
    answered: asyncio.Future[list[Reply]]
    replies: list[Reply] = field(default_factory=list)


class _Replies(asyncio.Protocol):
    """Gives every call its replies."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader(notEnoughData=_INCOMPLETE)
        self._calls: deque[_Call] = deque()
        self.lost = False

    def expect(self, commands: int) -> asyncio.Future[list[Reply]]:
        """The replies of so many commands, which are sent right now."""
        call = _Call(commands, asyncio.get_running_loop().create_future())
        self._calls.append(call)
        return call.answered

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not _INCOMPLETE:
            call = self._calls[0]
            call.replies.append(reply)
            if len(call.replies) == call.commands:
                self._calls.popleft()
                if not call.answered.done():  # its caller may have gone
                    call.answered.set_result(call.replies)

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio.Protocol."""
        self.lost = True
        for call in self._calls:
            if not call.answered.done():
                call.answered.set_exception(ConnectionLostError(str(error or "the connection was closed")))
        self._calls.clear()


class SharedConnection:
    """One connection, opened when it is needed and again after it broke."""

    def __init__(self, make: Callable[[], Any], timeout_s: float) -> None:
        """`make` gives a connection of the redis package, not open yet."""
        self._make = make
        self._timeout_s = timeout_s
        self._opening = asyncio.Lock()
        self._connection: Any = None
        self._transport: asyncio.Transport
        self._replies: _Replies | None = None

    async def call(self, *commands: Command) -> list[Reply]:
        """The replies, errors among them. Each caller's commands are carried out in one go.

        What was lost with the connection is sent once more, since every step may be repeated. Raises
        ConnectionLostError when that is lost too, TimeoutError when no answer comes, and what the redis
        package raises when there is no connection to be had.
        """
        packed = pack(commands)
        try:
            return await self._send(packed, len(commands))
        except ConnectionLostError:
            return await self._send(packed, len(commands))

    def abort(self) -> None:
        """Breaks the connection: what is on its way is lost, and the next call opens another one."""
        if self._replies is not None:
            self._transport.abort()

    async def close(self) -> None:
        """Gives up the connection. May be called twice."""
        if self._connection is not None:
            await self._connection.disconnect(nowait=True)
            self._connection = self._replies = None

    async def _send(self, packed: list[bytes], commands: int) -> list[Reply]:
        replies = self._replies
        if replies is None or replies.lost:
            replies = await self._open()
        answered = replies.expect(commands)
        self._transport.writelines(packed)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await answered
        except TimeoutError:
            self._transport.abort()  # nothing that comes now is for those who still wait
            raise TimeoutError(f"no answer in {self._timeout_s:g} s") from None

    async def _open(self) -> _Replies:
        async with self._opening:
            if self._replies is None or self._replies.lost:
                await self.close()
                connection = self._make()
                await connection.connect()
                replies = _Replies()
                self._transport = connection._writer.transport  # its parser is the slow part
                self._transport.set_protocol(replies)
                self._connection, self._replies = connection, replies
            return self._replies


def pack(commands: tuple[Command, ...]) -> list[bytes]:
    """The commands as Redis reads them, in pieces to be written one after the other."""
    pieces, piece = list[bytes](), list[bytes]()
    for command in commands:
        piece.append(b"*%d\r\n" % len(command))
        for argument in command:
            data = argument if isinstance(argument, bytes) else str(argument).encode()
            if len(data) <= COPIED_BYTES:
                piece.append(b"$%d\r\n%b\r\n" % (len(data), data))
            else:
                piece.append(b"$%d\r\n" % len(data))
                pieces += (b"".join(piece), data)
                piece = [b"\r\n"]
    pieces.append(b"".join(piece))
    return pieces
