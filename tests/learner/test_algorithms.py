"""Every algorithm in the registry: gradients, resume, and the TD loss in slow NumPy."""

import numpy as np
import pytest
import torch

from common.agent import agent_inputs
from common.codec import encode_episode
from learner import world_model
from learner.algorithms.registry import ALGORITHMS
from learner.batching import decode_batch
from learner.settings import OptimiserSettings
from tests.episodes import SPEC
from tests.learner.batches import SETTINGS, build, ragged_batch, ragged_episodes

EVERY = pytest.mark.parametrize("name", ALGORITHMS)


def _same(a, b):
    assert a.keys() == b.keys()
    for key, value in a.items():
        torch.testing.assert_close(value, b[key], rtol=0, atol=0, msg=key)


@EVERY
def test_every_parameter_gets_a_gradient(name):
    algorithm = build(name)
    losses, _ = algorithm.losses(ragged_batch())
    torch.stack(list(losses.values())).sum().backward()
    for parameter_name, parameter in algorithm.online.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, parameter_name
    assert all(p.grad is None for p in algorithm.target.parameters())


@EVERY
@pytest.mark.parametrize("optimiser", ["rmsprop", "adam"])
def test_saved_loaded_and_resumed_equals_never_stopped(name, optimiser):
    changes = {"optimiser": OptimiserSettings(name=optimiser)}
    straight, stopped = build(name, **changes), build(name, **changes)
    batches = [ragged_batch(seed) for seed in range(7)]
    for batch in batches[:4]:
        straight.train_step(batch)
        stopped.train_step(batch)
    resumed = build(name, seed=99, **changes)
    resumed.load_state_dict({key: value.clone() for key, value in stopped.state_dict().items()})
    for batch in batches[4:]:
        straight.train_step(batch)
        resumed.train_step(batch)
    _same(straight.state_dict(), resumed.state_dict())


@EVERY
def test_a_foreign_state_is_refused(name):
    state = build(name).state_dict()
    with pytest.raises(ValueError, match="does not fit"):
        build(name).load_state_dict({k: v for k, v in state.items() if not k.startswith("target/agent")})


@EVERY
def test_targets_follow_after_the_set_number_of_episodes(name):
    algorithm = build(name)
    before = algorithm.target["agent"].head.weight.clone()
    for _ in range(SETTINGS.target_update_episodes - 1):
        algorithm.train_step(ragged_batch())
    torch.testing.assert_close(algorithm.target["agent"].head.weight, before, rtol=0, atol=0)
    algorithm.train_step(ragged_batch())
    torch.testing.assert_close(algorithm.target["agent"].head.weight, algorithm.agent.head.weight)


@EVERY
def test_measuring_health_changes_nothing(name):
    measured, left_alone = build(name), build(name)
    figures = measured.health(ragged_batch(3))
    assert all(np.isfinite(value) for value in figures.values())
    measured.train_step(ragged_batch())
    left_alone.train_step(ragged_batch())
    _same(measured.state_dict(), left_alone.state_dict())


@EVERY
def test_long_episodes_do_not_dilute_short_ones(name, monkeypatch):
    """Every real step weighs the same: with padding in a mean, the short episode's share would change."""
    monkeypatch.setattr(world_model, "standard_noise", lambda like, generator: torch.zeros_like(like))
    algorithm = build(name)
    episodes = [encode_episode(e) for e in ragged_episodes()]

    def td(chosen):
        losses, _ = algorithm.losses(decode_batch(chosen, SPEC))
        return float(losses["td"].detach())

    alone = [td([episode]) * episode.meta.length for episode in episodes]
    together = td(episodes) * sum(e.meta.length for e in episodes)
    assert together == pytest.approx(sum(alone), rel=1e-4)


def _histories(network, episode):
    """(h_t [T+1, N, D], Q_i(tau_t, .) [T+1, N, A]) of one episode, one step at a time."""
    hidden, states = network.initial_hidden(1), []
    last = torch.full((1, SPEC.n_agents), -1)
    for t in range(episode.meta.length + 1):
        inputs = agent_inputs(SPEC, torch.from_numpy(episode.obs[t : t + 1]), last)
        hidden = network.unroll(inputs.unsqueeze(0), hidden)[0]
        states.append(hidden[0])
        if t < episode.meta.length:
            last = torch.from_numpy(episode.actions[t : t + 1].astype(np.int64))
    hidden = torch.stack(states)
    return hidden.detach().numpy(), network.q(hidden).detach().numpy()


def _trained(name):
    """An algorithm whose online and target networks differ."""
    algorithm = build(name)
    for batch in (ragged_batch(1), ragged_batch(2)):
        algorithm.train_step(batch)
    return algorithm


def _steps(algorithm):
    """Every step of the batch as the equations see it, in slow NumPy."""
    agents = range(SPEC.n_agents)
    for episode in ragged_episodes():
        h, online = _histories(algorithm.agent, episode)
        h_target, target = _histories(algorithm.target["agent"], episode)
        online_masked = np.where(episode.avail_actions, online, -np.inf)
        for t in range(episode.meta.length):
            now, later = online_masked[t].argmax(-1), online_masked[t + 1].argmax(-1)
            end = episode.meta.terminated and t == episode.meta.length - 1
            yield {
                "q": np.array([online[t, i, episode.actions[t, i]] for i in agents]),
                "q_best": np.array([online[t, i, now[i]] for i in agents]),
                "q_next": np.array([target[t + 1, i, later[i]] for i in agents]),
                "u": (episode.actions[t].astype(np.int64), now, later),
                "h": (h[t], h_target[t + 1]),
                "state": (episode.state[t], episode.state[t + 1]),
                "target": lambda v, r=episode.reward[t], end=end: r + SETTINGS.gamma * (not end) * v,
            }


@pytest.mark.parametrize("name", ["qmix", "vdn", "iql"])
def test_the_td_loss_is_the_papers_in_slow_numpy(name):
    """y = r + gamma (1 - terminated) Q_tot'(argmax over *available* actions of the online Q)."""
    algorithm = _trained(name)

    def mixed(which, q, state):
        if name == "vdn":
            return q.sum()
        if name == "iql":
            return q
        mixer = getattr(algorithm, which)["mixer"]  # against its own NumPy in test_mixers.py
        return float(mixer(torch.from_numpy(q)[None], torch.from_numpy(state)[None]).detach())

    errors = [
        (s["target"](mixed("target", s["q_next"], s["state"][1])) - mixed("online", s["q"], s["state"][0]))
        ** 2
        for s in _steps(algorithm)
    ]
    losses, _ = algorithm.losses(ragged_batch())
    np.testing.assert_allclose(float(losses["td"].detach()), np.mean(errors), rtol=1e-4)


def _layers(sequential, x):
    for layer in sequential:
        linear = isinstance(layer, torch.nn.Linear)
        x = layer.weight.detach().numpy() @ x + layer.bias.detach().numpy() if linear else np.maximum(x, 0)
    return x


def test_qtrans_losses_are_the_papers_in_slow_numpy():
    algorithm = _trained("qtran")

    def q_jt(which, h, u, state):
        joint = getattr(algorithm, which)["mixer"]
        one_hot = np.eye(SPEC.n_actions)
        encoded = sum(
            _layers(joint.encode, np.concatenate((h[i], one_hot[u[i]]))) for i in range(SPEC.n_agents)
        )
        return _layers(joint.q, np.concatenate((state, encoded)))[0]

    td, opt, nopt = [], [], []
    for s in _steps(algorithm):
        (u, best, best_next), (h, h_next), (state, state_next) = s["u"], s["h"], s["state"]
        v = _layers(algorithm.online["mixer"].v, state)[0]
        q = q_jt("online", h, u, state)
        td.append((q - s["target"](q_jt("target", h_next, best_next, state_next))) ** 2)
        opt.append((s["q_best"].sum() - q_jt("online", h, best, state) + v) ** 2)
        nopt.append(min(s["q"].sum() - q + v, 0) ** 2)
    losses, _ = algorithm.losses(ragged_batch())
    for name, values in (("td", td), ("opt", opt), ("nopt", nopt)):
        np.testing.assert_allclose(float(losses[name].detach()), np.mean(values), rtol=1e-4, err_msg=name)


def test_an_unavailable_action_never_makes_a_target():
    algorithm = build("qmix", double_q=False)
    batch = ragged_batch()
    plain = algorithm.losses(batch)[0]["td"].detach()
    avail = batch.avail_actions_RNA
    network = algorithm.target["agent"]
    forbidden = ~avail[batch.batch_size :].any(dim=0).any(dim=0)
    assert not forbidden.any(), "every action is available somewhere in this batch"
    # Forbid action 0 everywhere, then make it look wonderful: nothing may change.
    avail[..., 0] = False
    avail[..., SPEC.fallback_action] = True
    forbidding = algorithm.losses(batch)[0]["td"].detach()
    with torch.no_grad():
        network.head.bias[0] += 1e6
    torch.testing.assert_close(algorithm.losses(batch)[0]["td"].detach(), forbidding)
    assert torch.isfinite(plain)


def test_the_td_loss_stays_out_of_the_world_model_unless_asked():
    for td_gradient in (False, True):
        settings = SETTINGS.world_model.model_copy(update={"td_gradient": td_gradient})
        algorithm = build("vdfd", world_model=settings)
        algorithm.losses(ragged_batch())[0]["td"].backward()
        reached = any(p.grad is not None for p in algorithm.world_model.parameters())
        assert reached == td_gradient
