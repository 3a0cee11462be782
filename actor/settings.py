"""Settings of actors, evaluators and the environments that they wrap."""

from typing import Any, Literal

from pydantic import Field

from common.exploration import ExplorationSettings
from common.settings import PositiveFloat, PositiveInt, Settings


class EnvSettings(Settings):
    """Which environment is played."""

    name: str = "smax"
    """Registered name: smax, smac, lbf."""
    map: str = "3m"
    """Map or task of that environment."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of that environment; it checks them itself."""


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
    drain_timeout_s: PositiveFloat = 7.0
    """How long an actor that ends waits for its last acknowledgements. What the service, or its rate limiter,
    has not let in by then is lost."""
    table: str = "default"
    """Table of the replay service that the episodes enter."""
    weights_poll_s: PositiveFloat = 0.5
    """How often newer weights are asked for while play goes on."""
    lockstep: bool = False
    """Wait after each episode until the learner has made its step for it. One actor with one copy only; a
    configuration that has not one published step per episode is refused."""
