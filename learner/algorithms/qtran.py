"""QTRAN-base (Son et al. 2019), with the joint networks and weights of PyMARL's `qtran`.

    L_td   = (Q_jt(tau, u) - y)^2,                           y = r + gamma (1 - terminated) Q_jt'(tau', u*')
    L_opt  = (sum_i Q_i(u*_i) - [Q_jt(tau, u*)] + V_jt)^2,   u* the agents' own greedy actions
    L_nopt = min(sum_i Q_i(u_i) - [Q_jt(tau, u)] + V_jt, 0)^2

[.] carries no gradient.

Shapes: R rows and P steps of a packed batch, N agents, A actions, S state. Row B + p is the row after step p.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.agent import AgentNetwork, greedy_actions
from learner.algorithms.value_decomposition import ValueDecomposition
from learner.batching import EpisodeBatch
from learner.histories import Histories, values_of
from learner.mixers import JointValue


class Qtran(ValueDecomposition):
    """The joint value network stands where the others have a mixer."""

    def build_networks(self, agent: AgentNetwork) -> dict[str, nn.Module]:
        """Agent and joint value."""
        spec, embed = self.spec, self.settings.qtran.embed_size
        return {
            "agent": agent,
            "mixer": JointValue(agent.hidden_size, spec.n_actions, spec.state_size, embed),
        }

    def extra_loss_weights(self) -> dict[str, float]:
        """The two constraints' weights."""
        return {"opt": self.settings.qtran.opt_weight, "nopt": self.settings.qtran.nopt_weight}

    def value_losses(
        self, batch: EpisodeBatch, online: Histories, target: Histories, condition_RS: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """L_td, L_opt and L_nopt."""
        first, now = batch.batch_size, batch.step_rows_P
        q_PNA, hidden_PND, state_PS = online.q_RNA[now], online.hidden_RND[now], condition_RS[now]
        q_jt_P = self._joint("online", hidden_PND, batch.actions_PN, state_PS)
        with torch.no_grad():
            best_next_PN = self.best_next_actions(batch, online, target)
            next_P = self._joint("target", target.hidden_RND[first:], best_next_PN, condition_RS[first:])
            y_P = self.targets(batch, next_P)
            best_PN = greedy_actions(q_PNA, batch.avail_actions_RNA[now])
            q_jt_best_P = self._joint("online", hidden_PND, best_PN, state_PS)
        joint = self.online["mixer"]
        assert isinstance(joint, JointValue)
        v_P = joint.value(state_PS)
        opt_P = values_of(q_PNA, best_PN).sum(dim=-1) - q_jt_best_P + v_P
        nopt_P = values_of(q_PNA, batch.actions_PN).sum(dim=-1) - q_jt_P.detach() + v_P
        losses = {
            "td": self.td_loss(batch, q_jt_P - y_P),
            "opt": opt_P.square().mean(),
            "nopt": nopt_P.clamp(max=0.0).square().mean(),
        }
        return losses, {"q/taken": q_jt_P.detach().mean(), "q/target": y_P.mean()}

    def _joint(self, which: str, hidden_PND: Tensor, actions_PN: Tensor, state_PS: Tensor) -> Tensor:
        one_hot_PNA = F.one_hot(actions_PN, self.spec.n_actions).to(hidden_PND.dtype)
        networks = self.online if which == "online" else self.target
        q_P: Tensor = networks["mixer"](hidden_PND, one_hot_PNA, state_PS)
        return q_P
