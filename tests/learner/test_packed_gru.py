"""Our packed GRU is torch's, in value and in gradient."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from learner.packed_gru import packed_gru

ROW_SIZES = torch.tensor([5, 5, 4, 2, 2, 1])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_values_and_gradients_are_those_of_torch(monkeypatch, threads):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    torch.manual_seed(0)
    gru = nn.GRU(7, 6).double()
    x = torch.randn(int(ROW_SIZES.sum()), 7, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(len(x), 6, dtype=torch.float64)
    inputs = [x, *gru.parameters()]
    ours = packed_gru(gru, x, ROW_SIZES)
    theirs = gru(PackedSequence(x, ROW_SIZES))[0].data
    torch.testing.assert_close(ours, theirs)
    for mine, reference in zip(
        torch.autograd.grad((ours * weight).sum(), inputs),
        torch.autograd.grad((theirs * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(mine, reference)


def test_sequences_do_not_touch_each_other():
    torch.manual_seed(0)
    gru = nn.GRU(7, 6)
    x = torch.randn(int(ROW_SIZES.sum()), 7)
    changed = x.clone()
    changed[0] += 100.0  # the first slot of the longest sequence
    starts = [0, *ROW_SIZES.cumsum(0)[:-1].tolist()]
    same = packed_gru(gru, x, ROW_SIZES) == packed_gru(gru, changed, ROW_SIZES)
    assert not same[starts].any()
    same[starts] = True
    assert same.all()
