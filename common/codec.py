"""Data as messages, and back: the only code that knows both. An episode's tensors are packed by payload.py.

Shapes: T steps, N agents, O obs, S state, A actions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common import payload
from common.payload import CodecError
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

CHECKED_BYTES = 4 * 1024 * 1024
SPEC_FIELDS = tuple(EnvSpec.__dataclass_fields__)


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeArrays:
    """The tensors of a payload; see Episode."""

    obs: FloatArray
    state: FloatArray
    reward: FloatArray
    actions: ActionArray
    avail_actions: BoolArray


def encode_episode(episode: Episode, *, half: bool = False) -> EncodedEpisode:
    """Packs an episode's tensors without loss, or with obs and state rounded to half precision.

    Half precision keeps a value within 1/2048 of itself, or 2**-25 if that is more. CodecError: a value is
    beyond its range, 65504.
    """
    encoding = pb.ENCODING_DELTA_HALF if half else pb.ENCODING_DELTA
    return EncodedEpisode(meta=episode.meta, encoding=encoding, payload=payload.pack(episode, half=half))


def decode_episode(encoded: EncodedEpisode, spec: EnvSpec) -> EpisodeArrays:
    """Unpacks one episode. Raises CodecError if its payload has not the size that spec and length give."""
    part = payload.open_payload(encoded, spec)
    rows = payload.unpack_rows(part, spec).astype(np.float32, copy=False)
    slots, obs_words = len(rows), spec.n_agents * spec.obs_size
    return EpisodeArrays(
        obs=rows[:, :obs_words].reshape(slots, spec.n_agents, spec.obs_size),
        state=rows[:, obs_words:],
        reward=part.reward,
        actions=part.actions,
        avail_actions=payload.unpack_avail_actions([part], spec),
    )


def find_faults(episodes: Sequence[EncodedEpisode], spec: EnvSpec) -> list[CodecError | None]:
    """Per episode, why this environment cannot have played it, if so.

    As many as unpack to about CHECKED_BYTES are checked together, which is faster for small ones; only if
    something is wrong are they checked one by one.
    """
    faults, begin = list[CodecError | None](), 0
    while begin < len(episodes):
        end, size = begin, 0
        while end < len(episodes) and (end == begin or size <= CHECKED_BYTES):
            size += payload.largest_block(spec, min(episodes[end].meta.length, spec.episode_limit))
            end += 1
        faults += _find_faults(episodes[begin:end], spec)
        begin = end
    return faults


def _find_faults(episodes: Sequence[EncodedEpisode], spec: EnvSpec) -> list[CodecError | None]:
    try:
        payload.check(episodes, [payload.open_payload(encoded, spec) for encoded in episodes], spec)
    except CodecError as error:
        if len(episodes) == 1:
            return [error]
        return [fault for encoded in episodes for fault in _find_faults([encoded], spec)]
    return [None] * len(episodes)


def spec_to_proto(spec: EnvSpec) -> pb.EnvSpec:
    """EnvSpec as a message."""
    return pb.EnvSpec(**{name: getattr(spec, name) for name in SPEC_FIELDS})


def spec_from_proto(message: pb.EnvSpec) -> EnvSpec:
    """EnvSpec from a message; ValueError names the field that is out of range."""
    return EnvSpec(**{name: getattr(message, name) for name in SPEC_FIELDS})


META_FIELDS = tuple(EpisodeMeta.__dataclass_fields__)


def meta_to_proto(encoded: EncodedEpisode) -> pb.EpisodeMeta:
    """What is known of an episode as a message."""
    meta = encoded.meta
    return pb.EpisodeMeta(
        session=meta.session,
        seq=meta.seq,
        actor=meta.actor,
        seed=meta.seed,
        weights_version=meta.weights_version,
        length=meta.length,
        episode_return=meta.episode_return,
        won=meta.won,
        terminated=meta.terminated,
        encoding=pb.Encoding.ValueType(encoded.encoding),
    )


def episode_to_proto(encoded: EncodedEpisode) -> pb.Episode:
    """EncodedEpisode as a message."""
    return pb.Episode(meta=meta_to_proto(encoded), payload=bytes(encoded.payload))


def episode_from_proto(message: pb.Episode) -> EncodedEpisode:
    """EncodedEpisode from a message, unchecked: find_faults does that."""
    return episode_of(message.meta, message.payload)


def episode_of(meta: pb.EpisodeMeta, payload: bytes | memoryview) -> EncodedEpisode:
    """EncodedEpisode from the two parts of a message, unchecked."""
    return EncodedEpisode(
        meta=EpisodeMeta(
            session=meta.session,
            seq=meta.seq,
            actor=meta.actor,
            seed=meta.seed,
            weights_version=meta.weights_version,
            length=meta.length,
            episode_return=meta.episode_return,
            won=meta.won,
            terminated=meta.terminated,
        ),
        encoding=meta.encoding,
        payload=payload,
    )


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
