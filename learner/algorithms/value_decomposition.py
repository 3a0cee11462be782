"""Q-learning over whole episodes with a factored value: what all but COMA share (PyMARL's QLearner).

Shapes: R rows and P steps of a packed batch (learner/batching.py), B episodes, N agents, I input, D hidden,
A actions, S condition of the mixer. Row B + p is the row after step p.
"""

import copy
from abc import abstractmethod

import torch
from torch import Tensor, nn

from common.agent import AgentNetwork, greedy_actions
from common.exploration import ExplorationSettings
from common.labels import label
from common.settings import AgentSettings
from common.types import EnvSpec
from learner.algorithms.base import Algorithm
from learner.algorithms.saved_state import load_parts, save_parts
from learner.batching import EpisodeBatch
from learner.histories import Histories, histories, values_of
from learner.optimiser import Optimiser, ParameterGroup
from learner.prioritised import mean_square
from learner.settings import LearnerSettings
from learner.targets import td_lambda_targets


class ValueDecomposition(Algorithm):
    """An agent network and a mixer, each with a target copy; subclasses add what the mixer sees."""

    def __init__(
        self,
        spec: EnvSpec,
        agent: AgentSettings,
        settings: LearnerSettings,
        *,
        exploration: ExplorationSettings,
        device: torch.device,
        seed: int,
    ) -> None:
        del exploration  # learning is off-policy
        torch.manual_seed(seed)
        self.spec, self.settings, self.device = spec, settings, device
        self.generator = torch.Generator(device).manual_seed(seed)
        self.online = nn.ModuleDict(self.build_networks(AgentNetwork(spec, agent))).to(device)
        copies = {name: copy.deepcopy(self.online[name]) for name in ("agent", "mixer")}
        # The copies are there already, but this makes a GRU's weights one block, as cuDNN wants them.
        self.target = nn.ModuleDict(copies).to(device)
        self.target.requires_grad_(False)
        self.steps = 0
        self.loss_weights = {"td": 1.0, **self.extra_loss_weights()}
        self.optimiser = Optimiser(self.parameter_groups())

    @property
    def agent(self) -> AgentNetwork:  # type: ignore[override]
        """The online agent network."""
        network = self.online["agent"]
        assert isinstance(network, AgentNetwork)
        return network

    @property
    def target_agent(self) -> AgentNetwork:
        """The target copy of the agent network."""
        network = self.target["agent"]
        assert isinstance(network, AgentNetwork)
        return network

    @abstractmethod
    def build_networks(self, agent: AgentNetwork) -> dict[str, nn.Module]:
        """The networks by name; "agent" and "mixer" must be among them."""

    def extra_loss_weights(self) -> dict[str, float]:
        """Weights of the losses besides "td"."""
        return {}

    def parameter_groups(self) -> dict[str, ParameterGroup]:
        """What is clipped and optimised together."""
        return {"value": ParameterGroup(list(self.online.parameters()), self.settings.optimiser)}

    def mixing(self, batch: EpisodeBatch, target: Histories) -> tuple[Tensor, dict[str, Tensor]]:
        """The mixer's condition on every row [R, S], and the losses of whatever made it: the state alone."""
        del target
        return batch.state_RS, {}

    def losses(self, batch: EpisodeBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """All losses by name, each a mean over real steps, and further scalars for the log."""
        with torch.no_grad(), label("target agent"):
            target = histories(self.target_agent, batch)
        condition_RS, losses = self.mixing(batch, target)
        with label("agent"):
            online = histories(self.agent, batch)
        with label("mixer"):
            value_losses, metrics = self.value_losses(batch, online, target, condition_RS)
        losses.update(value_losses)
        assert losses.keys() == self.loss_weights.keys()
        return losses, metrics

    def train_step(self, batch: EpisodeBatch) -> dict[str, Tensor]:
        """One gradient step; every target_update_episodes steps the targets become the online networks."""
        losses, metrics = self.losses(batch)
        total = torch.stack([self.loss_weights[name] * loss for name, loss in losses.items()]).sum()
        norms = self.optimiser.step(total)
        self.steps += 1
        if self.steps % self.settings.target_update_episodes == 0:
            for name, network in self.target.items():
                network.load_state_dict(self.online[name].state_dict())
        return {
            "loss/total": total.detach(),
            **{f"loss/{name}": loss.detach() for name, loss in losses.items()},
            **{f"grad_norm/{name}": norm for name, norm in norms.items()},
            **metrics,
        }

    def health(self, batch: EpisodeBatch) -> dict[str, float]:
        """Nothing beyond the log."""
        del batch
        return {}

    def value_losses(
        self, batch: EpisodeBatch, online: Histories, target: Histories, condition_RS: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The squared error of the mixed Q-values against their targets (paper, L^TD), and scalars to log."""
        first = batch.batch_size
        with torch.no_grad(), label("target mixer"):
            best_PN = self.best_next_actions(batch, online, target)
            best_q_PN = values_of(target.q_RNA[first:], best_PN)
            y = self.targets(batch, self.target["mixer"](best_q_PN, condition_RS[first:]))
        # All rows are mixed, and those that are steps selected after: one number each, not a state.
        chosen_RN = values_of(online.q_RNA, batch.row_actions())
        q_tot = self.online["mixer"](chosen_RN, condition_RS)[batch.step_rows_P]
        assert q_tot.shape == y.shape
        metrics = {"q/taken": q_tot.detach().mean(), "q/target": y.mean()}
        return {"td": self.td_loss(batch, q_tot - y)}, metrics

    def td_loss(self, batch: EpisodeBatch, error: Tensor) -> Tensor:
        """The mean square of the TD errors [P] or [P, N]; notes what they say of the episodes' priorities."""
        if batch.sampling is not None:
            self.priorities_B = batch.sampling.priorities(error)
        return mean_square(error, batch.sampling)

    def best_next_actions(self, batch: EpisodeBatch, online: Histories, target: Histories) -> Tensor:
        """The available actions [P, N] after each step that are best by the online (double Q) or target Q."""
        choice = online if self.settings.double_q else target
        first = batch.batch_size
        return greedy_actions(choice.q_RNA[first:], batch.avail_actions_RNA[first:])

    def targets(self, batch: EpisodeBatch, next_value: Tensor) -> Tensor:
        """TD targets for the values after every step: [P] of the team, or [P, N] of each agent."""
        shape = (-1, *[1] * (next_value.dim() - 1))
        return td_lambda_targets(
            batch.reward_P.view(shape).expand_as(next_value),
            batch.terminated_P.view(shape).expand_as(next_value),
            next_value,
            batch.row_sizes_T,
            gamma=self.settings.gamma,
            td_lambda=self.settings.td_lambda,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Networks, optimiser, counter and random state as named tensors."""
        return save_parts(self._parts(), {"steps": self.steps}, self.generator)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes up a saved state."""
        self.steps = load_parts(state, self._parts(), ("steps",), self.generator)["steps"]

    def _parts(self) -> dict[str, nn.Module | Optimiser]:
        return {"online": self.online, "target": self.target, "optimiser": self.optimiser}
