"""Chooses actions: the agent network on the CPU, all copies in one call, with a share of random ones.

Shapes: K copies, N agents, A actions, D hidden.
"""

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from actor.environment import Frame, IntArray
from common.agent import AgentNetwork, load_weights
from common.errors import FatalError
from common.settings import ActionChoice, AgentSettings
from common.types import BoolArray, EnvSpec, FloatArray, Weights


class Policy:
    """The joint policy. Hidden states go in and come out; only weights and chance are held."""

    def __init__(
        self, spec: EnvSpec, settings: AgentSettings, *, seed: int, choice: ActionChoice = "greedy"
    ) -> None:
        """A test plays greedily whatever the agent is trained for; `choice` is for training."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._network = AgentNetwork(spec, settings)
        self._network.requires_grad_(False)
        self._rng = np.random.default_rng(seed)
        self._choice = choice
        self.spec = spec
        self.weights = Weights()
        """What plays now; version 0 is the random network from the seed."""

    def load(self, weights: Weights) -> None:
        """Plays with these weights from the next step on. FatalError: they are of another network."""
        try:
            load_weights(self._network, weights)
        except (RuntimeError, SafetensorError) as error:
            raise FatalError(
                f"Weights version {weights.version} do not fit the agent network of this process; "
                f"start it with the environment and the agent settings of the run ({error})."
            ) from error
        self.weights = weights

    def initial_hidden(self, copies: int) -> Tensor:
        """Zeros [K, N, D]."""
        return self._network.initial_hidden(copies)

    def clear_hidden(self, hidden_KND: Tensor, mask_K: BoolArray) -> Tensor:
        """The same with zeros in the copies of `mask_K`, whose episodes begin."""
        with torch.inference_mode():
            return hidden_KND.masked_fill(torch.from_numpy(mask_K)[:, None, None], 0.0)

    def act(
        self, frame: Frame, last_actions_KN: IntArray, hidden_KND: Tensor, *, epsilon: float
    ) -> tuple[IntArray, Tensor]:
        """Actions [K, N] and the next hidden states.

        Each agent takes, with probability epsilon, any of its available actions with equal chance, and
        else what its kind of choice says: the available one of the highest value, or one drawn from the
        softmax of the available ones' values. `last_actions_KN` is -1 where there is none.
        """
        q_KNA, hidden_KND = self.q_values(frame, last_actions_KN, hidden_KND)
        if self._choice == "softmax":
            actions = drawn_actions(q_KNA, frame.avail_actions_KNA, self._rng)
        else:
            actions = greedy_actions(q_KNA, frame.avail_actions_KNA)
        if epsilon > 0:
            explore_KN = self._rng.random(actions.shape) < epsilon
            actions = np.where(explore_KN, random_actions(frame.avail_actions_KNA, self._rng), actions)
        return actions, hidden_KND

    def q_values(
        self, frame: Frame, last_actions_KN: IntArray, hidden_KND: Tensor
    ) -> tuple[FloatArray, Tensor]:
        """Q-values [K, N, A], those of unavailable actions included, and the next hidden states."""
        with torch.inference_mode():
            obs = torch.tensor(frame.obs_KNO)  # copied: frames may be read-only
            last_actions = torch.from_numpy(last_actions_KN)
            hidden_KND = self._network.unroll(obs[None], last_actions[None], hidden_KND)[0]
            q_KNA: FloatArray = self._network.q(hidden_KND).numpy()
        return q_KNA, hidden_KND


def greedy_actions(q_KNA: FloatArray, avail_actions_KNA: BoolArray) -> IntArray:
    """The available action of the highest Q-value; the first available one where that is no number."""
    masked = np.where(avail_actions_KNA, np.nan_to_num(q_KNA), -np.inf)
    chosen: IntArray = masked.argmax(axis=-1)
    return chosen


def drawn_actions(logits_KNA: FloatArray, avail_actions_KNA: BoolArray, rng: np.random.Generator) -> IntArray:
    """One available action of each agent, by the softmax of the available ones' logits (Gumbel's trick)."""
    noise_KNA = rng.gumbel(size=logits_KNA.shape).astype(np.float32)
    return greedy_actions(logits_KNA + noise_KNA, avail_actions_KNA)


def random_actions(avail_actions_KNA: BoolArray, rng: np.random.Generator) -> IntArray:
    """One available action of each agent, all of them equally likely."""
    chosen: IntArray = np.where(avail_actions_KNA, rng.random(avail_actions_KNA.shape), -1.0).argmax(axis=-1)
    return chosen
