"""A Snapshot for tests of what renders it."""

import dataclasses

from common.types import Counters, Evaluation
from deploy.snapshot import ProcessRow, Snapshot


def evaluation(env_steps, wins, *, episodes=32):
    return Evaluation(
        env_steps=env_steps,
        weights_version=env_steps // 20,
        episodes=episodes,
        wins=wins,
        mean_return=12.5,
        mean_length=21.0,
    )


def row(name, **changes):
    values = ProcessRow(
        name=name,
        state="running",
        pid=4711,
        uptime_s=125.0,
        restarts=0,
        cpu_percent=87.0,
        memory_bytes=700 * 2**20,
    )
    return dataclasses.replace(values, **changes)


SNAPSHOT = Snapshot(
    title="vdfd on smax 3m, seed 1",
    run_dir="runs/example",
    phase="training",
    wall_s=3725.0,
    restarts=3,
    total_env_steps=150_000,
    counters=Counters(env_steps=90_000, episodes=4_000, samples=127_936, weights_version=3_990),
    learner_steps=3_998,
    env_steps_per_s=400.0,
    episodes_per_s=17.25,
    learner_steps_per_s=17.125,
    target_samples_per_insert=32.0,
    weights_lag=11.5,
    train_return=13.25,
    train_win_rate=0.375,
    losses={"td": 0.0625, "kl_ac": 1.5},
    evaluations=(
        evaluation(60_000, 8),
        evaluation(70_000, 16),
        evaluation(80_000, 20),
        evaluation(90_000, 24),
    ),
    evaluations_pending=1,
    processes=(row("replay"), row("actor-0", state="restarting", pid=None, restarts=3)),
    events=("12:00:00 actor-0 ended (killed by SIGKILL); it is started again in 0.5 s",),
)
EMPTY = dataclasses.replace(
    SNAPSHOT,
    phase="starting",
    counters=Counters(),
    learner_steps=0,
    env_steps_per_s=0.0,
    losses={},
    evaluations=(),
    evaluations_pending=0,
    processes=(),
    events=(),
)
