"""What is known of a run at one moment; the terminal view, the log lines and the summary all render this."""

from collections.abc import Mapping
from dataclasses import dataclass

from common.types import Counters, Evaluation

LAST_EVALUATIONS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessRow:
    """One process of the local cluster."""

    name: str
    state: str
    pid: int | None
    uptime_s: float
    restarts: int
    cpu_percent: float
    """Of one core, with the processes that it started."""
    memory_bytes: int
    """Resident, with the processes that it started."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """The state of a run."""

    title: str
    """Such as "vdfd on smax 3m, seed 1"."""
    run_dir: str
    phase: str
    """starting, training, finishing or stopping."""
    wall_s: float
    """Since the run began, without the time between a stop and --resume."""
    restarts: int
    """Of all processes together, over the same time."""
    total_env_steps: int
    counters: Counters
    learner_steps: int
    env_steps_per_s: float
    episodes_per_s: float
    learner_steps_per_s: float
    target_samples_per_insert: float
    weights_lag: float
    """Learner steps between the newest weights and those that recent episodes were played with."""
    train_return: float
    train_win_rate: float
    losses: Mapping[str, float]
    evaluations: tuple[Evaluation, ...]
    """By ascending env_steps."""
    evaluations_pending: int
    processes: tuple[ProcessRow, ...]
    events: tuple[str, ...]
    """The newest things that happened to processes, the last one last."""

    @property
    def samples_per_insert(self) -> float:
        """Episodes handed out in batches per episode stored."""
        return self.counters.samples / max(1, self.counters.episodes)

    @property
    def progress(self) -> float:
        """Share of the environment steps that have been played, 0 to 1."""
        return min(1.0, self.counters.env_steps / self.total_env_steps)

    @property
    def time_left_s(self) -> float | None:
        """At the present rate; None while nothing is played."""
        steps_left = max(0, self.total_env_steps - self.counters.env_steps)
        if steps_left == 0:
            return 0.0
        return steps_left / self.env_steps_per_s if self.env_steps_per_s > 0 else None

    @property
    def win_rate_last3(self) -> float | None:
        """Mean Test Win Rate of the last three evaluations; None before the first."""
        last = [evaluation.win_rate for evaluation in self.evaluations[-LAST_EVALUATIONS:]]
        return sum(last) / len(last) if last else None
