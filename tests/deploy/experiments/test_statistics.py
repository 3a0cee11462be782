"""Figures and intervals against what can be reckoned by hand."""

import itertools

import numpy as np
import pytest

from deploy.experiments import statistics
from deploy.experiments.tables import markdown_tables
from tests.deploy.experiments.results import grouped, run


def samples(*values):
    return [np.array(each, np.float64) for each in values]


def test_the_area_is_a_mean_win_rate():
    straight = run(rates=(0.0, 0.25, 0.5, 0.75, 1.0))
    assert statistics.area(straight, [10, 20, 30, 40, 50]) == pytest.approx(0.5)
    # Trapezoids: 10 steps of 0.125 and 30 of 0.625, over 40.
    assert statistics.area(straight, [10, 20, 50]) == pytest.approx((10 * 0.125 + 30 * 0.625) / 40)


def test_runs_are_compared_where_all_were_evaluated():
    assert statistics.common_steps([run(rates=(0,) * 5), run(rates=(0,) * 3)]) == [10, 20, 30]
    assert statistics.common_steps([]) == []


def test_the_last_value_is_a_mean_of_three():
    long = run(rates=(1.0, 0.0, 0.25, 0.5, 1.0))
    assert statistics.last_value(long, [10, 20, 30, 40]) == pytest.approx(0.25)
    assert statistics.last_value(long, [10, 30]) == pytest.approx(0.625)
    assert statistics.last_value(long, [50]) == 1.0


def test_the_interquartile_mean_leaves_out_a_quarter_on_each_side():
    found = statistics.interquartile_mean(samples([0.0, 0.4, 0.6, 1.0], [0.0, 0.5, 0.5, 1.0]))
    assert found.value == pytest.approx(0.5)
    assert found.low < 0.5 < found.high


def exact_interval(values):
    """2.5 % and 97.5 % of the mean over all ways to draw as many values with replacement."""
    means = [np.mean(drawn) for drawn in itertools.product(values, repeat=len(values))]
    return np.quantile(means, [0.025, 0.975])


def test_an_interval_is_that_of_all_resamples():
    values = (0.1, 0.2, 0.4, 0.8, 0.9)
    found = statistics.mean(samples(values))
    assert found.value == pytest.approx(np.mean(values))
    assert (found.low, found.high) == pytest.approx(exact_interval(values), abs=0.02)


def test_seeds_are_drawn_within_their_map():
    """Between maps lies everything, within a map nothing: a draw over all of them would have an interval."""
    found = statistics.mean(samples([0.0, 0.0, 0.0], [1.0, 1.0, 1.0]))
    assert (found.low, found.value, found.high) == (0.5, 0.5, 0.5)


def test_maps_count_alike_however_many_seeds_they_have():
    assert statistics.mean(samples([0.0, 0.0], [1.0] * 6)).value == pytest.approx(0.5)


def test_a_difference_of_one_with_itself_lies_around_zero():
    one, other = samples([0.1, 0.5, 0.9]), samples([0.6, 0.8, 1.0])
    same = statistics.difference(one, one)
    assert same.value == 0 and same.low < 0 < same.high
    apart = statistics.difference(other, samples([0.1, 0.2, 0.3]))
    assert apart.value == pytest.approx(0.6) and apart.low > 0.3


def test_one_seed_has_no_interval():
    found = statistics.mean(samples([0.3]))
    assert (found.value, found.low, found.high) == (0.3, None, None)


def test_the_tables_have_a_line_for_all_maps_only_of_what_was_run_on_all():
    runs = [run(name, seed, (0, 0.5, 1)) for name in ("vdfd", "qmix") for seed in (1, 2)]
    runs += [run("vdfd", seed, (0, 0, 0.5), map_name="8m") for seed in (1, 2)]
    text = markdown_tables(grouped(*runs), ["vdfd", "qmix"])
    assert "| smax 3m | qmix | 2 | 0.500 [0.500, 0.500] | 0.500 [0.500, 0.500] | 10 to 30 |" in text
    assert "| smax 8m | vdfd | 2 | 0.167 [0.167, 0.167] | 0.125 [0.125, 0.125] | 10 to 30 |" in text
    assert "| all maps | vdfd | 4 |" in text
    assert "| all maps | qmix |" not in text
    assert "| smax 3m | vdfd - qmix | +0.000 [+0.000, +0.000] |" in text


def test_one_evaluation_has_a_last_value_and_no_area():
    text = markdown_tables(grouped(run("vdfd", 1, (0.5,))), ["vdfd"])
    assert "| smax 3m | vdfd | 1 | 0.500 | -- | 10 to 10 |" in text


def test_runs_with_nothing_in_common_are_not_compared():
    text = markdown_tables(grouped(run("vdfd", 1, (0.5,)), run("vdfd", 2, ())), ["vdfd"])
    assert "| smax 3m | vdfd | 2 | -- | -- | none in common |" in text


def test_a_run_that_goes_on_is_compared_where_the_others_are():
    """Its own last value would be that of more steps."""
    runs = [run("vdfd", 1, (0.0, 0.25, 0.5, 1.0, 1.0)), run("qmix", 1, (0.0, 0.25, 0.5))]
    text = markdown_tables(grouped(*runs), ["vdfd", "qmix"])
    assert "| smax 3m | vdfd | 1 | 0.250 | 0.250 | 10 to 30 |" in text
