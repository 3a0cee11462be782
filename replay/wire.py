"""Sample responses, put together from stored Episode messages without decoding them; see common/wire.py.

What is known of an episode stands at its beginning, and can be read without the rest.
"""

from collections.abc import Iterator, Sequence

from common import codec
from common.types import EpisodeMeta
from common.wire import delimited, read_varint
from protos import replay_pb2 as pb
from replay.table import Draws

CHUNK_BYTES = 4 * 1024 * 1024
"""A response is closed when it has reached this size."""

META_BYTES = 512
"""An Episode message has no more beside its payload, so its first bytes hold its meta. Known fields need at
most 384: names have up to 64 characters of four bytes."""

_LENGTH_DELIMITED = 2
_META_TAG = pb.Episode.META_FIELD_NUMBER << 3 | _LENGTH_DELIMITED


def batch_responses(
    batch: int, blobs: Sequence[bytes], draws: Draws | None = None, *, released: bool = True
) -> Iterator[bytes]:
    """A batch as serialised SampleResponse messages of about CHUNK_BYTES; if released the last ends it.

    With draws that have importance weights each message also says these of its episodes, and their indices.
    """
    head = pb.SampleResponse(batch=batch).SerializeToString()
    parts, size = [head], 0
    for place, blob in enumerate(blobs):
        if size >= CHUNK_BYTES:
            yield b"".join(parts)
            parts, size = [head], 0
        parts += (delimited(pb.SampleResponse.EPISODES_FIELD_NUMBER, len(blob)), blob)
        if draws is not None and draws.importance:
            parts.append(_drawn(draws.indices[place], draws.importance[place]))
        size += len(blob)
    if released:
        parts.append(pb.SampleResponse(end_of_batch=True).SerializeToString())
    yield b"".join(parts)


def release(batch: int) -> bytes:
    """The end of a batch whose episodes were sent before."""
    return pb.SampleResponse(batch=batch, end_of_batch=True).SerializeToString()


def end_of_run() -> bytes:
    """The last response of a run."""
    return pb.SampleResponse(end_of_run=True).SerializeToString()


def limiter(*, holds: bool) -> bytes:
    """Says that the rate limiter holds the stream back from now on, or no longer does."""
    state = pb.LIMITER_HOLDS if holds else pb.LIMITER_LETS_GO
    return pb.SampleResponse(limiter=state).SerializeToString()


def episode_meta(head: bytes) -> EpisodeMeta:
    """The meta of an Episode message, from its first META_BYTES bytes."""
    tag, at = read_varint(head, 0)
    size, at = read_varint(head, at)
    if tag != _META_TAG or at + size > len(head):
        raise ValueError("not the beginning of an Episode message")
    return codec.episode_of(pb.EpisodeMeta.FromString(head[at : at + size]), b"").meta


def _drawn(index: int, importance: float) -> bytes:
    return pb.SampleResponse(indices=[index], importance=[importance]).SerializeToString()
