"""Settings of actors, evaluators and the environments that they wrap."""

from typing import Any, Literal

from pydantic import Field

from common.settings import Fraction, PositiveFloat, PositiveInt, Settings


class EnvSettings(Settings):
    """Which environment is played."""

    name: str = "smax"
    """Registered name: smax, smac, lbf."""
    map: str = "3m"
    """Map or task of that environment."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of that environment; it checks them itself."""


class ExplorationSettings(Settings):
    """Epsilon-greedy over available actions; epsilon falls linearly in the run's global step count."""

    epsilon_start: Fraction = 1.0
    epsilon_finish: Fraction = 0.05
    epsilon_anneal_steps: PositiveInt = 50_000
    """Global environment steps, of all actors together."""


class ActorSettings(Settings):
    """One actor process."""

    copies: PositiveInt = 16
    """Copies of the environment that one process steps together; of a game client there is always one."""
    threads: PositiveInt = 1
    """CPU threads of the policy and of the simulator, each."""
    exploration: ExplorationSettings = ExplorationSettings()
    encoding: Literal["lossless", "half"] = "lossless"
    """half: obs and state travel as float16, in about half the bytes; off by 1/2048 of a value at most. An
    environment with values beyond 65504 ends the actor."""
    queue_episodes: PositiveInt = 8
    """Finished episodes that wait for their acknowledgement; play pauses when they are so many."""
    queue_bytes: PositiveInt = 64 * 1024 * 1024
    """The same in bytes."""
    table: str = "default"
    """Table of the replay service that the episodes enter."""
    weights_poll_s: PositiveFloat = 0.5
    """How often newer weights are asked for while play goes on."""
    lockstep: bool = False
    """Wait after each episode until the learner has trained on it (one actor with one copy only)."""
