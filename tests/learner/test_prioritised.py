"""Importance weights and priorities of a prioritised table, against loops over episodes."""

import dataclasses

import numpy as np
import pytest
import torch

from learner.algorithms.registry import ALGORITHMS
from learner.algorithms.value_decomposition import ValueDecomposition
from learner.batching import Layout
from learner.prioritised import PRIORITY_RANGE, Sampling, mean_square
from tests.learner.batches import LENGTHS, build, ragged_batch

BY_RANK = sorted(LENGTHS, reverse=True)
WEIGHTS = np.linspace(0.1, 1.0, len(LENGTHS))
VALUE_BASED = [name for name, algorithm in ALGORITHMS.items() if issubclass(algorithm, ValueDecomposition)]


def sampling(weights=WEIGHTS):
    row_sizes = torch.from_numpy(Layout.of(np.array(LENGTHS)).row_sizes_T)
    indices = tuple(range(100, 100 + len(LENGTHS)))
    return Sampling.of(indices, torch.tensor(weights, dtype=torch.float32), row_sizes)


def errors_by_episode(error_P):
    """The errors of every episode by rank: step p at time t is of rank p - (steps of all times before t)."""
    by_episode, start = [[] for _ in LENGTHS], 0
    for t in range(max(LENGTHS)):
        alive = sum(length > t for length in LENGTHS)
        for rank in range(alive):
            by_episode[rank].append(error_P[start + rank])
        start += alive
    assert [len(errors) for errors in by_episode] == BY_RANK
    return by_episode


@pytest.mark.parametrize("agents", [(), (3,)])
def test_every_step_weighs_as_its_episode(agents):
    error = np.random.default_rng(0).standard_normal((sum(LENGTHS), *agents))
    expected = (
        sum(w * np.square(e).sum() for w, e in zip(WEIGHTS, errors_by_episode(error), strict=True))
        / error.size
    )
    actual = mean_square(torch.tensor(error), sampling())
    assert actual.item() == pytest.approx(expected, rel=1e-6)
    assert mean_square(torch.tensor(error), None).item() == pytest.approx(np.square(error).mean())


@pytest.mark.parametrize("agents", [(), (3,)])
def test_a_priority_is_the_mean_absolute_error_of_its_episode(agents):
    error = np.random.default_rng(1).standard_normal((sum(LENGTHS), *agents))
    expected = [np.abs(np.array(episode)).mean() for episode in errors_by_episode(error)]
    np.testing.assert_allclose(sampling().priorities(torch.tensor(error)).numpy(), expected, rtol=1e-6)


def test_priorities_stay_within_what_the_protocol_allows():
    error = torch.zeros(sum(LENGTHS))
    error[0] = 1e12
    priorities = sampling().priorities(error)
    assert (priorities.min(), priorities.max()) == pytest.approx(PRIORITY_RANGE)


@pytest.mark.parametrize("name", VALUE_BASED)
def test_value_based_algorithms_use_the_weights_and_tell_priorities(name):
    batch = ragged_batch()
    uniform, _ = build(name).losses(batch)
    ones, halves = (
        build(name).losses(dataclasses.replace(batch, sampling=sampling(np.full(len(LENGTHS), w))))[0]
        for w in (1.0, 0.5)
    )
    assert ones["td"].item() == pytest.approx(uniform["td"].item(), rel=1e-6)
    assert halves["td"].item() == pytest.approx(0.5 * uniform["td"].item(), rel=1e-6)
    algorithm = build(name)
    algorithm.train_step(dataclasses.replace(batch, sampling=sampling()))
    assert algorithm.priorities_B is not None
    assert algorithm.priorities_B.shape == (len(LENGTHS),)
    assert not algorithm.priorities_B.requires_grad
