"""Working ahead of a stream keeps its order, its errors and its bounds."""

import asyncio
import gc

import pytest

from replay.changes import Changes
from replay.errors import DrainingError
from replay.read_ahead import read_ahead


async def numbers(read, count=None, error=None):
    """0, 1, 2, ...; notes in `read` what was taken."""
    while count is None or len(read) < count:
        read.append(len(read))
        yield read[-1]
        await asyncio.sleep(0)
    if error:
        raise error


async def test_results_come_in_order_although_work_ends_in_another():
    released = [asyncio.Event() for _ in range(4)]

    async def work(number):
        if number + 1 < len(released):
            await released[number + 1].wait()
        released[number].set()
        return 10 * number

    results = read_ahead(numbers([], 4), work, 5, Changes())
    assert [result async for result in results] == [0, 10, 20, 30]


async def test_no_more_is_read_than_the_bound():
    read, changes = [], Changes()

    async def work(number):
        return number

    results = read_ahead(numbers(read), work, 2, changes)
    assert await anext(results) == 0
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(read) <= 4, "one in use, two waiting, one in the reader's hand"
    await results.aclose()


async def test_errors_come_out_where_their_item_would_have():
    async def work(number):
        if number == 2:
            raise ValueError("the third")
        return number

    results = read_ahead(numbers([], 9), work, 3, Changes())
    assert [await anext(results), await anext(results)] == [0, 1]
    with pytest.raises(ValueError, match="the third"):
        await anext(results)
    broken = read_ahead(numbers([], 1, OSError("the stream")), work, 3, Changes())
    assert await anext(broken) == 0
    with pytest.raises(OSError, match="the stream"):
        await anext(broken)


async def test_an_endless_stream_ends_when_the_service_drains():
    changes = Changes()

    async def work(number):
        return number

    results = read_ahead(numbers([]), work, 2, changes)
    await anext(results)
    changes.drain()
    with pytest.raises(DrainingError):
        await anext(results)


async def test_an_error_that_nobody_comes_to_is_no_entry_in_the_log(caplog):
    async def work(number):
        return number

    results = read_ahead(numbers([], 2, OSError("the stream")), work, 1, Changes())
    assert await anext(results) == 0
    for _ in range(20):
        await asyncio.sleep(0)
    await results.aclose()
    gc.collect()
    assert not caplog.records
