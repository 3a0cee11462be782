"""The bounded queue between play and the replay service.

Episodes wait as they are until they are packed into groups; groups stay until they are acknowledged. Both
count towards the bounds. Any number of readers may look at the groups: a new stream begins at the oldest.
"""

import threading
import time
from collections import deque
from dataclasses import dataclass

from common.errors import FatalError
from common.labels import label
from common.payload import CodecError, encode_episode
from common.types import EncodedEpisode, Episode
from common.wire import insert_request

GROUPS_IN_FLIGHT = 4
"""While so many groups are unacknowledged none is added, and what waits makes up a larger one."""
GROUP_EPISODES = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Episodes that travel in one message."""

    number: int
    """0, 1, 2, ... in the order in which they are sent."""
    request: bytes
    """An InsertRequest, serialised."""
    seqs: list[int]
    """The episodes' numbers."""
    payload_bytes: int
    """Size of the packed episodes."""
    queue_bytes: int
    """What its episodes count in the queue: the size of their unpacked tensors."""


class Outbox:
    """`changed` guards everything and is notified when room or an end has come; close() ends all waits."""

    def __init__(
        self, *, table: str, max_episodes: int, max_bytes: int, group_bytes: int, half: bool = False
    ) -> None:
        lock = threading.RLock()
        self.changed = threading.Condition(lock)
        self.grouped = threading.Condition(lock)
        """Notified of new groups."""
        self._packable = threading.Condition(lock)
        self.held = 0
        """Episodes that are not acknowledged."""
        self.held_bytes = 0
        self.pack_s = 0.0
        """Time spent packing, beside play."""
        self._max_episodes, self._max_bytes, self._group_bytes = max_episodes, max_bytes, group_bytes
        self._table, self._half = table, half
        self._waiting: deque[Episode] = deque()
        self._groups: deque[Group] = deque()
        self._next_group = 0
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._closed

    def has_room(self, episode: Episode) -> bool:
        """Whether it fits; in an empty queue any episode does, however large."""
        if self.held == 0:
            return True
        return self.held < self._max_episodes and self.held_bytes + _size(episode) <= self._max_bytes

    def add(self, episode: Episode) -> None:
        """Takes an episode; the caller has made sure that there is room."""
        with self.changed:
            self._waiting.append(episode)
            self.held += 1
            self.held_bytes += _size(episode)
            if self._may_pack():
                self._packable.notify()

    def pack_groups(self) -> None:
        """Packs what waits into groups until close(): the work of one thread."""
        while episodes := self._take_waiting():
            began = time.perf_counter()
            with label("encoding"):
                encoded = [self._encode(episode) for episode in episodes]
            group = Group(
                number=self._next_group,
                request=insert_request(encoded, self._table),
                seqs=[episode.meta.seq for episode in episodes],
                payload_bytes=sum(len(episode.payload) for episode in encoded),
                queue_bytes=sum(map(_size, episodes)),
            )
            with self.changed:
                self._groups.append(group)
                self._next_group += 1
                self.pack_s += time.perf_counter() - began
                self.grouped.notify_all()

    def _encode(self, episode: Episode) -> EncodedEpisode:
        try:
            return encode_episode(episode, half=self._half)
        except CodecError as error:
            raise FatalError(
                f"An episode cannot be packed ({error}); set actor.encoding=lossless."
            ) from error

    def next_after(self, number: int) -> Group | None:
        """The oldest unacknowledged group behind `number`."""
        with self.changed:
            return next((group for group in self._groups if group.number > number), None)

    def acknowledge(self, seqs: list[int]) -> Group:
        """Forgets the oldest group. ValueError: it does not consist of these episodes."""
        with self.changed:
            if not self._groups or self._groups[0].seqs != seqs:
                raise ValueError(f"episodes {seqs} are not the oldest group that was sent")
            group = self._groups.popleft()
            self.held -= len(seqs)
            self.held_bytes -= group.queue_bytes
            self.changed.notify_all()
            if self._may_pack():
                self._packable.notify()
            return group

    def close(self) -> None:
        """Gives up what is held and ends all waits. May be called twice."""
        with self.changed:
            self._closed = True
            for waited_for in (self.changed, self.grouped, self._packable):
                waited_for.notify_all()

    def _may_pack(self) -> bool:
        return bool(self._waiting) and len(self._groups) < GROUPS_IN_FLIGHT

    def _take_waiting(self) -> list[Episode]:
        """The episodes of the next group, as soon as one may be made; none when the queue is closed."""
        with self.changed:
            self._packable.wait_for(lambda: self._may_pack() or self._closed)
            taken, size = list[Episode](), 0
            while self._waiting and len(taken) < GROUP_EPISODES and not self._closed:
                size += _size(self._waiting[0])
                if taken and size > self._group_bytes:
                    break
                taken.append(self._waiting.popleft())
            return taken


def _size(episode: Episode) -> int:
    """Bytes of the unpacked tensors."""
    floats = episode.obs.nbytes + episode.state.nbytes + episode.reward.nbytes
    return floats + episode.avail_actions.nbytes + episode.actions.nbytes
