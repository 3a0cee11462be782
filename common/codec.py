"""Data as messages, and back: the only code that knows both. payload.py packs an episode's tensors."""

from common.types import Counters, EncodedEpisode, EnvSpec, EpisodeMeta, Evaluation, Weights
from protos import replay_pb2 as pb

SPEC_FIELDS = tuple(EnvSpec.__dataclass_fields__)


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
    """EncodedEpisode from a message, unchecked: payload.find_faults does that."""
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
