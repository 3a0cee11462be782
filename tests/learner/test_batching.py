"""A packed batch holds exactly the steps of its episodes, in PackedSequence's order."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from common.payload import encode_episode
from learner.batching import decode_batch
from tests.episodes import SPEC, make_episode

LENGTHS = (4, 20, 1, 9, 9, 13)


@pytest.fixture(scope="module")
def episodes():
    return [make_episode(length=n, seq=i + 1, terminated=i % 2 == 0) for i, n in enumerate(LENGTHS)]


@pytest.fixture(scope="module")
def batch(episodes):
    return decode_batch([encode_episode(e) for e in episodes], SPEC)


def _packed(arrays):
    """torch's own packing of the padded arrays."""
    lengths = [len(a) for a in arrays]
    padded = torch.zeros(len(arrays), max(lengths), *arrays[0].shape[1:], dtype=torch.float64)
    for i, array in enumerate(arrays):
        padded[i, : len(array)] = torch.from_numpy(np.asarray(array, dtype=np.float64))
    return pack_padded_sequence(padded, torch.tensor(lengths), batch_first=True, enforce_sorted=False)


def test_rows_lie_as_torch_packs_them(episodes, batch):
    for field, name in (("obs", "obs_RNO"), ("state", "state_RS"), ("avail_actions", "avail_actions_RNA")):
        packed = _packed([getattr(e, field) for e in episodes])
        torch.testing.assert_close(getattr(batch, name).double(), packed.data, rtol=0, atol=0)
        torch.testing.assert_close(batch.row_sizes_T, packed.batch_sizes)


def test_steps_lie_in_the_same_order(episodes, batch):
    ended = [np.eye(len(e.reward))[-1] * e.meta.terminated for e in episodes]
    for arrays, name in (
        ([e.actions for e in episodes], "actions_PN"),
        ([e.reward for e in episodes], "reward_P"),
        (ended, "terminated_P"),
    ):
        torch.testing.assert_close(getattr(batch, name).double(), _packed(arrays).data, rtol=0, atol=0)


def test_steps_know_their_row_and_the_one_after(batch):
    first = batch.batch_size
    times = torch.repeat_interleave(torch.arange(max(LENGTHS) + 1), batch.row_sizes_T)
    assert first == len(LENGTHS)
    assert len(batch.obs_RNO) == sum(LENGTHS) + len(LENGTHS)
    assert (batch.last_actions()[:first] == -1).all()
    torch.testing.assert_close(batch.last_actions()[first:], batch.actions_PN)
    torch.testing.assert_close(times[first:], times[batch.step_rows_P] + 1)


def test_a_row_that_is_no_step_is_the_last_of_its_episode(batch):
    packed = _packed([np.arange(length + 1) == length for length in LENGTHS])
    torch.testing.assert_close(batch.last_rows_B, packed.data.nonzero().squeeze(-1))


def test_encodings_may_be_mixed_and_groups_do_not_show(episodes, batch, monkeypatch):
    """Obs and state of every second episode are numbers that half precision holds exactly."""
    coarse = [
        dataclasses.replace(e, obs=e.obs.astype("f2").astype("f4"), state=e.state.astype("f2").astype("f4"))
        for e in episodes
    ]
    expected = decode_batch([encode_episode(e) for e in coarse], SPEC)
    mixed = [encode_episode(e, half=number % 2 == 0) for number, e in enumerate(coarse)]
    monkeypatch.setattr("common.payload.GROUP_BYTES", 3000)
    for got, wanted in (
        (decode_batch(mixed, SPEC), expected),
        (decode_batch([encode_episode(e) for e in episodes], SPEC), batch),
    ):
        for name, tensor in wanted.tensors().items():
            assert torch.equal(got.tensors()[name], tensor), name
