"""What is said of a few runs with different seeds: interquartile means, areas, and how sure they are.

Intervals are 95 % percentile bootstraps over seeds; over several maps the seeds of each map are drawn
apart (stratified), as Agarwal et al. (2021), "Deep Reinforcement Learning at the Edge of the Statistical
Precipice", ask for. With few seeds they are rough; with one seed there is none.

Shapes: S seeds, one array per map.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.integrate import trapezoid
from scipy.stats import bootstrap, trim_mean

from deploy.experiments.results import RunResult

LAST_POINTS = 3
"""Evaluations whose mean is the last value of a run, as in summary.json."""
_RESAMPLES = 10_000
_SEED = 0

Samples: TypeAlias = Sequence[npt.NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float | None = None
    """None: too few seeds for an interval."""
    high: float | None = None


def common_steps(runs: Sequence[RunResult]) -> list[int]:
    """The env_steps at which all runs were evaluated; of no runs there are none."""
    steps = [{point.env_steps for point in run.points} for run in runs]
    return sorted(set.intersection(*steps)) if steps else []


def last_value(run: RunResult, steps: Sequence[int]) -> float:
    """Mean Test Win Rate at the last of `steps`. One step at least."""
    return float(np.mean(_rates(run, steps[-LAST_POINTS:])))


def area(run: RunResult, steps: Sequence[int]) -> float:
    """Area under the Test Win Rate over `steps`, over its width: a mean win rate. Two steps at least."""
    return float(trapezoid(_rates(run, steps), steps) / (steps[-1] - steps[0]))


def interquartile_mean(samples_S: Samples) -> Estimate:
    """The mean of the middle half of all runs of all maps."""

    def statistic(*samples: Any, axis: int = -1) -> Any:  # noqa: ANN401
        return trim_mean(np.concatenate(samples, axis=axis), 0.25, axis=axis)

    return _estimate(samples_S, statistic)


def mean(samples_S: Samples) -> Estimate:
    """The mean over maps of the mean over seeds."""

    def statistic(*samples: Any, axis: int = -1) -> Any:  # noqa: ANN401
        return sum(sample.mean(axis=axis) for sample in samples) / len(samples)

    return _estimate(samples_S, statistic)


def difference(samples_S: Samples, others_S: Samples) -> Estimate:
    """mean(samples) - mean(others), over the same maps."""
    maps = len(samples_S)

    def statistic(*both: Any, axis: int = -1) -> Any:  # noqa: ANN401
        means = [sample.mean(axis=axis) for sample in both]
        return (sum(means[:maps]) - sum(means[maps:])) / maps

    return _estimate([*samples_S, *others_S], statistic)


def _rates(run: RunResult, steps: Sequence[int]) -> list[float]:
    rates = {point.env_steps: point.win_rate for point in run.points}
    return [rates[at] for at in steps]


def _estimate(samples_S: Samples, statistic: Callable[..., Any]) -> Estimate:
    value = float(statistic(*samples_S))
    if min(len(sample) for sample in samples_S) < 2:
        return Estimate(value=value)
    result = bootstrap(
        tuple(samples_S),
        statistic,
        n_resamples=_RESAMPLES,
        method="percentile",
        vectorized=True,
        axis=-1,
        rng=np.random.default_rng(_SEED),
    )
    low, high = result.confidence_interval
    return Estimate(value=value, low=float(low), high=float(high))
