"""Has the world model learned anything? Its imagination against copying the present.

"explained" is the share of the variance: 1 - mean squared error / variance; 1 is perfect, 0 is no better
than the mean. Measured at k = 1 .. j for what the mixer is given (the policy's own actions) and
with the actions that were really taken (the dynamics alone).

And does the mixer use it? Each input x of the mixing has the weight sum |x dQ_tot/dx|; its share is that over
the sum of all inputs' weights. The inputs are the state and what each branch adds to the rollout.

Shapes: R rows, P steps, N agents, F features.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from common.agent import AgentNetwork, greedy_actions
from learner.batching import EpisodeBatch
from learner.imagination import imagine, predicted_avail
from learner.present import Present
from learner.world_model import WorldModel


def measure(
    model: WorldModel, policy: AgentNetwork, present: Present, batch: EpisodeBatch
) -> dict[str, float]:
    """Figures by name, "world_model/..."; call it without gradients."""
    later, hidden_RND = later_rows(batch, model.settings.horizon), present.hidden_RND
    imagined = imagine(model, policy, present, complete=True)
    with_real_actions = imagine(model, policy, present, actions=_real_actions(batch, later), complete=True)
    best_RN = greedy_actions(policy.q(hidden_RND), batch.avail_actions_RNA)
    figures = {}
    for k, (rows, rows_later) in enumerate(later, start=1):
        h_later, z_later = hidden_RND[rows_later], batch.obs_RNO[rows_later]
        figures[f"h_explained_k{k}"] = explained(imagined.hidden_RND[k][rows], h_later)
        figures[f"h_explained_real_actions_k{k}"] = explained(with_real_actions.hidden_RND[k][rows], h_later)
        figures[f"h_explained_copy_k{k}"] = explained(hidden_RND[rows], h_later)
        figures[f"z_explained_k{k}"] = explained(imagined.obs_RNO[k][rows], z_later)
        figures[f"z_explained_copy_k{k}"] = explained(batch.obs_RNO[rows], z_later)
        if k < len(imagined.actions_RN):
            same = imagined.actions_RN[k][rows] == best_RN[rows_later]
            figures[f"action_agreement_k{k}"] = float(same.float().mean())
        if imagined.avail_logits_RNA:
            avail = predicted_avail(imagined.avail_logits_RNA[k - 1][rows], model.spec.fallback_action)
            right = avail == batch.avail_actions_RNA[rows_later]
            figures[f"avail_accuracy_k{k}"] = float(right.float().mean())
    return {f"world_model/{name}": value for name, value in figures.items()}


def input_shares(value: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, float]:
    """Share of every input in the gradient of the value's sum, times the input: "mixer_input/..."; sum 1."""
    gradients = torch.autograd.grad(value.sum(), list(inputs.values()))
    pairs = zip(inputs.items(), gradients, strict=True)
    weights = {name: float((x.detach() * gradient).abs().sum()) for (name, x), gradient in pairs}
    total = max(sum(weights.values()), 1e-12)
    return {f"mixer_input/{name}": weight / total for name, weight in weights.items()}


def later_rows(batch: EpisodeBatch, horizon: int) -> list[tuple[Tensor, Tensor]]:
    """For k = 1 .. horizon: the rows that have a row k steps later, and that row."""
    first, pairs = batch.batch_size, []
    later = torch.arange(first, len(batch.obs_RNO), device=batch.obs_RNO.device)
    earlier = batch.step_rows_P
    for _ in range(horizon):
        pairs.append((earlier, later))
        # One step further back from `earlier`, where there is one: row r >= B follows step r - B.
        has_past = earlier >= first
        earlier, later = batch.step_rows_P[earlier[has_past] - first], later[has_past]
    return pairs


def explained(prediction: Tensor, truth: Tensor) -> float:
    """Share of the variance of the truth that a prediction explains."""
    error = (prediction - truth).square().mean()
    variance = (truth - truth.mean(dim=0, keepdim=True)).square().mean()
    return float(1.0 - error / variance.clamp(min=1e-12))


def _real_actions(batch: EpisodeBatch, later: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """For k = 0 .. horizon - 1: the actions taken k steps after each row; 0 where the episode is over."""
    actions = []
    for rows, rows_later in later:
        taken = torch.zeros(
            batch.obs_RNO.shape[:2], dtype=batch.actions_PN.dtype, device=batch.actions_PN.device
        )
        taken[rows] = batch.actions_PN[rows_later - batch.batch_size]
        actions.append(taken)
    return actions
