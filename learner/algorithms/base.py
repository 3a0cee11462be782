"""What every algorithm offers to the training loop (learner/learner.py)."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from common.agent import AgentNetwork
from common.exploration import ExplorationSettings
from common.settings import ActionChoice, AgentSettings
from common.types import EnvSpec
from learner.batching import EpisodeBatch
from learner.settings import LearnerSettings


class Algorithm(ABC):
    """Networks, optimiser and counters of one algorithm, and the step that trains them."""

    agent: AgentNetwork
    """The online agent network: what is published to the actors."""

    action_choice: ClassVar[ActionChoice] = "greedy"
    """What its actors must do when they don't explore."""

    learning_rates: ClassVar[tuple[str, ...]] = ("learner.optimiser.learning_rate",)
    """Keys of the settings that say how far it steps."""

    priorities_B: Tensor | None = None
    """New priorities of the last step's episodes, longest first, where their table asks for them."""

    @abstractmethod
    def __init__(
        self,
        spec: EnvSpec,
        agent: AgentSettings,
        settings: LearnerSettings,
        *,
        exploration: ExplorationSettings,
        device: torch.device,
        seed: int,
    ) -> None: ...

    @abstractmethod
    def train_step(self, batch: EpisodeBatch) -> dict[str, Tensor]:
        """One gradient step; does not wait for the device. Returns scalars by name ("loss/td") on it."""

    @abstractmethod
    def health(self, batch: EpisodeBatch) -> dict[str, float]:
        """Figures that cost more than a log line should, measured on a batch without training on it."""

    @abstractmethod
    def state_dict(self) -> dict[str, Tensor]:
        """All that is needed to go on exactly: networks, optimiser, counters, random state."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes up a saved state; raises ValueError, and says what differs, when it does not fit."""
