"""Sample responses, put together from stored Episode messages without decoding them.

A protobuf message is the concatenation of its fields, so an Episode that is stored serialised becomes a field
by writing its tag and length before it: one copy, where parsing and serialising it again would take five.
"""

from collections.abc import Iterator, Sequence

from protos import replay_pb2 as pb

CHUNK_BYTES = 4 * 1024 * 1024
"""A response is closed when it has reached this size."""

_LENGTH_DELIMITED = 2
_EPISODE_TAG = bytes([pb.SampleResponse.EPISODES_FIELD_NUMBER << 3 | _LENGTH_DELIMITED])


def batch_responses(batch: int, blobs: Sequence[bytes]) -> Iterator[bytes]:
    """A batch as serialised SampleResponse messages of about CHUNK_BYTES, the last with end_of_batch."""
    head = pb.SampleResponse(batch=batch).SerializeToString()
    parts, size = [head], 0
    for blob in blobs:
        if size >= CHUNK_BYTES:
            yield b"".join(parts)
            parts, size = [head], 0
        parts += (_EPISODE_TAG, _varint(len(blob)), blob)
        size += len(blob)
    parts.append(pb.SampleResponse(end_of_batch=True).SerializeToString())
    yield b"".join(parts)


def end_of_run() -> bytes:
    """The last response of a run."""
    return pb.SampleResponse(end_of_run=True).SerializeToString()


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
