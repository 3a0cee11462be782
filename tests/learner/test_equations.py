"""Losses and gradients of every algorithm are those of equations.py, in float64.

A gradient is compared parameter by parameter, as the derivative in a random direction: a wrong element
anywhere in it would show. What must get no gradient has the derivative zero.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

import learner.world_model
from common.exploration import epsilon_at
from common.payload import encode_episode
from learner.batching import decode_batch
from learner.settings import WorldModelSettings
from tests.episodes import SPEC
from tests.learner import world_model_equations
from tests.learner.batches import (
    EXPLORATION,
    LENGTHS,
    SETTINGS,
    WORLD_MODEL,
    build,
    in_double,
    ragged_batch,
    ragged_episodes,
)
from tests.learner.equations import (
    coma_losses,
    history,
    no_mixer,
    qmix_mixer,
    qtran_losses,
    sum_mixer,
    td_loss,
)

STEP = 1e-30
TOLERANCE = 1e-9
"""Relative; both sides are float64, so the 1e-5 that single precision allows would hide errors."""
EPISODES = sorted(ragged_episodes(3, (1, 3, 2)), key=lambda e: -e.meta.length)  # as a batch has them
MIXERS = {"iql": no_mixer, "vdn": sum_mixer, "qmix": qmix_mixer, "vdfd": qmix_mixer}
GAMMA = SETTINGS.gamma


def _world_model(**changes):
    return {"world_model": WORLD_MODEL.model_copy(update={"horizon": 2, **changes})}


CASES = {
    "iql": ("iql", {}),
    "iql-lambda": ("iql", {"td_lambda": 0.6}),
    "vdn": ("vdn", {}),
    "qmix": ("qmix", {}),
    "qmix-lambda": ("qmix", {"td_lambda": 0.6}),
    "qmix-without-double-q": ("qmix", {"double_q": False}),
    "qtran": ("qtran", {}),
    "vdfd": ("vdfd", _world_model()),
    "vdfd-td-into-the-world-model": ("vdfd", _world_model(td_gradient=True, kl_balance=None)),
    "vdfd-without-remainders": ("vdfd", _world_model(td_gradient=True, carry_remainders=False)),
    "vdfd-literal": ("vdfd", _world_model(td_gradient=True, af_rollout="literal", normalise_branches=False)),
    "vdf-sv": ("vdfd", _world_model(posterior="vae", td_gradient=True)),
    "vdf-post": ("vdfd", _world_model(prior=False, td_gradient=True)),
}


@dataclasses.dataclass
class Drawn:
    """Stands for standard_noise, and keeps what it gave."""

    samples: list[torch.Tensor]

    def __call__(self, like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        sample = torch.randn(like.shape, generator=torch.Generator().manual_seed(len(self.samples)))
        self.samples.append(sample.to(like.dtype))
        return self.samples[-1]


def _parameters(networks):
    return {name: value.detach().numpy().copy() for name, value in networks.state_dict().items()}


def _trained(name, changes):
    """In float64, with targets that lag behind."""
    algorithm = build(name, **changes)
    for batch in (ragged_batch(1), ragged_batch(2)):
        algorithm.train_step(batch)
    algorithm.online.double()
    algorithm.target.double()
    return algorithm


def _vdfd(settings: WorldModelSettings, online, target, noise: Callable):
    """(mean losses of the world model, what the mixer sees at every time of every episode)"""
    played = []
    for index, e in enumerate(EPISODES):
        h = history(target, e).h
        found = world_model_equations.moments(online, settings, e, h, lambda *at, i=index: noise(i, *at))
        played.append((e, h, found))
    rows = [moment.losses for *_, found in played for moment in found]
    fades, conditions = world_model_equations.fades(online, settings, played), []
    for episode in played:
        rollout = world_model_equations.rollout(online, target, settings, episode, fades)
        conditions.append([np.concatenate(pair) for pair in zip(episode[0].state, rollout, strict=True)])
    return {name: np.mean([row[name] for row in rows]) for name in rows[0]}, conditions


def _expected(name, changes, online, target, noise):
    """All losses by name as the equations have them, from parameters that may be complex."""
    if name == "qtran":
        return qtran_losses(online, target, EPISODES, gamma=GAMMA)
    losses, conditions = {}, [list(e.state) for e in EPISODES]
    if name == "vdfd":
        losses, conditions = _vdfd(changes["world_model"], online, target, noise)
    switches = {"td_lambda": changes.get("td_lambda", 0.0), "double_q": changes.get("double_q", True)}
    td = td_loss(MIXERS[name], online, target, EPISODES, conditions, gamma=GAMMA, **switches)
    return {**losses, "td": td}


def _noise_of(drawn: Drawn, batch):
    """What was drawn for one sample of one episode (by its rank) at one time."""
    names = ("s", "s_prior", "v", "v_prior") if len(drawn.samples) == 4 else ("s", "v")
    starts = (batch.row_sizes_T.cumsum(0) - batch.row_sizes_T).tolist()

    def noise(rank, name, t):
        return drawn.samples[names.index(name)][starts[t] + rank].numpy()

    return noise


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_are_those_of_the_equations(case, monkeypatch):
    name, changes = CASES[case]
    algorithm = _trained(name, changes)
    batch = in_double(decode_batch([encode_episode(e) for e in EPISODES], SPEC))
    monkeypatch.setattr(learner.world_model, "standard_noise", drawn := Drawn([]))
    losses, _ = algorithm.losses(batch)
    noise = _noise_of(drawn, batch)
    _compare(algorithm, losses, lambda online, target: _expected(name, changes, online, target, noise))


@pytest.mark.parametrize("td_lambda", [0.0, 0.8])
def test_comas_losses_and_gradients_are_those_of_the_equations(td_lambda):
    algorithm = _trained("coma", {"td_lambda": td_lambda})
    batch = in_double(decode_batch([encode_episode(e) for e in EPISODES], SPEC))
    policy = algorithm.policy(batch)
    actions = algorithm.joint_actions(batch, policy)
    y = algorithm.critic_targets(batch, actions)
    critic_loss, q = algorithm.critic_loss(batch, y, slice(None))
    policy_loss, _ = algorithm.policy_loss(batch, policy, q)

    starts = (batch.row_sizes_T.cumsum(0) - batch.row_sizes_T).tolist()
    ends = [actions[starts[e.meta.length] + rank].numpy() for rank, e in enumerate(EPISODES)]
    epsilon = epsilon_at(EXPLORATION, 2 * sum(LENGTHS))  # after two training steps
    assert EXPLORATION.epsilon_finish < epsilon < EXPLORATION.epsilon_start
    rules = {"epsilon": epsilon, "gamma": GAMMA, "td_lambda": td_lambda}
    _compare(
        algorithm,
        {"critic": critic_loss, "policy": policy_loss},
        lambda online, target: coma_losses(online, target, EPISODES, ends, **rules),
    )


def _compare(algorithm, losses, equations):
    """Values, and the derivative of each in one random direction per parameter."""
    online, target = _parameters(algorithm.online), _parameters(algorithm.target)
    expected = equations(online, target)
    assert losses.keys() == expected.keys()
    for name, loss in losses.items():
        np.testing.assert_allclose(loss.item(), expected[name], rtol=TOLERANCE, err_msg=name)
    gradients = {name: _gradient(loss, algorithm.online) for name, loss in losses.items()}
    rng = np.random.default_rng(0)
    for parameter, value in online.items():
        direction = rng.standard_normal(value.shape)
        moved = equations({**online, parameter: value + 1j * STEP * direction}, target)
        for name, gradient in gradients.items():
            slope, norm = np.sum(gradient[parameter] * direction), np.linalg.norm(gradient[parameter])
            assert abs(slope - np.imag(moved[name]) / STEP) <= TOLERANCE * max(norm, 1.0), (name, parameter)


def _gradient(loss, networks):
    """By parameter; zeros where the loss does not reach it."""
    names, parameters = zip(*networks.named_parameters(), strict=True)
    found = torch.autograd.grad(
        loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return {name: gradient.numpy() for name, gradient in zip(names, found, strict=True)}
