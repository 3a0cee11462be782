"""What an episode must be before it may enter. Runs in worker threads: unpacking takes time."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from common import codec
from common.types import EnvSpec, Evaluation, Weights
from protos import replay_pb2 as pb
from replay.errors import InvalidRequestError
from replay.storage import NewEpisode

SESSION = re.compile(r"[A-Za-z0-9_.-]{1,64}")
MAX_NAME_CHARACTERS = 64
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


def admit(
    episodes: Sequence[pb.Episode], spec: EnvSpec, max_episode_bytes: int
) -> list[NewEpisode | Rejection]:
    """Checks every episode of a group by itself. Raises InvalidRequestError for a group that is too long."""
    if len(episodes) > MAX_GROUP_EPISODES:
        raise InvalidRequestError(
            f"episodes: a group has at most {MAX_GROUP_EPISODES} episodes, not {len(episodes)}"
        )
    return [_admit_one(episode, spec, max_episode_bytes) for episode in episodes]


def checked_spec(message: pb.EnvSpec, max_episode_bytes: int) -> EnvSpec:
    """The spec. Raises InvalidRequestError if it is out of range or its episodes could never be inserted."""
    try:
        spec = codec.spec_from_proto(message)
    except ValueError as error:
        raise InvalidRequestError(str(error)) from error
    for name in ("env", "map"):
        if not 1 <= len(getattr(spec, name)) <= MAX_NAME_CHARACTERS:
            raise InvalidRequestError(f"{name}: is not 1 to {MAX_NAME_CHARACTERS} characters")
    size = codec.payload_size(spec, spec.episode_limit)
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


def _admit_one(message: pb.Episode, spec: EnvSpec, max_episode_bytes: int) -> NewEpisode | Rejection:
    encoded = codec.episode_from_proto(message)
    try:
        _check_session("session", encoded.meta.session)
        if encoded.meta.seq < 1:
            raise InvalidRequestError("seq: begins at 1")
        if not 1 <= len(encoded.meta.actor) <= MAX_NAME_CHARACTERS:
            raise InvalidRequestError(f"actor: is not 1 to {MAX_NAME_CHARACTERS} characters")
        if len(encoded.payload) > max_episode_bytes:
            raise InvalidRequestError(f"payload: {len(encoded.payload)} bytes, more than {max_episode_bytes}")
        codec.verify_episode(encoded, spec)
    except (InvalidRequestError, codec.CodecError) as error:
        return Rejection(seq=encoded.meta.seq, message=str(error))
    return NewEpisode(meta=encoded.meta, blob=message.SerializeToString())
