"""Packing loses nothing, and tells every malformed episode by the field that is wrong."""

import dataclasses

import lz4.block
import numpy as np
import pytest

from common import codec, payload
from common.types import Episode
from protos import replay_pb2 as pb
from tests.common.block_reference import Block
from tests.episodes import SPEC, make_episode

HALF = (False, True)
ARRAYS = ("obs", "state", "reward", "actions", "avail_actions")


def decoded(episode, *, half=False):
    message = codec.episode_to_proto(payload.encode_episode(episode, half=half))
    encoded = codec.episode_from_proto(pb.Episode.FromString(message.SerializeToString()))
    assert payload.find_faults([encoded], SPEC) == [None]
    assert dataclasses.replace(encoded.meta, episode_return=0) == dataclasses.replace(
        episode.meta, episode_return=0
    )
    return payload.decode_episode(encoded, SPEC)


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
    lossless, half = (len(payload.encode_episode(episode, half=half).payload) for half in HALF)
    assert half < 0.6 * lossless


@pytest.mark.parametrize("value", [65520.0, -1e6, np.inf])
@pytest.mark.parametrize("field", ["obs", "state"])
def test_half_precision_refuses_what_it_cannot_hold(field, value):
    with pytest.raises(payload.CodecError, match=f"^{field}: "):
        payload.encode_episode(_broken(field, value), half=True)


def test_what_does_not_change_costs_almost_nothing():
    episode = make_episode(length=20)
    still = dataclasses.replace(
        episode, obs=np.repeat(episode.obs[:1], 21, axis=0), state=np.repeat(episode.state[:1], 21, axis=0)
    )
    moving, resting = (len(payload.encode_episode(e).payload) for e in (episode, still))
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
    assert fields(payload.find_faults([payload.encode_episode(episode)], SPEC)) == [field]


def test_wrong_episodes_are_told_from_the_right_ones_among_them():
    right = [payload.encode_episode(make_episode(seq=seq, length=1 + seq % 20)) for seq in range(40)]
    assert payload.find_faults(right, SPEC) == [None] * 40
    wrong = [payload.encode_episode(episode) for _, episode in FAULTS]
    mixed = [episode for pair in zip(right, wrong, strict=False) for episode in pair]
    expected = [name for field, _ in FAULTS for name in (None, field)]
    assert fields(payload.find_faults(mixed, SPEC)) == expected
    assert payload.find_faults([], SPEC) == []


@pytest.mark.parametrize("half", HALF)
@pytest.mark.parametrize("value", [2.0, -3.5, 60_000.0])
def test_large_values_are_finite(value, half):
    """Their exponents have bits in common with those of infinities."""
    episode = payload.encode_episode(_broken("obs", value), half=half)
    assert payload.find_faults([episode], SPEC) == [None]


@pytest.mark.parametrize("half", HALF)
@pytest.mark.parametrize("field", ["obs", "state"])
def test_an_infinity_that_comes_about_by_changes_is_found(field, half):
    """No change by itself has the exponent of an infinity: 1.5 and 3 have one half of it each."""
    episode = make_episode(length=2)
    floats = getattr(episode, field)
    floats[:], floats.reshape(3, -1)[:, 0] = 1.0, (1.5, 3.0, 3.0)
    block = Block.of(episode, half=half)
    encoded = payload.encode_episode(episode, half=half)
    assert payload.find_faults([encoded], SPEC) == [None]
    exponents = np.array([1.5, 3.0], "<f2" if half else "<f4").tobytes()
    width = len(exponents) // 2
    assert block.changes.count(xor(exponents[:width], exponents[width:])) == 1
    block.changes = block.changes.replace(xor(exponents[:width], exponents[width:]), exponents[width:])
    bad = dataclasses.replace(encoded, payload=block.payload())
    assert fields(payload.find_faults([bad], SPEC)) == [field]


def xor(first, second):
    return bytes(a ^ b for a, b in zip(first, second, strict=True))


def test_a_zip_bomb_is_refused():
    encoded = payload.encode_episode(make_episode())
    bomb = dataclasses.replace(encoded, payload=lz4.block.compress(bytes(1 << 28), store_size=False))
    assert fields(payload.find_faults([bomb], SPEC)) == ["payload"]


@pytest.mark.parametrize(
    ("part", "place", "bit"),
    [
        ("obs_marks", 0, 1),
        ("obs_marks", -1, 0x80),
        ("state_marks", -1, 0x80),
        ("widths", 0, 1),
        ("widths", -1, 0x80),
    ],
)
def test_marks_that_do_not_match_the_changes_are_refused(part, place, bit):
    """A mark too many or too few, a bit behind the end of a row."""
    episode = make_episode(length=1)
    block = Block.of(episode)
    data = bytearray(getattr(block, part))
    data[place] ^= bit
    setattr(block, part, bytes(data))
    bad = dataclasses.replace(payload.encode_episode(episode), payload=block.payload())
    assert fields(payload.find_faults([bad], SPEC)) == ["payload"]
    with pytest.raises(payload.CodecError, match=r"^payload: "):
        payload.decode_episode(bad, SPEC)


def test_an_unknown_encoding_is_refused():
    encoded = dataclasses.replace(payload.encode_episode(make_episode()), encoding=17)
    assert fields(payload.find_faults([encoded], SPEC)) == ["encoding"]
