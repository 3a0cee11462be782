"""Figures of the world model's health: what they pair, and that they know good from useless."""

import pytest
import torch

from learner import health
from learner.settings import BranchMasks
from tests.episodes import SPEC
from tests.learner.batches import LENGTHS, WORLD_MODEL, build, ragged_batch


def test_health_pairs_rows_with_what_really_came_later():
    batch = ragged_batch()
    times = torch.repeat_interleave(torch.arange(len(batch.row_sizes_T)), batch.row_sizes_T)
    ranks = torch.cat([torch.arange(int(n)) for n in batch.row_sizes_T])
    for k, (now, later) in enumerate(health.later_rows(batch, 3), start=1):
        torch.testing.assert_close(times[later], times[now] + k)
        torch.testing.assert_close(ranks[later], ranks[now])
        assert len(now) == sum(max(0, n + 1 - k) for n in LENGTHS)


def test_health_knows_a_perfect_model_from_a_useless_one():
    truth = torch.randn(1000, 3, 4)
    assert health.explained(truth, truth) == pytest.approx(1.0)
    assert health.explained(torch.zeros_like(truth), truth) == pytest.approx(0.0, abs=0.01)


def test_shares_are_those_of_gradient_times_input():
    a, b = torch.tensor([1.0, -2.0], requires_grad=True), torch.tensor([0.5, 0.5], requires_grad=True)
    shares = health.input_shares(2.0 * a - b * b, {"a": a, "b": b})  # |2|, |-4|, |-2 * 0.25| twice
    assert shares == pytest.approx({"mixer_input/a": 6 / 7, "mixer_input/b": 1 / 7})


@pytest.mark.parametrize("masked", [None, "ac", "af", "st"])
def test_a_branch_that_the_mixer_sees_has_a_share_and_a_masked_one_has_none(masked):
    masks = BranchMasks(**({masked: 0.0} if masked else {}))
    algorithm = build("vdfd", world_model=WORLD_MODEL.model_copy(update={"masks": masks}))
    shares = _shares(algorithm)
    assert shares.keys() == {"state", "ac", "af", "st"}
    assert sum(shares.values()) == pytest.approx(1.0)
    assert {name for name, share in shares.items() if share == 0.0} == {masked} - {None}
    with torch.no_grad():
        algorithm.online["mixer"].first.weight[:, SPEC.state_size :] = 0.0  # the mixer no longer looks at it
    assert _shares(algorithm)["state"] == pytest.approx(1.0)


def test_a_model_without_transition_has_shares_too():
    algorithm = build("vdfd", world_model=WORLD_MODEL.model_copy(update={"prior": False}))
    assert _shares(algorithm).keys() == {"state", "ac", "af", "st"}


def _shares(algorithm):
    figures = algorithm.health(ragged_batch())
    prefix = "mixer_input/"
    return {name.removeprefix(prefix): value for name, value in figures.items() if name.startswith(prefix)}
