"""What a decoder leaves out of the present, and how it fades (ours).

A decoder gives back a part of what its code was made of, x_t = D(code_t) + r_t, and first what varies most.
The remainder r_t lasts: on maps with five and more agents it changes so little in a step that imagination
without it is worse than a copy of the present. So an imagined x is D(code_{t+k}) + f^k r_t, where f is
the factor per feature that says most of r_{t+1} by r_t: least squares over the batch, within [0, 1].

That is done for the hidden states and, in the first layer of the static branch's encoder, for the obs.

Shapes: R rows, P steps, N agents, F features, D hidden, H width of the encoder's first layer, O obs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from learner.batching import EpisodeBatch
from learner.world_model import Beliefs, WorldModel

MAX_STEPS = 512
"""Of a batch, evenly spread, to measure a factor by."""


@dataclass(frozen=True, kw_only=True)
class Fades:
    """The factors f; zeros where nothing is carried."""

    hidden_D: Tensor
    static_H: Tensor
    obs_O: Tensor


@torch.no_grad()
def measure_fades(
    model: WorldModel, beliefs: Beliefs, hidden_RND: Tensor, batch: EpisodeBatch, *, of_obs: bool = True
) -> Fades:
    """From pairs of a row and the row after it. Training needs no obs, so it can do without theirs."""
    obs_RNO = batch.obs_RNO
    if not (model.settings.carry_remainders and model.settings.prior):
        widths = (hidden_RND.shape[-1], beliefs.static_projected_RNH.shape[-1], obs_RNO.shape[-1])
        hidden_D, static_H, obs_O = (hidden_RND.new_zeros(width) for width in widths)
        return Fades(hidden_D=hidden_D, static_H=static_H, obs_O=obs_O)
    count = len(batch.step_rows_P)
    steps = torch.arange(0, count, -(-count // MAX_STEPS), device=obs_RNO.device)
    rows = torch.cat((batch.step_rows_P[steps], batch.batch_size + steps))
    some = beliefs.part(rows)
    return Fades(
        hidden_D=_fade(hidden_RND[rows] - model.ac_decoder(some.s_RNZ)),
        static_H=_fade(some.static_projected_RNH - model.project_decoded(some.v_RNZ)),
        obs_O=_fade(obs_RNO[rows] - model.decode_af(some.v_RNZ)[1])
        if of_obs
        else obs_RNO.new_zeros(obs_RNO.shape[-1]),
    )


def _fade(remainders: Tensor) -> Tensor:
    """The first half are those of some rows, the second those of the rows after them."""
    now, later = remainders.flatten(0, -2).chunk(2)
    smallest = torch.finfo(now.dtype).tiny
    return ((now * later).sum(dim=0) / now.square().sum(dim=0).clamp(min=smallest)).clamp(0.0, 1.0)
