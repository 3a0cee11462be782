"""How what waits inside the service learns that it may go on."""

import asyncio
from collections.abc import Awaitable
from enum import StrEnum
from typing import TypeVar

from replay.errors import DrainingError

T = TypeVar("T")


class Topic(StrEnum):
    """What has changed, for all replicas."""

    SAMPLES = "samples"
    """Batches were handed out: inserts that the limiter held back may go."""
    EPISODES = "episodes"
    """A batch has fallen due, the run is complete, or another Sample stream was opened."""
    WEIGHTS = "weights"
    """Newer weights were published."""
    EVALUATIONS = "evaluations"
    """An evaluation can be claimed, or the last one was reported."""
    HEALTH = "health"
    """The storage has become reachable or unreachable; of this replica only."""


class Changes:
    """One event per topic. Take the event before looking at the state, then no change is missed.

        freed = changes.event(Topic.SAMPLES)
        if not await try_it():
            await changes.wait(freed)

    Every wait ends with DrainingError once the service drains.
    """

    def __init__(self) -> None:
        self._events = {topic: asyncio.Event() for topic in Topic}
        self._drain = asyncio.Event()

    @property
    def draining(self) -> bool:
        """Whether the service is ending."""
        return self._drain.is_set()

    def drain(self) -> None:
        """Ends every wait, now and from now on."""
        self._drain.set()

    def event(self, topic: Topic) -> asyncio.Event:
        """Will be set by the topic's next change."""
        return self._events[topic]

    def notify(self, *topics: Topic) -> None:
        """Wakes what waits for these topics."""
        for topic in topics:
            self._events[topic].set()
            self._events[topic] = asyncio.Event()

    async def wait(self, *events: asyncio.Event, timeout_s: float | None = None) -> None:
        """Returns as soon as one of the events is set, or when the time is over."""
        waits = [asyncio.ensure_future(event.wait()) for event in (*events, self._drain)]
        try:
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self.draining:
            raise DrainingError

    async def unless_draining(self, awaitable: Awaitable[T]) -> T:
        """Awaits something else than an event; cancels it when the service drains.

        What it returns is lost if the caller is cancelled at that moment: not for locks.
        """
        task = asyncio.ensure_future(awaitable)
        drain = asyncio.ensure_future(self._drain.wait())
        try:
            if self.draining:
                raise DrainingError
            await asyncio.wait((task, drain), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise DrainingError
        finally:
            drain.cancel()
            task.cancel()
