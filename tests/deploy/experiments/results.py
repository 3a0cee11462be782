"""Results that nobody has trained for."""

from deploy.experiments.results import Point, RunResult


def run(algorithm="vdfd", seed=1, rates=(0.0, 0.5, 1.0), *, map_name="3m"):
    """A run with an evaluation every 10 steps."""
    points = tuple(
        Point(env_steps=10 * number, win_rate=rate, mean_return=20 * rate)
        for number, rate in enumerate(rates, start=1)
    )
    return RunResult(env="smax", map=map_name, algorithm=algorithm, seed=seed, points=points)


def grouped(*runs):
    groups = {}
    for entry in runs:
        groups.setdefault((entry.task, entry.algorithm), []).append(entry)
    return groups
