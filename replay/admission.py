"""What an episode must be before it may enter. Runs in worker threads: unpacking takes time."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from common import codec, payload
from common.payload import CodecError, largest_block
from common.types import MAX_NAME_CHARACTERS, EncodedEpisode, EnvSpec, Evaluation, Weights
from common.wire import TooManyEpisodesError, read_episode, take_episodes
from protos import replay_pb2 as pb
from replay.errors import InvalidRequestError
from replay.settings import DEFAULT_TABLE
from replay.storage import NewEpisode
from replay.wire import META_BYTES

SESSION = re.compile(r"[A-Za-z0-9_.-]{1,64}")
MAX_GROUP_EPISODES = 1024
MAX_PRIORITIES = 8192
PRIORITY_RANGE = (1e-6, 1e6)
"""Within it no power and no sum of priorities overflows, or becomes 0."""
MAX_BATCH_NUMBER = 2**40
"""Times any batch size this is a number that Redis's scripts still count exactly."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejection:
    """An episode that is not stored; the message begins with the field's name."""

    seq: int
    message: str


def read_group(request: bytes) -> tuple[str, list[memoryview]]:
    """The table that an InsertRequest names and its Episode messages, where they lie in it.

    Raises InvalidRequestError if it is no such message, or if it has too many.
    """
    try:
        episodes, others = take_episodes(
            request, pb.InsertRequest.EPISODES_FIELD_NUMBER, most=MAX_GROUP_EPISODES
        )
        table = pb.InsertRequest.FromString(others).table
    except TooManyEpisodesError as error:
        raise InvalidRequestError(str(error)) from error
    except (CodecError, DecodeError) as error:
        raise InvalidRequestError(f"request: is no InsertRequest ({error})") from error
    return table or DEFAULT_TABLE, episodes


def read_sample_request(request: bytes) -> pb.SampleRequest:
    """The message. Raises InvalidRequestError if it is none."""
    try:
        return pb.SampleRequest.FromString(request)
    except DecodeError as error:
        raise InvalidRequestError(f"request: is no SampleRequest ({error})") from error


def admit(
    messages: Sequence[memoryview], spec: EnvSpec, max_episode_bytes: int
) -> list[NewEpisode | Rejection]:
    """Checks every Episode message of a group."""
    read = [_read(message, max_episode_bytes) for message in messages]
    faults = iter(payload.find_faults([item for item in read if isinstance(item, EncodedEpisode)], spec))
    return [
        item if isinstance(item, Rejection) else _admitted(item, message, next(faults))
        for item, message in zip(read, messages, strict=True)
    ]


def checked_spec(message: pb.EnvSpec, max_episode_bytes: int) -> EnvSpec:
    """The spec. Raises InvalidRequestError if it is out of range or its episodes could never be inserted."""
    try:
        spec = codec.spec_from_proto(message)
    except ValueError as error:
        raise InvalidRequestError(str(error)) from error
    for name in ("env", "map"):
        if not 1 <= len(getattr(spec, name)) <= MAX_NAME_CHARACTERS:
            raise InvalidRequestError(f"{name}: is not 1 to {MAX_NAME_CHARACTERS} characters")
    size = largest_block(spec, spec.episode_limit)
    if size > max_episode_bytes:
        raise InvalidRequestError(
            f"episode_limit: an episode that long has {size} bytes, more than {max_episode_bytes}"
        )
    return spec


def checked_weights(message: pb.Weights) -> Weights:
    """The weights. Raises InvalidRequestError if they are not identified or empty."""
    _check_session("weights.session", message.session)
    if message.version < 1:
        raise InvalidRequestError("weights.version: begins at 1")
    if not message.data:
        raise InvalidRequestError("weights.data: is empty")
    return codec.weights_from_proto(message)


def checked_evaluation(message: pb.Evaluation) -> Evaluation:
    """The evaluation. Raises InvalidRequestError if it cannot be the result of greedy episodes."""
    if message.episodes < 1:
        raise InvalidRequestError("evaluation.episodes: at least 1")
    if message.wins > message.episodes:
        raise InvalidRequestError(
            f"evaluation.wins: {message.wins} is more than the {message.episodes} episodes"
        )
    for name in ("mean_return", "mean_length"):
        if not math.isfinite(getattr(message, name)):
            raise InvalidRequestError(f"evaluation.{name}: is not finite")
    return codec.evaluation_from_proto(message)


def checked_batch_number(field: str, number: int) -> int:
    """The number. Raises InvalidRequestError if it is higher than any run can come to."""
    if number > MAX_BATCH_NUMBER:
        raise InvalidRequestError(f"{field}: {number} is more than {MAX_BATCH_NUMBER}")
    return number


def checked_priorities(message: pb.UpdatePrioritiesRequest) -> dict[int, float]:
    """Priority by index. Raises InvalidRequestError if one is out of range, or the two lists do not match."""
    indices, priorities = message.indices, message.priorities
    if len(indices) != len(priorities):
        raise InvalidRequestError(f"priorities: {len(priorities)} for {len(indices)} indices")
    if len(indices) > MAX_PRIORITIES:
        raise InvalidRequestError(f"indices: {len(indices)}, more than {MAX_PRIORITIES}")
    low, high = PRIORITY_RANGE
    for priority in priorities:
        if not low <= priority <= high:
            raise InvalidRequestError(f"priorities: {priority} is not between {low:g} and {high:g}")
    by_index = dict(zip(indices, priorities, strict=True))
    if len(by_index) != len(indices):
        raise InvalidRequestError("indices: one is there twice")
    return by_index


def _check_session(field: str, session: str) -> None:
    if not SESSION.fullmatch(session):
        raise InvalidRequestError(f"{field}: is not 1 to 64 characters of [A-Za-z0-9_.-]")


def _read(message: memoryview, max_episode_bytes: int) -> EncodedEpisode | Rejection:
    """The episode, its payload not opened yet."""
    try:
        episode = read_episode(message)
    except CodecError as error:
        return Rejection(seq=0, message=str(error))
    meta = episode.meta
    try:
        _check_session("session", meta.session)
        if meta.seq < 1:
            raise InvalidRequestError("seq: begins at 1")
        if not 1 <= len(meta.actor) <= MAX_NAME_CHARACTERS:
            raise InvalidRequestError(f"actor: is not 1 to {MAX_NAME_CHARACTERS} characters")
        if len(episode.payload) > max_episode_bytes:
            raise InvalidRequestError(f"payload: {len(episode.payload)} bytes, more than {max_episode_bytes}")
        beside = len(message) - len(episode.payload)
        if beside > META_BYTES:  # by fields that nobody knows: the message is stored as it is
            raise InvalidRequestError(f"meta: {beside} bytes beside the payload, more than {META_BYTES}")
    except InvalidRequestError as error:
        return Rejection(seq=meta.seq, message=str(error))
    return episode


def _admitted(
    episode: EncodedEpisode, message: memoryview, fault: CodecError | None
) -> NewEpisode | Rejection:
    if fault is not None:
        return Rejection(seq=episode.meta.seq, message=str(fault))
    return NewEpisode(meta=episode.meta, blob=bytes(message))
