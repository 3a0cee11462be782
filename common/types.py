"""Data that travels between processes.

Shapes: T steps of an episode, N agents, O obs, S state, A actions.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
ActionArray = npt.NDArray[np.uint8]

MAX_NAME_CHARACTERS = 64
"""Of an actor, an environment, a map: the service refuses longer ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvSpec:
    """The sizes of a run's episodes; all parts of a run must agree on them."""

    env: str
    map: str
    n_agents: int
    n_actions: int
    obs_size: int
    state_size: int
    episode_limit: int
    fallback_action: int
    """Stop or no-op: all that the dead can do, and what imagination takes where it predicts nothing else."""

    def __post_init__(self) -> None:
        for name in ("n_agents", "n_actions", "obs_size", "state_size", "episode_limit"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.n_actions > 255:
            raise ValueError(f"n_actions must be at most 255 (actions travel as bytes), not {self.n_actions}")
        if not 0 <= self.fallback_action < self.n_actions:
            raise ValueError(f"fallback_action {self.fallback_action} is not one of {self.n_actions} actions")


@dataclass(kw_only=True, slots=True)
class EpisodeMeta:
    """What is known of an episode without unpacking it; see EpisodeMeta in protos/replay.proto.

    Not frozen, nor is EncodedEpisode: making a frozen object takes twice as long, and tens of thousands are
    made in a second. Nothing changes one.
    """

    session: str
    seq: int
    actor: str
    seed: int
    weights_version: int
    length: int
    episode_return: float
    won: bool
    terminated: bool
    """False when the time limit cut the episode: the last state is then no terminal state."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Episode:
    """One whole episode: T steps, and the obs, state and avail_actions that follow the last of them."""

    meta: EpisodeMeta
    obs: FloatArray
    """[T+1, N, O]"""
    state: FloatArray
    """[T+1, S]"""
    avail_actions: BoolArray
    """[T+1, N, A]; at least one action per agent and step"""
    actions: ActionArray
    """[T, N]"""
    reward: FloatArray
    """[T]"""


@dataclass(kw_only=True, slots=True)
class EncodedEpisode:
    """An episode as it travels and is stored."""

    meta: EpisodeMeta
    encoding: int
    """A value of Encoding in protos/replay.proto."""
    payload: bytes | memoryview


@dataclass(frozen=True, kw_only=True, slots=True)
class Counters:
    """The run's global counters; see Counters in protos/replay.proto."""

    env_steps: int = 0
    episodes: int = 0
    samples: int = 0
    weights_version: int = 0
    run_complete: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """The agent network's parameters at one learner step."""

    session: str = ""
    version: int = 0
    data: bytes = b""
    """safetensors; empty when nothing has been published."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Greedy test episodes at one point of the curve."""

    env_steps: int
    weights_version: int
    episodes: int
    wins: int
    mean_return: float
    mean_length: float

    @property
    def win_rate(self) -> float:
        """Share of the episodes won."""
        return self.wins / self.episodes
