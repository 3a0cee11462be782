"""Messages that carry episodes, taken apart and put together without copying the episodes.

A protobuf message is the concatenation of its fields, and a field that is a message or bytes is its tag, its
length and its content. So an episode that is there as bytes becomes part of a message by writing tag and
length before it, and is read where it lies; protobuf itself would copy it several times on either side.
What is not an episode is left to protobuf.
"""

from collections.abc import Iterable

from google.protobuf.message import DecodeError

from common import codec
from common.payload import CodecError
from common.types import EncodedEpisode
from protos import replay_pb2 as pb

_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}
_LONGEST_VARINT = 10

_FIELDS_PER_EPISODE = 3  # itself, and in a SampleResponse its index and its importance weight
_FURTHER_FIELDS = 16  # those of the message as a whole

_ONE_BYTE = [bytes([number]) for number in range(0x80)]

Buffer = bytes | memoryview


class TooManyEpisodesError(CodecError):
    """A message has more episodes than it may."""


def delimited(field: int, size: int) -> bytes:
    """What stands before `size` bytes of content."""
    return varint(field << 3 | _DELIMITED) + varint(size)


def varint(number: int) -> bytes:
    """A number as protobuf writes it."""
    if number <= 0x7F:
        return _ONE_BYTE[number]
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_varint(data: Buffer, at: int) -> tuple[int, int]:
    """The number that begins at `at`, and where it ends. Raises CodecError if it does not end."""
    if at < len(data) and data[at] <= 0x7F:  # most are small
        return data[at], at + 1
    number = 0
    for place, byte in enumerate(data[at : at + _LONGEST_VARINT]):
        number |= (byte & 0x7F) << 7 * place
        if byte <= 0x7F:
            return number, at + place + 1
    raise CodecError("message", "ends within a number")


def episode_parts(encoded: EncodedEpisode) -> tuple[bytes, Buffer]:
    """An Episode message in two parts: all that stands before the payload, and the payload."""
    meta = codec.meta_to_proto(encoded).SerializeToString()
    head = (
        delimited(pb.Episode.META_FIELD_NUMBER, len(meta)),
        meta,
        delimited(pb.Episode.PAYLOAD_FIELD_NUMBER, len(encoded.payload)),
    )
    return b"".join(head), encoded.payload


def insert_request(episodes: Iterable[EncodedEpisode], table: str) -> bytes:
    """An InsertRequest, serialised."""
    parts = list[Buffer]()
    for encoded in episodes:
        head, payload = episode_parts(encoded)
        field = delimited(pb.InsertRequest.EPISODES_FIELD_NUMBER, len(head) + len(payload))
        parts += (field, head, payload)
    parts.append(pb.InsertRequest(table=table).SerializeToString())
    return b"".join(parts)


def take_episodes(message: bytes, field: int, most: int) -> tuple[list[memoryview], bytes]:
    """The Episode messages in that repeated field, `most` of them at most, and the message without them.

    The time that it takes is bounded by `most`, whatever the message holds. Raises TooManyEpisodesError, and
    CodecError if the message is not put together of fields, or if it has too many others.
    """
    view, at, fields = memoryview(message), 0, 0
    episodes, others = list[memoryview](), list[memoryview]()
    others_begin = 0
    while at < len(view):
        begin, fields = at, fields + 1
        if fields > _FIELDS_PER_EPISODE * most + _FURTHER_FIELDS:
            raise CodecError("message", f"has more fields than one with {most} episodes")
        tag, content, at = _field_at(view, at)
        if tag != field << 3 | _DELIMITED:
            continue
        if len(episodes) == most:
            raise TooManyEpisodesError("episodes", f"are more than {most}")
        episodes.append(view[content:at])
        others.append(view[others_begin:begin])
        others_begin = at
    others.append(view[others_begin:])
    return episodes, b"".join(others)


def _field_at(view: memoryview, at: int) -> tuple[int, int, int]:
    """The field that begins at `at`: its tag, where its content begins if it is delimited, where it ends."""
    tag, at = read_varint(view, at)
    content = at
    if tag & 7 == _DELIMITED:
        size, content = read_varint(view, at)
        at = content + size
    elif tag & 7 == _VARINT:
        _, at = read_varint(view, at)
    elif tag & 7 in _FIXED_BYTES:
        at += _FIXED_BYTES[tag & 7]
    else:
        raise CodecError("message", f"has a field of the unknown kind {tag & 7}")
    if at > len(view):
        raise CodecError("message", "ends within a field")
    return tag, content, at


def read_episode(message: Buffer) -> EncodedEpisode:
    """An Episode message: meta, then payload, as every protobuf library writes it. The payload stays there.

    Raises CodecError if it is anything else.
    """
    view = memoryview(message)
    meta, at = _content(view, 0, pb.Episode.META_FIELD_NUMBER)
    payload, at = _content(view, at, pb.Episode.PAYLOAD_FIELD_NUMBER)
    if at != len(view):
        raise CodecError("episode", "is not its meta and its payload, in this order")
    try:
        return codec.episode_of(pb.EpisodeMeta.FromString(bytes(meta)), payload)
    except DecodeError as error:
        raise CodecError("meta", f"is no EpisodeMeta message ({error})") from error


def _content(view: memoryview, at: int, field: int) -> tuple[memoryview, int]:
    """The content of a field that should begin here, and where it ends; nothing if another one does."""
    if at >= len(view) or view[at] != field << 3 | _DELIMITED:
        return view[at:at], at
    size, begin = read_varint(view, at + 1)
    return view[begin : begin + size], begin + size
