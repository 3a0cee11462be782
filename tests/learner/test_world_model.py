"""The world model's losses against a slow float64 writing of the paper's, episode by episode."""

import numpy as np
import pytest
import torch
from torch import nn

import learner.world_model as world_model_module
from learner.vae import PriorVae
from learner.world_model import WorldModel
from tests.episodes import SPEC
from tests.learner.batches import AGENT, WORLD_MODEL, ragged_batch, ragged_episodes

N, A, Z = SPEC.n_agents, SPEC.n_actions, WORLD_MODEL.latent_size
COMPLETE = (np.ones((N, N)) - np.eye(N)) / N


def _smooth(x):
    looped = COMPLETE + np.eye(N)
    d = np.diag(looped.sum(1) ** -0.5)
    return d @ looped @ d @ x


def _sharpen(x):
    d = np.diag((COMPLETE.sum(1) + 2) ** -0.5)
    return d @ (2 * np.eye(N) - COMPLETE) @ d @ x


def _linear(layer: nn.Linear, x):
    y = x @ layer.weight.detach().numpy().T
    return y if layer.bias is None else y + layer.bias.detach().numpy()


def _relu(x):
    return np.maximum(x, 0)


def _encode(encoder, *parts):
    first = sum(_linear(layer, _smooth(x)) for layer, x in zip(encoder.first, parts, strict=True))
    return _linear(encoder.last, _smooth(_relu(first)))


def _decode(decoder, code):
    return _linear(decoder.last, _sharpen(_relu(_linear(decoder.first, _sharpen(code)))))


def _prior(vae: PriorVae, latent, actions=None):
    hidden = _linear(vae.embed_latent, latent.reshape(-1))
    if actions is not None:
        hidden = hidden + _linear(vae.embed_actions, actions.reshape(-1))
    change, log_var = np.split(_linear(vae.statistics, _relu(hidden)).reshape(N, 2 * Z), 2, axis=-1)
    return latent + change, log_var


def _kl(m, lv, mp, lvp):
    return np.mean(0.5 * (lvp - lv) + (np.exp(lv) + (m - mp) ** 2) / (2 * np.exp(lvp)) - 0.5)


def _mse(a, b):
    return np.mean((a - b) ** 2)


def _losses_at(model, z, h, s_before, v_before, a_before, avail):
    """One time step of one episode, without sampling noise: (losses, s_t, v_t)."""
    weight = WORLD_MODEL.prior_weight
    m, lv = np.split(_encode(model.ac_encoder, h), 2, axis=-1)
    mp, lvp = _prior(model.ac_prior, s_before, a_before)
    s = m
    back = _linear(model.ac_prior.decode_last, _relu(_linear(model.ac_prior.decode_first, mp.reshape(-1))))
    kl_ac = weight * _kl(mp, lvp, 0, np.zeros_like(lvp)) + _kl(m, lv, mp, lvp)
    rec_ac = (
        _mse(s_before, back[: N * Z].reshape(N, Z))
        + _mse(a_before, back[N * Z :].reshape(N, A))
        + _mse(h, _decode(model.ac_decoder, s))
    )
    m, lv = np.split(_encode(model.af_encoder, v_before, z), 2, axis=-1)
    mp, lvp = _prior(model.af_prior, v_before)
    v = m
    back = _linear(model.af_prior.decode_last, _relu(_linear(model.af_prior.decode_first, mp.reshape(-1))))
    kl_af = weight * _kl(mp, lvp, 0, np.zeros_like(lvp)) + _kl(m, lv, mp, lvp)
    both = np.concatenate((v_before, z), axis=-1)
    rec_af = _mse(v_before, back.reshape(N, Z)) + _mse(both, _decode(model.af_decoder, v))
    st = _mse(z, _decode(model.st_decoder, _encode(model.st_encoder, z)))
    logits = _linear(model.avail_head[2], _relu(_linear(model.avail_head[0], s)))
    p = 1 / (1 + np.exp(-logits))
    bce = np.mean(-np.where(avail, np.log(p), np.log(1 - p)))
    losses = {"kl_ac": kl_ac, "rec_ac": rec_ac, "kl_af": kl_af, "rec_af": rec_af, "st": st, "avail": bce}
    return losses, s, v


def _expected(model, hidden_of):
    """Means over all real time steps of all episodes: s_{-1} = v_{-1} = 0, a_{-1} = 0."""
    rows = []
    for index, episode in enumerate(ragged_episodes()):
        s = v = np.zeros((N, Z))
        for t in range(episode.meta.length + 1):
            a = np.eye(A)[episode.actions[t - 1]] if t else np.zeros((N, A))
            losses, s, v = _losses_at(
                model, episode.obs[t], hidden_of(index, t), s, v, a, episode.avail_actions[t]
            )
            rows.append(losses)
    return {name: np.mean([row[name] for row in rows]) for name in rows[0]}


@pytest.fixture
def without_noise(monkeypatch):
    monkeypatch.setattr(world_model_module, "standard_noise", lambda like, generator: torch.zeros_like(like))


def _hidden_rows(batch):
    """Hidden states as data: any function of (episode, time) will do, and this one is easy to look up."""
    torch.manual_seed(5)
    return torch.randn(*batch.obs_RNO.shape[:2], AGENT.hidden_size, dtype=torch.float64)


def _double(batch):
    fields = {name: getattr(batch, name) for name in batch.__dataclass_fields__}
    return type(batch)(**{n: x.double() if x.dtype == torch.float32 else x for n, x in fields.items()})


def test_losses_are_the_papers(without_noise):
    torch.manual_seed(0)
    model = WorldModel(SPEC, AGENT.hidden_size, WORLD_MODEL).double()
    batch = _double(ragged_batch())
    hidden = _hidden_rows(batch)
    losses, _ = model.losses(batch, hidden, torch.Generator())

    order = np.argsort([-e.meta.length for e in ragged_episodes()], kind="stable").tolist()
    starts = (batch.row_sizes_T.cumsum(0) - batch.row_sizes_T).tolist()
    expected = _expected(model, lambda i, t: hidden[starts[t] + order.index(i)].numpy())
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(float(losses[name].detach()), value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("changes", [{}, {"posterior": "vae"}, {"kl_balance": None}])
def test_every_parameter_gets_a_gradient_from_the_losses_alone(changes):
    torch.manual_seed(0)
    model = WorldModel(SPEC, AGENT.hidden_size, WORLD_MODEL.model_copy(update=changes))
    batch = ragged_batch()
    losses, _ = model.losses(batch, _hidden_rows(batch).float(), torch.Generator())
    torch.stack(list(losses.values())).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_hidden_states_must_be_data():
    model = WorldModel(SPEC, AGENT.hidden_size, WORLD_MODEL)
    batch = ragged_batch()
    with pytest.raises(AssertionError):
        model.losses(batch, _hidden_rows(batch).float().requires_grad_(), torch.Generator())


def test_without_a_prior_there_is_no_transition():
    model = WorldModel(SPEC, AGENT.hidden_size, WORLD_MODEL.model_copy(update={"prior": False}))
    assert model.ac_prior is None and model.af_prior is None
    batch = ragged_batch()
    losses, _ = model.losses(batch, _hidden_rows(batch).float(), torch.Generator())
    assert all(torch.isfinite(loss) for loss in losses.values())
