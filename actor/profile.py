"""A profile of the actor's step: all copies play one step; whole episodes are packed and sent beside it."""

import time

import torch

from actor.replay_writer import ReplayWriter
from actor.rollout import Rollout
from common.profile import Profiled, recorded
from common.types import Episode

STEP = "actor step"
CPU = torch.device("cpu")


def play_episodes(rollout: Rollout, count: int) -> list[Episode]:
    """The next `count` episodes, of random actions; compiles what has to be compiled."""
    episodes: list[Episode] = []
    while len(episodes) < count:
        episodes += [finished.episode for finished in rollout.step(epsilon=1.0)]
    return episodes[:count]


def profile_actor(
    rollout: Rollout, writer: ReplayWriter, *, epsilon: float, copies: int, steps: int
) -> Profiled:
    """Times `steps` steps without and then as many with the profiler."""

    def step() -> None:
        for finished in rollout.step(epsilon=epsilon):
            writer.put(finished.episode)

    began = time.perf_counter()
    for _ in range(steps):
        step()
    plain_ms = 1e3 * (time.perf_counter() - began) / steps
    with recorded(STEP, CPU) as recording:
        for _ in range(steps):
            with recording.step():
                step()
    rate = 1e3 * copies / plain_ms
    return Profiled(
        recording=recording,
        plain_ms=plain_ms,
        steps=steps,
        step=STEP,
        load=f"{copies} copies, {rate:.0f} environment steps/s",
    )
