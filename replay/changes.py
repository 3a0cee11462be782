"""How what waits inside the service learns that it may go on."""

import asyncio
from collections.abc import Awaitable, Iterable
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


class Event:
    """Happens once. Many can be waited for at a time without a task for each, as asyncio's would need."""

    def __init__(self) -> None:
        self.happened = False
        self._waiting: set[asyncio.Future[None]] = set()

    def set(self) -> None:
        """It happens now."""
        self.happened = True
        for waiting in self._waiting:
            wake(waiting)

    def tell(self, waiting: asyncio.Future[None]) -> None:
        """Has the future be done when it happens."""
        if self.happened:
            wake(waiting)
        else:
            self._waiting.add(waiting)

    def forget(self, waiting: asyncio.Future[None]) -> None:
        """Undoes `tell`."""
        self._waiting.discard(waiting)


def wake(waiting: asyncio.Future[None]) -> None:
    """Has the future be done, if it is not."""
    if not waiting.done():
        waiting.set_result(None)


class Changes:
    """One event per topic. Take the event before looking at the state, then no change is missed.

        freed = changes.event(Topic.SAMPLES)
        if not await try_it():
            await changes.wait(freed)

    Every wait ends with DrainingError once the service drains.
    """

    def __init__(self) -> None:
        self._events = {topic: Event() for topic in Topic}
        self._drain = Event()

    @property
    def draining(self) -> bool:
        """Whether the service is ending."""
        return self._drain.happened

    def drain(self) -> None:
        """Ends every wait, now and from now on."""
        self._drain.set()

    def event(self, topic: Topic) -> Event:
        """Will be set by the topic's next change."""
        return self._events[topic]

    def notify(self, *topics: Topic) -> None:
        """Wakes what waits for these topics."""
        for topic in topics:
            self._events[topic].set()
            self._events[topic] = Event()

    async def wait(self, *events: Event, timeout_s: float | None = None) -> None:
        """Returns as soon as one of the events has happened, or when the time is over."""
        await self._wait_for((*events, self._drain), asyncio.get_running_loop().create_future(), timeout_s)
        self.check_draining()

    async def unless_draining(self, awaitable: Awaitable[T]) -> T:
        """Awaits something else than an event; cancels it when the service drains.

        What it returns is lost if the caller is cancelled at that moment: not for locks.
        """
        task, ended = asyncio.ensure_future(awaitable), asyncio.get_running_loop().create_future()
        task.add_done_callback(lambda _: wake(ended))
        try:
            self.check_draining()
            await self._wait_for((self._drain,), ended)
            if task.done():
                return task.result()
            raise DrainingError
        finally:
            task.cancel()

    def check_draining(self) -> None:
        """Raises DrainingError once the service drains."""
        if self.draining:
            raise DrainingError

    async def _wait_for(
        self, events: Iterable[Event], waiting: asyncio.Future[None], timeout_s: float | None = None
    ) -> None:
        for event in events:
            event.tell(waiting)
        timer = None if timeout_s is None else asyncio.get_running_loop().call_later(timeout_s, wake, waiting)
        try:
            await waiting
        finally:
            for event in events:
                event.forget(waiting)
            if timer is not None:
                timer.cancel()
