"""The environment protocol: one or many copies of a game, stepped together, numpy in and numpy out.

A vectorised simulator steps K copies in one call; a game client is the same thing with K = 1. The loop

    frame = environment.reset(all_K, seeds_K)
    while True:
        result = environment.step(policy(frame))
        frame = result.frame                      # of a finished copy: what follows its last step
        ended_K = result.done_K | result.void_K
        if ended_K.any():
            frame = environment.reset(ended_K, next_seeds_K)

loses nothing, because no copy is ever reset unless the caller says so.

Shapes: K copies, N agents, O obs, S state, A actions.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from actor.settings import EnvSettings
from common.types import BoolArray, EnvSpec, FloatArray

IntArray = npt.NDArray[np.int64]
SeedArray = npt.NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """What every copy shows between two steps. The arrays may be read-only and are never written again."""

    obs_KNO: FloatArray
    state_KS: FloatArray
    avail_actions_KNA: BoolArray
    """At least one action per agent; of a dead agent the fallback action alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """What one step of every copy led to."""

    frame: Frame
    reward_K: FloatArray
    """Team reward of the step; a won battle sums to about 20."""
    done_K: BoolArray
    """The episode is over; the frame is its last one."""
    terminated_K: BoolArray
    """It is over by a victory, a defeat or a draw; false when the time limit cut it."""
    won_K: BoolArray
    void_K: BoolArray
    """The copy failed: its episode is to be dropped and the rest of its row means nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvironmentStats:
    """What became of the game's client processes; a simulator has none."""

    launched: int = 0
    failed: int = 0
    """Those that crashed, hung, dropped the connection or answered errors, at the launch or later."""
    recycled: int = 0
    """Those that were replaced in good health."""


class Environment(Protocol):
    """K copies of one game. Rows of a copy whose episode is over mean nothing until it is reset."""

    @property
    def spec(self) -> EnvSpec:
        """Sizes of the episodes."""

    @property
    def copies(self) -> int:
        """K."""

    @property
    def seeds_K(self) -> SeedArray:
        """The seed that decides each copy's present episode: with equal actions it is played alike.

        It is the one that reset was given, or that of the launch for a game that is seeded only then.
        """

    def reset(self, mask_K: BoolArray, seeds_K: SeedArray) -> Frame:
        """Begins new episodes in the copies of `mask_K`, with their seeds; leaves the others as they are.

        Returns the frame of all copies. An environment that cannot come up again raises FatalError.
        """

    def step(self, actions_KN: IntArray) -> StepResult:
        """Plays one available action of every agent in every copy."""

    def stats(self) -> EnvironmentStats:
        """Figures since the environment was made."""

    def interrupt(self) -> None:
        """Another thread says that the process is to end: nothing waits for a game any more.

        A copy whose game did not come up because of that shows what it likes, and its next step is void.
        """

    def close(self) -> None:
        """Ends the game and what belongs to it. May be called twice."""


class EnvironmentKind(ABC):
    """What the registry holds: says what can be played without importing the game's libraries."""

    max_copies: ClassVar[int | None] = None
    """Copies that one process can play; None: any number."""

    @staticmethod
    @abstractmethod
    def maps() -> Mapping[str, str]:
        """Each map's name with a line that describes it."""

    @staticmethod
    @abstractmethod
    def check_options(settings: EnvSettings) -> None:
        """Raises pydantic's ValidationError if `settings.options` has an unknown key or a wrong value."""

    @staticmethod  # noqa: B027  not abstract: most environments are packages alone
    def check_installed(settings: EnvSettings) -> None:
        """Raises FatalError, with what to do, if a game is missing that no package brings along."""

    @staticmethod
    @abstractmethod
    def open(settings: EnvSettings, *, copies: int, threads: int) -> Environment:
        """Builds the environment. The first call decides the number of CPU threads of the process."""


def episode_seed(stream: tuple[int, ...], number: int) -> int:
    """The seed, below 2**64, of episode `number` of a stream. Different streams are independent."""
    digest = hashlib.blake2b(repr((stream, number)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")
