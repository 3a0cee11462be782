"""Wilson's interval, against the equation that defines it."""

import math

import pytest

from common.confidence import wilson_interval


@pytest.mark.parametrize(("successes", "trials"), [(1, 2), (16, 32), (31, 32), (700, 1000)])
def test_the_share_lies_two_standard_errors_from_both_ends(successes, trials):
    share = successes / trials
    low, high = wilson_interval(successes, trials)
    assert low < share < high
    for end in (low, high):
        distance = abs(share - end) / math.sqrt(end * (1 - end) / trials)
        assert distance == pytest.approx(1.96, abs=1e-3)


def test_none_and_all_are_not_certain():
    assert wilson_interval(0, 32) == pytest.approx((0.0, 0.1072), abs=1e-4)
    assert wilson_interval(32, 32) == pytest.approx((0.8928, 1.0), abs=1e-4)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (-1, 3), (4, 3)])
def test_what_is_no_share_is_refused(successes, trials):
    with pytest.raises(ValueError, match="is no share"):
        wilson_interval(successes, trials)
