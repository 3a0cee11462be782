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

    @property
    def size_bytes(self) -> int:
        """Of its payloads."""
        return sum(len(episode.payload) for episode in self.episodes)


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchPart:
    """A SampleResponse, with its episodes taken out of it."""

    episodes: list[EncodedEpisode]
    response: pb.SampleResponse


def read_part(message: bytes) -> BatchPart:
    """A serialised SampleResponse. Raises BadBatchError if it is none."""
    try:
        episodes, others = take_episodes(message, pb.SampleResponse.EPISODES_FIELD_NUMBER)
        return BatchPart(
            episodes=[read_episode(episode) for episode in episodes],
            response=pb.SampleResponse.FromString(others),
        )
    except (CodecError, DecodeError) as error:
        raise BadBatchError(f"a message that is no SampleResponse ({error})") from error


def assemble_batches(parts: Iterable[BatchPart], batch_size: int) -> Iterator[ReceivedBatch]:
    """Batches, from a stream that may send one in several messages.

    Ends with the run. Raises ConnectionError when the stream ends before that, BadBatchError for a batch that
    is mixed up with another, has not `batch_size` episodes, or says how only some of them were drawn.
    """
    batch: ReceivedBatch | None = None
    for part in parts:
        response = part.response
        if batch is not None and (response.batch != batch.number or response.end_of_run):
            raise BadBatchError(
                f"number {batch.number} ends with {len(batch.episodes)} of {batch_size} episodes"
            )
        if response.end_of_run:
            return
        batch = batch or ReceivedBatch(number=response.batch)
        batch.episodes.extend(part.episodes)
        batch.indices.extend(response.indices)
        batch.importance.extend(response.importance)
        if response.end_of_batch:
            _check(batch, batch_size)
            yield batch
            batch = None
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
