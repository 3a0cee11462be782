"""Works on the next items of a stream while the current one is used."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TypeVar

from replay.changes import Changes

T = TypeVar("T")
R = TypeVar("R")


async def read_ahead(
    source: AsyncIterator[T], work: Callable[[T], Awaitable[R]], depth: int, changes: Changes
) -> AsyncGenerator[R, None]:
    """`work` done on every item, in order, up to `depth` items ahead.

    An exception of `source` or `work` comes out where its item would have. Raises DrainingError instead of
    the next item once the service drains.
    """
    started: asyncio.Queue[asyncio.Future[R] | None] = asyncio.Queue(depth)

    async def read() -> None:
        ended: asyncio.Future[R] | None = None
        try:
            async for item in source:
                await started.put(asyncio.ensure_future(work(item)))
        except Exception as error:
            ended = asyncio.get_running_loop().create_future()
            ended.set_exception(error)
            ended.exception()  # asyncio logs one that nobody has looked at; maybe nobody will come to it
        await started.put(ended)

    reader = asyncio.ensure_future(read())
    try:
        while True:
            changes.check_draining()
            task = await changes.unless_draining(started.get()) if started.empty() else started.get_nowait()
            if task is None:
                return
            yield await task
    finally:
        reader.cancel()
        await asyncio.wait((reader,))  # so that the source may be closed
        while not started.empty():
            if (left := started.get_nowait()) is not None:
                left.cancel()
