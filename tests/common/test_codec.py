"""The codec loses nothing, and tells every malformed episode by the field that is wrong."""

import dataclasses

import lz4.block
import numpy as np
import pytest

from common import codec, payload
from common.types import EnvSpec, Episode
from protos import replay_pb2 as pb
from tests.episodes import SPEC, make_episode

HALF = (False, True)
ARRAYS = ("obs", "state", "reward", "actions", "avail_actions")


def decoded(episode, *, half=False):
    message = codec.episode_to_proto(codec.encode_episode(episode, half=half))
    encoded = codec.episode_from_proto(pb.Episode.FromString(message.SerializeToString()))
    assert codec.find_faults([encoded], SPEC) == [None]
    assert dataclasses.replace(encoded.meta, episode_return=0) == dataclasses.replace(
        episode.meta, episode_return=0
    )
    return codec.decode_episode(encoded, SPEC)


def with_runs(episode):
    """The same with values that stay for some slots, negative zeros and subnormal numbers."""
    obs, state = episode.obs.copy(), episode.state.copy()
    obs[1:, 0], state[2:, :5] = obs[:1, 0], state[1, :5]
    obs[:, 1, ::2], state[:, 5] = -0.0, np.float32(1e-42)
    return dataclasses.replace(episode, obs=obs, state=state)


@pytest.mark.parametrize("length", [1, 8, SPEC.episode_limit])
def test_round_trip_is_exact_to_the_bit(length):
    episode = with_runs(make_episode(length=length))
    arrays = decoded(episode)
    for name in ARRAYS:
        given, got = getattr(episode, name), getattr(arrays, name)
        assert (got.dtype, got.shape) == (given.dtype, given.shape), name
        assert got.tobytes() == given.tobytes(), name


@pytest.mark.parametrize("scale", [1e-9, 1e-5, 1.0, 65504 / 10])
def test_half_precision_keeps_its_stated_error(scale):
    episode = make_episode(length=12)
    obs, state = (np.clip(a, -10, 10) * np.float32(scale) for a in (episode.obs, episode.state))
    arrays = decoded(dataclasses.replace(episode, obs=obs, state=state), half=True)
    for given, got in ((obs, arrays.obs), (state, arrays.state)):
        assert got.dtype == np.float32
        assert (np.abs(got - given) <= np.maximum(np.abs(given) * 2.0**-11, 2.0**-25)).all()
    for name in ("reward", "actions", "avail_actions"):
        np.testing.assert_array_equal(getattr(arrays, name), getattr(episode, name))


def test_half_precision_is_half_as_large():
    episode = make_episode(length=20)
    lossless, half = (len(codec.encode_episode(episode, half=half).payload) for half in HALF)
    assert half < 0.6 * lossless


@pytest.mark.parametrize("value", [65520.0, -1e6, np.inf])
@pytest.mark.parametrize("field", ["obs", "state"])
def test_half_precision_refuses_what_it_cannot_hold(field, value):
    with pytest.raises(codec.CodecError, match=f"^{field}: "):
        codec.encode_episode(_broken(field, value), half=True)


def test_what_does_not_change_costs_almost_nothing():
    episode = make_episode(length=20)
    still = dataclasses.replace(
        episode, obs=np.repeat(episode.obs[:1], 21, axis=0), state=np.repeat(episode.state[:1], 21, axis=0)
    )
    moving, resting = (len(codec.encode_episode(e).payload) for e in (episode, still))
    assert resting < 0.25 * moving


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


FAULTS = [
    ("obs", _broken("obs", np.nan)),
    ("state", _broken("state", np.inf)),
    ("reward", _broken("reward", -np.inf)),
    ("actions", _broken("actions", SPEC.n_actions)),
    ("avail_actions", _no_action_available()),
    ("actions", _unavailable_action_chosen()),
    ("length", _with_meta(length=0)),
    ("length", _with_meta(length=SPEC.episode_limit + 1)),
    ("payload", _with_meta(length=8)),
    ("payload", _with_meta(length=10)),
    ("episode_return", _with_meta(episode_return=1e6)),
    ("episode_return", _with_meta(episode_return=float("nan"))),
]


def fields(faults):
    return [fault and fault.field for fault in faults]


@pytest.mark.parametrize(("field", "episode"), FAULTS)
def test_a_wrong_episode_is_told_by_its_field(field, episode):
    assert fields(codec.find_faults([codec.encode_episode(episode)], SPEC)) == [field]


def test_wrong_episodes_are_told_from_the_right_ones_among_them():
    right = [codec.encode_episode(make_episode(seq=seq, length=1 + seq % 20)) for seq in range(40)]
    assert codec.find_faults(right, SPEC) == [None] * 40
    wrong = [codec.encode_episode(episode) for _, episode in FAULTS]
    mixed = [episode for pair in zip(right, wrong, strict=False) for episode in pair]
    expected = [name for field, _ in FAULTS for name in (None, field)]
    assert fields(codec.find_faults(mixed, SPEC)) == expected
    assert codec.find_faults([], SPEC) == []


@pytest.mark.parametrize("half", HALF)
@pytest.mark.parametrize("value", [2.0, -3.5, 60_000.0])
def test_large_values_are_finite(value, half):
    """Their exponents have bits in common with those of infinities."""
    episode = codec.encode_episode(_broken("obs", value), half=half)
    assert codec.find_faults([episode], SPEC) == [None]


@pytest.mark.parametrize("half", HALF)
def test_an_infinity_that_comes_about_by_changes_is_found(half):
    """No change by itself has the exponent of an infinity."""
    encoded = codec.encode_episode(with_runs(make_episode(length=2)), half=half)
    block = bytearray(lz4.block.decompress(encoded.payload, uncompressed_size=10**5))
    part = payload.open_payload(encoded, SPEC)
    width, words = part.changes.itemsize, payload.unpack_changes([part], SPEC)
    exponent = payload.EXPONENTS[encoded.encoding]
    row, column = 1, int(np.flatnonzero(words[1])[0])
    place = 8 + width * (np.count_nonzero(words[0]) + np.count_nonzero(words[row, :column]))
    block[place : place + width] = (int(words[0, column]) & exponent ^ exponent).to_bytes(width, "little")
    bad = dataclasses.replace(encoded, payload=lz4.block.compress(bytes(block), store_size=False))
    assert not np.isfinite(payload.unpack_rows(payload.open_payload(bad, SPEC), SPEC)).all()
    assert fields(codec.find_faults([bad], SPEC)) == ["obs"]


def test_a_zip_bomb_is_refused():
    encoded = codec.encode_episode(make_episode())
    bomb = dataclasses.replace(encoded, payload=lz4.block.compress(bytes(1 << 28), store_size=False))
    assert fields(codec.find_faults([bomb], SPEC)) == ["payload"]


@pytest.mark.parametrize(("place", "bit"), [(-1, 1), (0, 0x80)])
def test_marks_that_do_not_match_the_changes_are_refused(place, bit):
    """A bit behind the end of a row; a mark too many or too few."""
    encoded = codec.encode_episode(make_episode(length=1))
    part = payload.open_payload(encoded, SPEC)
    changed = part.changed.copy()
    changed.flat[place] ^= bit
    parts = (part.reward, part.changes, changed, part.avail_actions, part.actions)
    block = b"".join(array.tobytes() for array in parts)
    bad = dataclasses.replace(encoded, payload=lz4.block.compress(block, store_size=False))
    assert fields(codec.find_faults([bad], SPEC)) == ["payload"]


def test_an_unknown_encoding_is_refused():
    encoded = dataclasses.replace(codec.encode_episode(make_episode()), encoding=17)
    assert fields(codec.find_faults([encoded], SPEC)) == ["encoding"]


def test_spec_round_trip_and_bounds():
    assert codec.spec_from_proto(codec.spec_to_proto(SPEC)) == SPEC
    with pytest.raises(ValueError, match="n_actions"):
        EnvSpec(**{**dataclasses.asdict(SPEC), "n_actions": 256})
    with pytest.raises(ValueError, match="fallback_action"):
        EnvSpec(**{**dataclasses.asdict(SPEC), "fallback_action": 7})
