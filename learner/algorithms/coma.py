"""COMA (Foerster et al. 2018): an actor per agent, and one critic that tells each what its own action added.

    policy     pi(u | tau) = (1 - epsilon) softmax(z(tau))_u + epsilon / |available|
    advantage  A^i = Q(s, u) - sum_u' pi(u' | tau^i) Q(s, (u^-i, u'))
    L_policy   = - mean [A^i] log pi(u^i | tau^i)
    L_critic   = mean (Q(s, u) - [y])^2,  y: TD(lambda) of the target critic, one step per time, last to first

On-policy: an episode is trained on once, soon after it was played. [.] carries no gradient.

Shapes: R rows and P steps of a packed batch (learner/batching.py), N agents, A actions. Row B + p is the row
after step p.
"""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from common.agent import AgentNetwork
from common.exploration import ExplorationSettings, epsilon_at
from common.settings import AgentSettings
from common.types import EnvSpec
from learner.algorithms.base import Algorithm
from learner.algorithms.saved_state import load_parts, save_parts
from learner.batching import EpisodeBatch
from learner.critic import CentralCritic
from learner.histories import histories, values_of
from learner.optimiser import Optimiser, ParameterGroup
from learner.settings import LearnerSettings
from learner.targets import td_lambda_targets


class Coma(Algorithm):
    """Agent network and critic, each with its own optimiser; only the critic has a target copy."""

    action_choice = "softmax"
    learning_rates = (*Algorithm.learning_rates, "learner.coma.critic_learning_rate")

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
        torch.manual_seed(seed)
        self.settings, self._exploration = settings, exploration
        self.generator = torch.Generator(device).manual_seed(seed)
        critic = CentralCritic(spec, settings.coma.critic_hidden_size)
        self.online = nn.ModuleDict({"agent": AgentNetwork(spec, agent), "critic": critic}).to(device)
        self.target = nn.ModuleDict({"critic": copy.deepcopy(critic)}).to(device)
        self.target.requires_grad_(False)
        policy = ParameterGroup(list(self.agent.parameters()), settings.optimiser)
        critic_rate = {"learning_rate": settings.coma.critic_learning_rate}
        of_critic = settings.optimiser.model_copy(update=critic_rate)
        self.optimiser = Optimiser({"policy": policy})
        self.critic_optimiser = Optimiser(
            {"critic": ParameterGroup(list(self.online["critic"].parameters()), of_critic)}
        )
        self.env_steps = 0
        """Trained on so far. Every episode is trained on once, so this is about the run's count."""
        self.critic_steps = 0
        """Since the target was copied."""

    @property
    def agent(self) -> AgentNetwork:  # type: ignore[override]
        """The online agent network; its head gives the policy's logits."""
        network = self.online["agent"]
        assert isinstance(network, AgentNetwork)
        return network

    def train_step(self, batch: EpisodeBatch) -> dict[str, Tensor]:
        """A step of the critic for every time of the batch, then one of the policy."""
        policy_RNA = self.policy(batch)
        y_PN = self.critic_targets(batch, self.joint_actions(batch, policy_RNA))
        q_PNA, metrics = self._train_critic(batch, y_PN)
        loss, policy_metrics = self.policy_loss(batch, policy_RNA, q_PNA)
        norms = self.optimiser.step(loss)
        self.env_steps += len(batch.reward_P)
        return {
            "loss/policy": loss.detach(),
            "grad_norm/policy": norms["policy"],
            "q/target": y_PN.mean(),
            **metrics,
            **policy_metrics,
        }

    def policy(self, batch: EpisodeBatch) -> Tensor:
        """pi(. | tau) [R, N, A] as it was played, 0 for what is not available."""
        avail_RNA = batch.avail_actions_RNA
        logits_RNA = histories(self.agent, batch).q_RNA.masked_fill(~avail_RNA, -torch.inf)
        epsilon = epsilon_at(self._exploration, self.env_steps)
        uniform_RNA = avail_RNA.to(logits_RNA.dtype) / avail_RNA.sum(dim=-1, keepdim=True)
        return (1.0 - epsilon) * logits_RNA.softmax(dim=-1) + epsilon * uniform_RNA

    def joint_actions(self, batch: EpisodeBatch, policy_RNA: Tensor) -> Tensor:
        """The actions [R, N] of every row; those after an episode's last step are drawn from the policy."""
        drawn_BN = _drawn(policy_RNA.detach()[batch.last_rows_B], self.generator)
        actions_RN = batch.row_actions()
        actions_RN[batch.last_rows_B] = drawn_BN
        return actions_RN

    @torch.no_grad()
    def critic_targets(self, batch: EpisodeBatch, actions_RN: Tensor) -> Tensor:
        """TD(lambda) [P, N] of the target critic's values of the joint actions."""
        q_RNA = self.target["critic"](batch.state_RS, batch.obs_RNO, actions_RN, batch.last_actions())
        next_PN = values_of(q_RNA, actions_RN)[batch.batch_size :]
        return td_lambda_targets(
            batch.reward_P.unsqueeze(-1).expand_as(next_PN),
            batch.terminated_P.unsqueeze(-1).expand_as(next_PN),
            next_PN,
            batch.row_sizes_T,
            gamma=self.settings.gamma,
            td_lambda=self.settings.td_lambda,
        )

    def critic_loss(self, batch: EpisodeBatch, y_PN: Tensor, steps: slice) -> tuple[Tensor, Tensor]:
        """The squared error over these steps, and the values [.., N, A] of all actions there."""
        rows, actions = batch.step_rows_P[steps], batch.actions_PN[steps]
        last_actions = batch.last_actions()[rows]
        q_NA = self.online["critic"](batch.state_RS[rows], batch.obs_RNO[rows], actions, last_actions)
        return (values_of(q_NA, actions) - y_PN[steps]).square().mean(), q_NA.detach()

    def policy_loss(
        self, batch: EpisodeBatch, policy_RNA: Tensor, q_PNA: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The counterfactual policy gradient's loss, and scalars to log."""
        policy_PNA = policy_RNA[batch.step_rows_P]
        advantage_PN = counterfactual_advantage(policy_PNA.detach(), q_PNA, batch.actions_PN)
        log_taken_PN = values_of(policy_PNA, batch.actions_PN).log()
        entropy = -torch.special.xlogy(policy_PNA, policy_PNA).detach().sum(dim=-1).mean()
        metrics = {"policy/entropy": entropy, "policy/advantage": advantage_PN.mean()}
        return -(advantage_PN * log_taken_PN).mean(), metrics

    def _train_critic(self, batch: EpisodeBatch, y_PN: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Every time step's values [P, N, A] before its own update, as the advantage needs them."""
        values, losses, norms = [], [], []
        for steps in _times_backwards(batch):
            loss, q_NA = self.critic_loss(batch, y_PN, steps)
            norms.append(self.critic_optimiser.step(loss)["critic"])
            values.append(q_NA)
            losses.append(loss.detach())
        self.critic_steps += len(losses)
        if self.critic_steps >= self.settings.coma.target_update_critic_steps:
            self.target["critic"].load_state_dict(self.online["critic"].state_dict())
            self.critic_steps = 0
        q_PNA = torch.cat(values[::-1])
        taken = values_of(q_PNA, batch.actions_PN).mean()
        metrics = {
            "loss/critic": torch.stack(losses).mean(),
            "grad_norm/critic": torch.stack(norms).mean(),
            "q/taken": taken,
        }
        return q_PNA, metrics

    def health(self, batch: EpisodeBatch) -> dict[str, float]:
        """Nothing beyond the log."""
        del batch
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        """Networks, optimisers, counters and random state."""
        counters = {"env_steps": self.env_steps, "critic_steps": self.critic_steps}
        return save_parts(self._parts(), counters, self.generator)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes up a saved state."""
        counters = load_parts(state, self._parts(), ("env_steps", "critic_steps"), self.generator)
        self.env_steps, self.critic_steps = counters["env_steps"], counters["critic_steps"]

    def _parts(self) -> dict[str, nn.Module | Optimiser]:
        return {
            "online": self.online,
            "target": self.target,
            "optimiser": self.optimiser,
            "critic_optimiser": self.critic_optimiser,
        }


def counterfactual_advantage(policy_PNA: Tensor, q_PNA: Tensor, actions_PN: Tensor) -> Tensor:
    """A^i [P, N]: the value of the action taken less what the agent would expect of its policy."""
    assert policy_PNA.shape == q_PNA.shape
    return values_of(q_PNA, actions_PN) - (policy_PNA * q_PNA).sum(dim=-1)


def _drawn(policy_BNA: Tensor, generator: torch.Generator) -> Tensor:
    """An action [B, N] of each distribution: torch.multinomial's way, without its wait for the device."""
    race_BNA = torch.empty_like(policy_BNA).exponential_(generator=generator)
    return (policy_BNA / race_BNA).argmax(dim=-1)


def _times_backwards(batch: EpisodeBatch) -> Iterator[slice]:
    """The steps of each time, the last time first."""
    stop = len(batch.reward_P)
    for size in reversed(batch.row_sizes_T[1:].tolist()):
        yield slice(stop - size, stop)
        stop -= size
