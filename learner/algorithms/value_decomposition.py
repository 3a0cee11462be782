"""Q-learning over whole episodes with a factored value: what QMIX and VDFD share (PyMARL's QLearner).

Shapes: R rows and P steps of a packed batch (learner/batching.py), B episodes, N agents, I input, D hidden,
A actions, S condition of the mixer. Row B + p is the row after step p.
"""

import copy
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.agent import AgentNetwork, agent_inputs, greedy_actions
from common.settings import AgentSettings
from common.types import EnvSpec
from learner.algorithms.base import Algorithm
from learner.batching import EpisodeBatch
from learner.optimiser import Optimiser
from learner.packed_gru import packed_gru
from learner.settings import LearnerSettings
from learner.targets import td_lambda_targets


@dataclass(frozen=True, kw_only=True)
class Histories:
    """What the agent network makes of every row."""

    hidden_RND: Tensor
    q_RNA: Tensor


class ValueDecomposition(Algorithm):
    """An agent network and a mixer, each with a target copy; subclasses add what the mixer sees."""

    def __init__(
        self,
        spec: EnvSpec,
        agent: AgentSettings,
        settings: LearnerSettings,
        *,
        device: torch.device,
        seed: int,
    ) -> None:
        torch.manual_seed(seed)
        self.spec, self.settings, self.device = spec, settings, device
        self.generator = torch.Generator(device).manual_seed(seed)
        self.online = nn.ModuleDict(self.build_networks(AgentNetwork(spec, agent))).to(device)
        self.target = nn.ModuleDict({name: copy.deepcopy(self.online[name]) for name in ("agent", "mixer")})
        self.target.requires_grad_(False)
        self.steps = 0
        self.loss_weights = {"td": 1.0, **self.extra_loss_weights()}
        self.optimiser = Optimiser(self.parameter_groups(), settings.optimiser)

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

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by the norm they are clipped with."""
        return {"value": list(self.online.parameters())}

    @abstractmethod
    def mixing(self, batch: EpisodeBatch, target: Histories) -> tuple[Tensor, dict[str, Tensor]]:
        """The mixer's condition on every row [R, S], and the losses of whatever made it."""

    def losses(self, batch: EpisodeBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """All losses by name, each a mean over real steps, and further scalars for the log."""
        rows = agent_inputs(self.spec, batch.obs_RNO, batch.last_actions())
        online = self._histories(self.agent, rows, batch)
        with torch.no_grad():
            target = self._histories(self.target_agent, rows, batch)
        condition_RS, losses = self.mixing(batch, target)
        losses["td"], metrics = self._td_loss(batch, online, target, condition_RS)
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

    def _histories(self, network: AgentNetwork, inputs_RNI: Tensor, batch: EpisodeBatch) -> Histories:
        rows, agents, _ = inputs_RNI.shape
        embedded = torch.relu(network.embed(inputs_RNI)).view(rows * agents, -1)
        hidden = packed_gru(network.gru, embedded, batch.row_sizes_T * agents).view(rows, agents, -1)
        return Histories(hidden_RND=hidden, q_RNA=network.q(hidden))

    def _td_loss(
        self, batch: EpisodeBatch, online: Histories, target: Histories, condition_RS: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared error of Q_tot against double-Q targets (paper, L^TD)."""
        first = batch.batch_size
        q_PNA = online.q_RNA[batch.step_rows_P]
        chosen_PN = q_PNA.gather(-1, batch.actions_PN.unsqueeze(-1)).squeeze(-1)
        q_tot_P = self.online["mixer"](chosen_PN, condition_RS[batch.step_rows_P])
        with torch.no_grad():
            choice = online if self.settings.double_q else target
            best_PN = greedy_actions(choice.q_RNA[first:], batch.avail_actions_RNA[first:])
            best_q_PN = target.q_RNA[first:].gather(-1, best_PN.unsqueeze(-1)).squeeze(-1)
            next_value_P = self.target["mixer"](best_q_PN, condition_RS[first:])
            y_P = td_lambda_targets(
                batch.reward_P,
                batch.terminated_P,
                next_value_P,
                batch.row_sizes_T,
                gamma=self.settings.gamma,
                td_lambda=self.settings.td_lambda,
            )
        assert q_tot_P.shape == y_P.shape
        metrics = {"q/taken": q_tot_P.detach().mean(), "q/target": y_P.mean()}
        return (q_tot_P - y_P).square().mean(), metrics

    def state_dict(self) -> dict[str, Tensor]:
        """Networks, optimiser, counter and random state as named tensors."""
        return {
            **{f"online/{name}": value for name, value in self.online.state_dict().items()},
            **{f"target/{name}": value for name, value in self.target.state_dict().items()},
            **{f"optimiser/{name}": value for name, value in self.optimiser.state_dict().items()},
            "steps": torch.tensor(self.steps),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes up a saved state."""
        try:
            self.online.load_state_dict(_below("online/", state))
            self.target.load_state_dict(_below("target/", state))
            self.optimiser.load_state_dict(_below("optimiser/", state))
            self.steps = int(state["steps"])
            self.generator.set_state(state["generator"].cpu())
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"the saved state does not fit this algorithm: {error}") from error


def _below(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
