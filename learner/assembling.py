"""Whole batches from the messages in which they come."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from common.payload import CodecError
from common.types import EncodedEpisode
from common.wire import read_episode, take_episodes
from protos import replay_pb2 as pb


class BadBatchError(ValueError):
    """The service sent what the protocol does not allow."""


@dataclass(kw_only=True, slots=True)
class ReceivedBatch:
    """A batch, packed."""

    number: int
    episodes: list[EncodedEpisode] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)
    """Of a prioritised table: one per episode, as the next."""
    importance: list[float] = field(default_factory=list)
    released: bool = False
    """Whether it may be trained on. If not, a Release may follow."""

    @property
    def size_bytes(self) -> int:
        """Of its payloads."""
        return sum(len(episode.payload) for episode in self.episodes)

    def add(self, part: "BatchPart") -> None:
        """Takes the next message in."""
        self.episodes.extend(part.episodes)
        self.indices.extend(part.response.indices)
        self.importance.extend(part.response.importance)
        self.released = part.response.end_of_batch


class Release:
    """The batch that was handed out last may be trained on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchPart:
    """A SampleResponse, with its episodes taken out of it."""

    episodes: list[EncodedEpisode]
    response: pb.SampleResponse


def read_part(message: bytes, batch_size: int) -> BatchPart:
    """A serialised SampleResponse. Raises BadBatchError if it is none, or has more episodes than a batch."""
    try:
        episodes, others = take_episodes(message, pb.SampleResponse.EPISODES_FIELD_NUMBER, most=batch_size)
        return BatchPart(
            episodes=[read_episode(episode) for episode in episodes],
            response=pb.SampleResponse.FromString(others),
        )
    except (CodecError, DecodeError) as error:
        raise BadBatchError(f"a message that is no part of a batch ({error})") from error


def assemble_batches(parts: Iterable[BatchPart], batch_size: int) -> Iterator[ReceivedBatch | Release]:
    """Batches, from a stream that may send one in several messages, each as soon as it is whole.

    Ends with the run; what is not released by then never will be. Raises ConnectionError when the stream ends
    before that, BadBatchError for a batch that is mixed up with another, has not `batch_size` episodes, or
    says how only some of them were drawn.
    """
    batch: ReceivedBatch | None = None
    whole = False
    for part in parts:
        response = part.response
        if response.end_of_run and (batch is None or whole):
            return
        if batch is not None and (response.end_of_run or response.batch != batch.number):
            raise BadBatchError(
                f"number {batch.number} ends with {len(batch.episodes)} of {batch_size} episodes"
            )
        batch = batch or ReceivedBatch(number=response.batch)
        batch.add(part)
        if response.end_of_batch or (part.episodes and len(batch.episodes) >= batch_size):
            _check(batch, batch_size)
            yield Release() if whole else batch
            whole = True
        if response.end_of_batch:
            batch, whole = None, False
    raise ConnectionError("the service closed the stream before the end of the run")


def _check(batch: ReceivedBatch, batch_size: int) -> None:
    if len(batch.episodes) != batch_size:
        raise BadBatchError(f"number {batch.number} has {len(batch.episodes)} episodes, not {batch_size}")
    drawn = {len(batch.indices), len(batch.importance)}
    if drawn not in ({0}, {batch_size}):
        raise BadBatchError(
            f"number {batch.number} has {len(batch.indices)} indices and {len(batch.importance)} importance "
            f"weights for {batch_size} episodes"
        )
