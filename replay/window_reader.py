"""The whole window in order, in pieces of bounded size, while it may be moving."""

from collections.abc import AsyncGenerator

from protos import replay_pb2 as pb
from replay.changes import Changes
from replay.errors import DrainingError, InvalidRequestError
from replay.table import Table
from replay.wire import CHUNK_BYTES

MAX_EPISODES_AT_ONCE = 256


async def read_window(
    table: Table, changes: Changes, begin: int, end: int
) -> AsyncGenerator[pb.ReadWindowResponse, None]:
    """Responses of about CHUNK_BYTES with the episodes of [begin, end) that are in the window.

    The first one has no episodes: it says what the stream is about. Raises InvalidRequestError if `end` is
    not stored yet.
    """
    status = await table.status()
    if end > status.inserts:
        raise InvalidRequestError(f"end: {end}, but only {status.inserts} episodes are stored")
    begin, end = max(begin, status.tail), end or status.inserts
    yield pb.ReadWindowResponse(begin=min(begin, end), end=end)
    mean_bytes = status.size_bytes // max(1, status.inserts - status.tail)
    at_once = max(1, min(MAX_EPISODES_AT_ONCE, CHUNK_BYTES // max(1, mean_bytes)))
    for first in range(begin, end, at_once):
        _check_draining(changes)
        for response in await _read(table, range(first, min(end, first + at_once))):
            yield response


async def _read(table: Table, indices: range) -> list[pb.ReadWindowResponse]:
    blobs, records = await table.read(indices), await table.records(indices)
    responses, size = [pb.ReadWindowResponse()], 0
    for index, blob, record in zip(indices, blobs, records, strict=True):
        if blob is None or record is None:  # it has left the window, maybe between the two steps
            continue
        if size >= CHUNK_BYTES:
            responses.append(pb.ReadWindowResponse())
            size = 0
        responses[-1].episodes.append(
            pb.StoredEpisode(
                number=index,
                env_steps=record.env_steps,
                stored_at_s=record.stored_at_s,
                episode=pb.Episode.FromString(blob),
            )
        )
        size += len(blob)
    return responses


def _check_draining(changes: Changes) -> None:
    if changes.draining:
        raise DrainingError
