"""A Snapshot as log lines, for runs without a terminal."""

from collections.abc import Iterator

from deploy.formatting import duration, sparkline
from deploy.snapshot import Snapshot


def log_lines(snapshot: Snapshot) -> Iterator[str]:
    """The same figures as on the screen, in a few lines."""
    yield (
        f"{snapshot.phase}: {snapshot.counters.env_steps:,} of {snapshot.total_env_steps:,} steps "
        f"({snapshot.progress:.0%}), "
        f"{duration(snapshot.wall_s)} gone, {duration(snapshot.time_left_s)} left; "
        f"{snapshot.episodes_per_s:.1f} episodes/s, {snapshot.learner_steps_per_s:.1f} learner steps/s, "
        f"samples per insert {snapshot.samples_per_insert:.2f}, weights {snapshot.weights_lag:.1f} steps old"
    )
    if snapshot.losses:
        losses = ", ".join(f"{name} {value:.4g}" for name, value in snapshot.losses.items())
        yield f"  {snapshot.learner_steps:,} learner steps: {losses}"
    if snapshot.evaluations:
        rates = [evaluation.win_rate for evaluation in snapshot.evaluations]
        yield (
            f"  Test Win Rate {rates[-1]:.2f} at {snapshot.evaluations[-1].env_steps:,} steps, "
            f"mean of the last three {snapshot.win_rate_last3:.2f}  {sparkline(rates)}"
        )
    yield "  " + ", ".join(
        f"{row.name} {row.state}" + (f" ({row.restarts} restarts)" if row.restarts else "")
        for row in snapshot.processes
    )
