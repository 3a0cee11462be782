"""What decoders leave out: how it fades, and that imagination carries it."""

import dataclasses

import pytest
import torch

from learner.imagination import imagine
from learner.present import Present
from learner.remainders import measure_fades
from learner.world_model import WorldModel
from tests.episodes import SPEC
from tests.learner.batches import AGENT, WORLD_MODEL, build, ragged_batch


def _started(**changes):
    """A model, its beliefs about a batch, and for each row its episode's rank and its time."""
    torch.manual_seed(0)
    batch = ragged_batch()
    model = WorldModel(SPEC, AGENT.hidden_size, WORLD_MODEL.model_copy(update=changes))
    hidden = torch.randn(*batch.obs_RNO.shape[:2], AGENT.hidden_size)
    with torch.no_grad():
        _, beliefs = model.losses(batch, hidden, torch.Generator())
    sizes = batch.row_sizes_T.tolist()
    ranks = torch.cat([torch.arange(size) for size in sizes])
    times = torch.cat([torch.full((size,), t) for t, size in enumerate(sizes)])
    return batch, model, beliefs, ranks, times


@pytest.mark.parametrize(("factor", "measured"), [(1.0, 1.0), (0.5, 0.5), (0.0, 0.0), (-1.0, 0.0)])
def test_a_fade_is_how_the_remainder_really_changes(factor, measured):
    batch, model, beliefs, ranks, times = _started()
    begun = torch.randn(batch.batch_size, SPEC.n_agents, AGENT.hidden_size)
    remainder = begun[ranks] * (torch.tensor(factor) ** times)[:, None, None]
    hidden = (model.ac_decoder(beliefs.s_RNZ) + remainder).detach()
    fades = measure_fades(model, beliefs, hidden, batch)
    torch.testing.assert_close(fades.hidden_D, torch.full_like(fades.hidden_D, measured), atol=1e-4, rtol=0)


def test_what_is_imagined_is_what_is_decoded_and_the_fading_rest():
    batch, model, beliefs, _, _ = _started()
    hidden = torch.randn(*batch.obs_RNO.shape[:2], AGENT.hidden_size)
    fades = measure_fades(model, beliefs, hidden, batch)
    fades = dataclasses.replace(
        fades, hidden_D=torch.rand_like(fades.hidden_D), obs_O=torch.rand_like(fades.obs_O)
    )
    present = Present(
        beliefs=beliefs,
        hidden_RND=hidden,
        obs_RNO=batch.obs_RNO,
        avail_RNA=batch.avail_actions_RNA,
        fades=fades,
    )
    imagined = imagine(model, build("vdfd").agent, present, complete=True)
    rest_h = hidden - model.ac_decoder(beliefs.s_RNZ)
    rest_z = batch.obs_RNO - model.decode_af(beliefs.v_RNZ)[1]
    for k in range(1, WORLD_MODEL.horizon + 1):
        decoded = model.ac_decoder(imagined.s_RNZ[k])
        torch.testing.assert_close(imagined.hidden_RND[k], decoded + fades.hidden_D**k * rest_h)
        decoded = model.decode_af(imagined.v_RNZ[k])[1]
        torch.testing.assert_close(imagined.obs_RNO[k], decoded + fades.obs_O**k * rest_z)


def test_nothing_fades_in_that_is_not_to_be_carried():
    for changes in ({"carry_remainders": False}, {"prior": False}):
        batch, model, beliefs, _, _ = _started(**changes)
        hidden = torch.randn(*batch.obs_RNO.shape[:2], AGENT.hidden_size)
        fades = measure_fades(model, beliefs, hidden, batch)
        assert not any(getattr(fades, f.name).any() for f in dataclasses.fields(fades))
