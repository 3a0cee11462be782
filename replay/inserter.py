"""How groups of episodes enter: checked in threads, then committed in order as the rate limiter lets them."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass

from common.types import Counters, EnvSpec
from replay.admission import Rejection, admit, read_group
from replay.cache import EpisodeCache
from replay.changes import Topic
from replay.read_ahead import read_ahead
from replay.stats import InsertRecorder
from replay.storage import Commit, Group, NewEpisode, Outcome, Storage

CHECKED_AHEAD = 2
"""Groups of one stream that are read and checked while the one before is committed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inserted:
    """What became of a group: per episode its seq and outcome, or why it was rejected."""

    results: tuple[tuple[int, Outcome | Rejection], ...]
    counters: Counters


@dataclass(frozen=True, kw_only=True, slots=True)
class _Checked:
    """A group that may be committed."""

    table: str
    episodes: list[NewEpisode | Rejection]


class Inserter:
    """Stores groups. `recorder` and the table's cache learn of every episode that went in."""

    def __init__(
        self,
        storage: Storage,
        caches: Mapping[str, EpisodeCache],
        recorder: InsertRecorder,
        executor: ThreadPoolExecutor,
        *,
        max_episode_bytes: int,
    ) -> None:
        self._storage = storage
        self._caches = caches
        self._recorder = recorder
        self._executor = executor
        self._max_episode_bytes = max_episode_bytes
        self._turns = {name: asyncio.Lock() for name in caches}

    async def insert_all(
        self,
        requests: AsyncIterator[bytes],
        spec: EnvSpec,
        *,
        imported: bool = False,
    ) -> AsyncGenerator[Inserted, None]:
        """Answers every InsertRequest, in order, when the storage holds it. `imported`: see Group."""
        loop = asyncio.get_running_loop()

        async def check(request: bytes) -> _Checked:
            name, episodes = read_group(request)
            table, bound = self._storage.table(name).rules.name, self._max_episode_bytes
            admitted = await loop.run_in_executor(self._executor, admit, episodes, spec, bound)
            return _Checked(table=table, episodes=admitted)

        async with aclosing(read_ahead(requests, check, CHECKED_AHEAD, self._storage.changes)) as checked:
            async for group in checked:
                yield await self._insert(group, imported=imported)

    async def _insert(self, checked: _Checked, *, imported: bool) -> Inserted:
        table = checked.table
        episodes = tuple(item for item in checked.episodes if isinstance(item, NewEpisode))
        outcomes: tuple[Outcome, ...] = ()
        if episodes:
            offered = time.monotonic()
            group = Group(table=table, episodes=episodes, imported=imported)
            commit = await self._commit(group)
            self._recorder.waited(time.monotonic() - offered)
            outcomes, counters = commit.outcomes, commit.counters
            self._observe(table, episodes, commit)
        else:
            counters = (await self._storage.status()).counters
        given = iter(outcomes)
        results: list[tuple[int, Outcome | Rejection]] = []
        for item in checked.episodes:
            if isinstance(item, Rejection):
                self._recorder.rejected()
                results.append((item.seq, item))
            else:
                results.append((item.meta.seq, next(given)))
        return Inserted(results=tuple(results), counters=counters)

    async def _commit(self, group: Group) -> Commit:
        """Commits at once if nothing waits; else in turn, each as soon as the limiter lets it."""
        changes, turn, again = self._storage.changes, self._turns[group.table], False
        if not turn.locked():
            commit = await self._storage.commit(group, again=False)
            if not commit.held_back:
                return commit
            again = True
        async with turn:
            while True:
                freed = changes.event(Topic.SAMPLES)
                commit = await self._storage.commit(group, again=again)
                if not commit.held_back:
                    return commit
                again = True
                await changes.wait(freed)

    def _observe(self, table: str, episodes: tuple[NewEpisode, ...], commit: Commit) -> None:
        cache = self._caches[table]
        cache.advance(commit.tail, self._storage.epoch)
        index = commit.first_index
        for episode, outcome in zip(episodes, commit.outcomes, strict=True):
            if outcome is Outcome.STORED:
                cache.put(index, episode.blob)
                self._recorder.stored(episode.meta, commit.counters.weights_version, size=len(episode.blob))
                index += 1
            elif outcome is Outcome.DUPLICATE:
                self._recorder.duplicate()
