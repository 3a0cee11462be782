"""Episodes in the service's memory, so that a sampled episode need not be fetched each time."""

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheStats:
    """The memory tier since the service started."""

    hits: int
    misses: int
    episodes: int
    size_bytes: int


class EpisodeCache:
    """Blobs by index, up to `max_bytes`; the least recently used leave first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._blobs: OrderedDict[int, bytes] = OrderedDict()
        self._bytes = 0
        self._tail = 0
        self._epoch = 0
        self._hits = self._misses = 0

    @property
    def size_bytes(self) -> int:
        """What the blobs take."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._blobs)

    def get(self, index: int) -> bytes | None:
        """The blob, if it is here."""
        blob = self._blobs.get(index)
        if blob is None:
            self._misses += 1
        else:
            self._hits += 1
            self._blobs.move_to_end(index)
        return blob

    def stats(self) -> CacheStats:
        """The figures now."""
        return CacheStats(
            hits=self._hits, misses=self._misses, episodes=len(self._blobs), size_bytes=self._bytes
        )

    def put(self, index: int, blob: bytes) -> None:
        """Keeps a blob unless it has left the window; an index never changes its blob."""
        if index < self._tail or index in self._blobs:
            return
        self._blobs[index] = blob
        self._bytes += len(blob)
        while self._bytes > self._max_bytes:
            self._bytes -= len(self._blobs.popitem(last=False)[1])

    def advance(self, tail: int, epoch: int) -> None:
        """Drops what has left the window [tail, ...), and everything when the storage's epoch is another."""
        if epoch != self._epoch:
            self._blobs.clear()
            self._bytes, self._tail, self._epoch = 0, tail, epoch
        for index in range(self._tail, tail):
            self._bytes -= len(self._blobs.pop(index, b""))
        self._tail = max(self._tail, tail)
