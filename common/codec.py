"""The only code that turns data into bytes and back.

An episode's payload holds, little-endian and in this order, without gaps:

    obs            float32  [T+1, N, O]
    state          float32  [T+1, S]
    reward         float32  [T]
    actions        uint8    [T, N]
    avail_actions  bits     [T+1, N, A], C order, packed eight to a byte, first bit highest

so its size follows from the spec and T alone, and a decoder never has to believe a length that
came with the data. ENCODING_LZ4 is that buffer as one lz4 block without a size header.

Shapes: T steps, N agents, O obs, S state, A actions.
"""

from dataclasses import dataclass

import lz4.block
import numpy as np

from common.types import (
    ActionArray,
    BoolArray,
    Counters,
    EncodedEpisode,
    EnvSpec,
    Episode,
    EpisodeMeta,
    Evaluation,
    FloatArray,
    Weights,
)
from protos import replay_pb2 as pb

SPEC_FIELDS = tuple(EnvSpec.__dataclass_fields__)
RETURN_TOLERANCE = 1e-3


class CodecError(ValueError):
    """Data that cannot be what it says it is; the message begins with the field's name."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeArrays:
    """The tensors of a payload, as views into one buffer where they need no unpacking."""

    obs: FloatArray
    state: FloatArray
    reward: FloatArray
    actions: ActionArray
    avail_actions: BoolArray


def payload_size(spec: EnvSpec, length: int) -> int:
    """Bytes of an unpacked payload of `length` steps."""
    slots = length + 1
    floats = slots * spec.n_agents * spec.obs_size + slots * spec.state_size + length
    avail_bits = slots * spec.n_agents * spec.n_actions
    return 4 * floats + length * spec.n_agents + (avail_bits + 7) // 8


def encode_episode(episode: Episode, *, encoding: int = pb.ENCODING_LZ4) -> EncodedEpisode:
    """Packs an episode's tensors; lossless."""
    raw = b"".join(
        (
            np.ascontiguousarray(episode.obs, dtype="<f4").tobytes(),
            np.ascontiguousarray(episode.state, dtype="<f4").tobytes(),
            np.ascontiguousarray(episode.reward, dtype="<f4").tobytes(),
            np.ascontiguousarray(episode.actions, dtype=np.uint8).tobytes(),
            np.packbits(episode.avail_actions).tobytes(),
        )
    )
    payload = lz4.block.compress(raw, store_size=False) if encoding == pb.ENCODING_LZ4 else raw
    return EncodedEpisode(meta=episode.meta, encoding=encoding, payload=payload)


def decode_payload(encoded: EncodedEpisode, spec: EnvSpec) -> EpisodeArrays:
    """Unpacks a payload. Raises CodecError unless it has exactly the size that spec and length give."""
    length = encoded.meta.length
    if not 1 <= length <= spec.episode_limit:
        raise CodecError("length", f"{length} is not between 1 and the episode limit {spec.episode_limit}")
    size = payload_size(spec, length)
    raw = _unpack(encoded, size)
    if len(raw) != size:
        raise CodecError("payload", f"{len(raw)} bytes, but {length} steps of this environment take {size}")
    slots, n = length + 1, spec.n_agents
    floats = np.frombuffer(
        raw, dtype="<f4", count=slots * n * spec.obs_size + slots * spec.state_size + length
    )
    obs, state, reward = np.split(floats, [slots * n * spec.obs_size, floats.size - length])
    actions = np.frombuffer(raw, dtype=np.uint8, offset=floats.nbytes, count=length * n)
    bits = np.frombuffer(raw, dtype=np.uint8, offset=floats.nbytes + actions.nbytes)
    avail = np.unpackbits(bits, count=slots * n * spec.n_actions).view(np.bool_)
    return EpisodeArrays(
        obs=obs.reshape(slots, n, spec.obs_size),
        state=state.reshape(slots, spec.state_size),
        reward=reward,
        actions=actions.reshape(length, n),
        avail_actions=avail.reshape(slots, n, spec.n_actions),
    )


def verify_episode(encoded: EncodedEpisode, spec: EnvSpec) -> None:
    """Raises CodecError, naming the field, unless this environment can have played the episode."""
    arrays = decode_payload(encoded, spec)
    for name in ("obs", "state", "reward"):
        if not np.isfinite(getattr(arrays, name)).all():
            raise CodecError(name, "holds a value that is not finite")
    if int(arrays.actions.max()) >= spec.n_actions:
        raise CodecError("actions", f"{int(arrays.actions.max())} is not one of {spec.n_actions} actions")
    if not arrays.avail_actions.any(axis=-1).all():
        raise CodecError("avail_actions", "an agent has no available action")
    chosen = np.take_along_axis(arrays.avail_actions[:-1], arrays.actions[..., None].astype(np.intp), axis=-1)
    if not chosen.all():
        raise CodecError("actions", "an action was chosen that is not available")
    total, claimed = float(arrays.reward.sum(dtype=np.float64)), encoded.meta.episode_return
    if not abs(total - claimed) <= RETURN_TOLERANCE * (1.0 + abs(total)):
        raise CodecError("episode_return", f"{claimed} is not the sum of the rewards, {total}")


def _unpack(encoded: EncodedEpisode, size: int) -> bytes:
    if encoded.encoding == pb.ENCODING_RAW:
        return encoded.payload
    if encoded.encoding != pb.ENCODING_LZ4:
        raise CodecError("encoding", f"{encoded.encoding} is not an encoding this version knows")
    try:  # a block that would grow past `size` fails here instead of filling the memory
        unpacked: bytes = lz4.block.decompress(encoded.payload, uncompressed_size=size)
    except lz4.block.LZ4BlockError as error:
        raise CodecError("payload", f"is no lz4 block of {size} bytes ({error})") from error
    return unpacked


def spec_to_proto(spec: EnvSpec) -> pb.EnvSpec:
    """EnvSpec as a message."""
    return pb.EnvSpec(**{name: getattr(spec, name) for name in SPEC_FIELDS})


def spec_from_proto(message: pb.EnvSpec) -> EnvSpec:
    """EnvSpec from a message; ValueError names the field that is out of range."""
    return EnvSpec(**{name: getattr(message, name) for name in SPEC_FIELDS})


META_FIELDS = tuple(EpisodeMeta.__dataclass_fields__)


def episode_to_proto(encoded: EncodedEpisode) -> pb.Episode:
    """EncodedEpisode as a message."""
    meta = pb.EpisodeMeta(
        encoding=pb.Encoding.ValueType(encoded.encoding),
        **{name: getattr(encoded.meta, name) for name in META_FIELDS},
    )
    return pb.Episode(meta=meta, payload=encoded.payload)


def episode_from_proto(message: pb.Episode) -> EncodedEpisode:
    """EncodedEpisode from a message, unchecked: verify_episode does that."""
    meta = EpisodeMeta(**{name: getattr(message.meta, name) for name in META_FIELDS})
    return EncodedEpisode(meta=meta, encoding=message.meta.encoding, payload=message.payload)


def counters_to_proto(counters: Counters) -> pb.Counters:
    """Counters as a message."""
    return pb.Counters(**{name: getattr(counters, name) for name in Counters.__dataclass_fields__})


def counters_from_proto(message: pb.Counters) -> Counters:
    """Counters from a message."""
    return Counters(**{name: getattr(message, name) for name in Counters.__dataclass_fields__})


def weights_to_proto(weights: Weights) -> pb.Weights:
    """Weights as a message."""
    return pb.Weights(session=weights.session, version=weights.version, data=weights.data)


def weights_from_proto(message: pb.Weights) -> Weights:
    """Weights from a message."""
    return Weights(session=message.session, version=message.version, data=message.data)


def evaluation_to_proto(evaluation: Evaluation) -> pb.Evaluation:
    """Evaluation as a message."""
    return pb.Evaluation(**{name: getattr(evaluation, name) for name in Evaluation.__dataclass_fields__})


def evaluation_from_proto(message: pb.Evaluation) -> Evaluation:
    """Evaluation from a message."""
    return Evaluation(**{name: getattr(message, name) for name in Evaluation.__dataclass_fields__})
