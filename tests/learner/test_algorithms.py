"""Every algorithm in the registry: gradients, resume, targets. test_equations.py checks its losses."""

import numpy as np
import pytest
import torch
from torch import nn

from common.errors import BadInputError
from common.payload import encode_episode
from common.settings import AgentSettings
from learner import world_model
from learner.algorithms.registry import ALGORITHMS, build_algorithm
from learner.algorithms.value_decomposition import ValueDecomposition
from learner.batching import decode_batch
from learner.settings import OptimiserSettings
from tests.episodes import SPEC
from tests.learner.batches import (
    ALONE,
    EXPLORATION,
    SETTINGS,
    WORLD_MODEL,
    build,
    ragged_batch,
    ragged_episodes,
)

EVERY = pytest.mark.parametrize("name", ALGORITHMS)
OF_VALUES = pytest.mark.parametrize(
    "name", [name for name, kind in ALGORITHMS.items() if issubclass(kind, ValueDecomposition)]
)


def _copy(networks):
    return {name: value.clone() for name, value in networks.state_dict().items()}


def _same(a, b):
    assert a.keys() == b.keys()
    for key, value in a.items():
        torch.testing.assert_close(value, b[key], rtol=0, atol=0, msg=key)


@EVERY
def test_a_step_moves_every_parameter_and_no_target(name):
    algorithm = build(name)
    before, targets = _copy(algorithm.online), _copy(algorithm.target)
    algorithm.train_step(ragged_batch())
    for parameter, value in algorithm.online.state_dict().items():
        assert not torch.equal(value, before[parameter]), parameter
    _same(targets, _copy(algorithm.target))


@EVERY
def test_an_agent_alone_is_trained_and_measured(name):
    algorithm, batch = build(name, spec=ALONE), ragged_batch(spec=ALONE)
    before = _copy(algorithm.online)
    for figures in (algorithm.train_step(batch), algorithm.health(batch)):
        assert all(np.isfinite(float(value)) for value in figures.values())
    for part in algorithm.online:
        names = [parameter for parameter in before if parameter.startswith(f"{part}.")]
        after = algorithm.online.state_dict()
        assert not names or any(not torch.equal(after[parameter], before[parameter]) for parameter in names)


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
def test_a_state_from_another_kind_of_device_goes_on_with_random_numbers_of_its_own(name, caplog):
    """The state of a GPU's generator has 16 bytes."""
    original = build(name)
    original.train_step(ragged_batch())
    saved = {**original.state_dict(), "generator": torch.zeros(16, dtype=torch.uint8)}
    original.train_step(ragged_batch())
    later = {**original.state_dict(), "generator": torch.zeros(16, dtype=torch.uint8)}

    def resumed(state, seed=0):
        algorithm = build(name, seed=seed)
        algorithm.load_state_dict({key: value.clone() for key, value in state.items()})
        return algorithm

    first = resumed(saved)
    assert "not bit for bit" in caplog.text
    _same(_copy(first.online), {k[7:]: v for k, v in saved.items() if k.startswith("online/")})
    _same(first.state_dict(), resumed(saved).state_dict())
    states = [resumed(saved, seed=1), resumed(later), build(name), first]
    assert len({algorithm.generator.get_state().numpy().tobytes() for algorithm in states}) == 4


@EVERY
def test_a_foreign_state_is_refused(name):
    state = build(name).state_dict()
    with pytest.raises(ValueError, match="does not fit"):
        build(name).load_state_dict({k: v for k, v in state.items() if not k.startswith("target/")})


@EVERY
def test_targets_follow_after_the_set_number_of_episodes(name):
    algorithm = build(name)
    before = _copy(algorithm.target)
    for _ in range(SETTINGS.target_update_episodes - 1):
        algorithm.train_step(ragged_batch())
    _same(_copy(algorithm.target), before)
    algorithm.train_step(ragged_batch())
    online = _copy(algorithm.online)
    _same(_copy(algorithm.target), {parameter: online[parameter] for parameter in before})


@OF_VALUES
def test_a_targets_recurrent_weights_are_made_one_block_too(name, monkeypatch):
    """What cuDNN would otherwise do at every call. On the CPU it does nothing, so the call is looked for."""
    flattened = []
    monkeypatch.setattr(nn.GRU, "flatten_parameters", lambda gru: flattened.append(gru))
    algorithm = build(name)
    assert any(gru is algorithm.agent.gru for gru in flattened)
    assert any(gru is algorithm.target_agent.gru for gru in flattened)


@EVERY
def test_actors_that_choose_otherwise_are_refused(name):
    other = {"greedy": "softmax", "softmax": "greedy"}[ALGORITHMS[name].action_choice]
    agent, settings = AgentSettings(action_choice=other), SETTINGS.model_copy(update={"algorithm": name})
    cpu = torch.device("cpu")
    with pytest.raises(BadInputError, match=f"{name} learns from actors .* not {other}"):
        build_algorithm(SPEC, agent, settings, exploration=EXPLORATION, device=cpu, seed=0)


@EVERY
def test_measuring_health_changes_nothing(name):
    measured, left_alone = build(name), build(name)
    figures = measured.health(ragged_batch(3))
    assert all(np.isfinite(value) for value in figures.values())
    measured.train_step(ragged_batch())
    left_alone.train_step(ragged_batch())
    _same(measured.state_dict(), left_alone.state_dict())


@OF_VALUES
def test_long_episodes_do_not_dilute_short_ones(name, monkeypatch):
    """Every real step weighs the same: with padding in a mean, the short episode's share would change."""
    monkeypatch.setattr(world_model, "standard_noise", lambda like, generator: torch.zeros_like(like))
    # How remainders fade is measured over the whole batch, the one thing that episodes share.
    algorithm = build(name, world_model=WORLD_MODEL.model_copy(update={"carry_remainders": False}))
    episodes = [encode_episode(e) for e in ragged_episodes()]

    def td(chosen):
        losses, _ = algorithm.losses(decode_batch(chosen, SPEC))
        return float(losses["td"].detach())

    alone = [td([episode]) * episode.meta.length for episode in episodes]
    together = td(episodes) * sum(e.meta.length for e in episodes)
    assert together == pytest.approx(sum(alone), rel=1e-4)


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
