"""The codec loses nothing, and tells every malformed episode by the field that is wrong."""

import dataclasses

import lz4.block
import numpy as np
import pytest

from common import codec
from common.types import EnvSpec, Episode
from protos import replay_pb2 as pb
from tests.episodes import SPEC, make_episode

ENCODINGS = (pb.ENCODING_RAW, pb.ENCODING_LZ4)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("length", [1, 8, SPEC.episode_limit])
def test_round_trip_is_exact(encoding, length):
    episode = make_episode(length=length)
    message = codec.episode_to_proto(codec.encode_episode(episode, encoding=encoding))
    decoded = codec.episode_from_proto(pb.Episode.FromString(message.SerializeToString()))
    arrays = codec.decode_payload(decoded, SPEC)
    for name in ("obs", "state", "reward", "actions", "avail_actions"):
        np.testing.assert_array_equal(getattr(arrays, name), getattr(episode, name), err_msg=name)
        assert getattr(arrays, name).dtype == getattr(episode, name).dtype
    assert dataclasses.replace(decoded.meta, episode_return=0) == dataclasses.replace(
        episode.meta, episode_return=0
    )
    codec.verify_episode(decoded, SPEC)


def _broken(field: str, value: float) -> Episode:
    episode = make_episode()
    array = getattr(episode, field).copy()
    array.flat[array.size // 2] = value
    return dataclasses.replace(episode, **{field: array})


def _no_action_available() -> Episode:
    episode = make_episode()
    avail = episode.avail_actions.copy()
    avail[-1, 0] = False
    return dataclasses.replace(episode, avail_actions=avail)


def _unavailable_action_chosen() -> Episode:
    episode = make_episode()
    avail = episode.avail_actions.copy()
    avail[0, 0] = True
    avail[0, 0, episode.actions[0, 0]] = False
    return dataclasses.replace(episode, avail_actions=avail)


def _with_meta(**changes: object) -> Episode:
    episode = make_episode()
    return dataclasses.replace(episode, meta=dataclasses.replace(episode.meta, **changes))


@pytest.mark.parametrize(
    ("field", "episode"),
    [
        ("obs", _broken("obs", np.nan)),
        ("state", _broken("state", np.inf)),
        ("reward", _broken("reward", -np.inf)),
        ("actions", _broken("actions", SPEC.n_actions)),
        ("avail_actions", _no_action_available()),
        ("actions", _unavailable_action_chosen()),
        ("length", _with_meta(length=0)),
        ("length", _with_meta(length=SPEC.episode_limit + 1)),
        ("payload", _with_meta(length=8)),
        ("episode_return", _with_meta(episode_return=1e6)),
        ("episode_return", _with_meta(episode_return=float("nan"))),
    ],
)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_wrong_episode_is_told_by_its_field(field, episode, encoding):
    with pytest.raises(codec.CodecError) as raised:
        codec.verify_episode(codec.encode_episode(episode, encoding=encoding), SPEC)
    assert raised.value.field == field


def test_a_zip_bomb_is_refused():
    encoded = codec.encode_episode(make_episode())
    bomb = dataclasses.replace(encoded, payload=lz4.block.compress(bytes(1 << 28), store_size=False))
    with pytest.raises(codec.CodecError, match="payload"):
        codec.verify_episode(bomb, SPEC)


def test_an_unknown_encoding_is_refused():
    encoded = dataclasses.replace(codec.encode_episode(make_episode()), encoding=17)
    with pytest.raises(codec.CodecError, match="encoding"):
        codec.verify_episode(encoded, SPEC)


def test_spec_round_trip_and_bounds():
    assert codec.spec_from_proto(codec.spec_to_proto(SPEC)) == SPEC
    with pytest.raises(ValueError, match="n_actions"):
        EnvSpec(**{**dataclasses.asdict(SPEC), "n_actions": 256})
    with pytest.raises(ValueError, match="fallback_action"):
        EnvSpec(**{**dataclasses.asdict(SPEC), "fallback_action": 7})
