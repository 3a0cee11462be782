"""What the compiled loops over time steps are made of."""

import math

import numpy as np
import pytest
import torch

from common.agent import AgentNetwork
from common.kernels.compiled import compiled
from learner.histories import histories
from learner.kernels import blas
from learner.kernels.activations import sigmoid, tanh
from learner.shares import MOST_SEQUENCES, in_parallel, shares_of
from tests.episodes import SPEC
from tests.learner.batches import AGENT, in_double, ragged_batch


@compiled("void(f4[::1], f4[::1])")
def sigmoids(x, out):
    for place in range(len(x)):
        out[place] = sigmoid(x[place])


@compiled("void(f4[::1], f4[::1])")
def tanhs(x, out):
    for place in range(len(x)):
        out[place] = tanh(x[place])


@pytest.mark.parametrize(
    ("ours", "exact"),
    [(sigmoids, lambda x: 1 / (1 + np.exp(-x))), (tanhs, np.tanh)],
    ids=["sigmoid", "tanh"],
)
def test_activations_are_exact_everywhere(ours, exact):
    x = np.concatenate([np.linspace(-100, 100, 100_003), np.linspace(-1, 1, 10_001), [0.0, -0.0]])
    x = x.astype(np.float32)
    out = np.empty_like(x)
    ours(x, out)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(out, exact(x.astype(np.float64)), rtol=0, atol=2.5e-7)


@pytest.mark.parametrize("ours", [sigmoids, tanhs], ids=["sigmoid", "tanh"])
def test_activations_keep_what_is_no_number(ours):
    out = np.empty(3, np.float32)
    ours(np.array([math.nan, math.inf, -math.inf], np.float32), out)
    assert np.isnan(out[0])
    np.testing.assert_allclose(out[1:], [1, 0 if ours is sigmoids else -1], atol=1e-7)


@compiled(
    "void(i8, i8, i8, i8, f4[::1], f4[::1], f4[::1], b1)",
    "void(i8, i8, i8, i8, f8[::1], f8[::1], f8[::1], b1)",
)
def product(routine, rows, inner, columns, a, b, c, transposed):
    if transposed:
        blas.multiply_columns(routine, rows, inner, columns, a, 3, b, 5, c, 7, 1.0)
    else:
        blas.multiply(routine, rows, inner, columns, a, 3, b, 5, c, 7, 0.5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 3, 2), (2, 70, 65), (200, 64, 9)])
def test_products_touch_their_own_matrix_alone(shape, dtype):
    rows, inner, columns = shape
    rng = np.random.default_rng(0)
    a, b = (
        rng.normal(size=3 + rows * inner + 2).astype(dtype),
        rng.normal(size=5 + inner * columns).astype(dtype),
    )
    before = rng.normal(size=7 + rows * columns + 4).astype(dtype)
    right = b[5:].reshape(inner, columns)
    left = a[3 : 3 + rows * inner]
    for transposed, expected, factor in (
        (False, left.reshape(rows, inner) @ right, 0.5),
        (True, left.reshape(inner, rows).T @ right, 1.0),
    ):
        c = before.copy()
        product(blas.product_routine(np.dtype(dtype)), rows, inner, columns, a, b, c, transposed)
        own = slice(7, 7 + rows * columns)
        tolerance = 1e-4 if dtype == np.float32 else 1e-12
        np.testing.assert_allclose(c[own], expected.ravel() + factor * before[own], atol=tolerance)
        np.testing.assert_array_equal(np.delete(c, own), np.delete(before, own))


def test_single_precision_is_as_exact_as_layer_by_layer():
    torch.manual_seed(0)
    network, batch = AgentNetwork(SPEC, AGENT), ragged_batch()
    single = histories(network, batch)
    gradients = torch.autograd.grad(single.q_RNA.square().sum(), network.parameters())
    network.double()
    double = histories(network, in_double(batch))
    exact = torch.autograd.grad(double.q_RNA.square().sum(), network.parameters())
    torch.testing.assert_close(single.q_RNA.double(), double.q_RNA, rtol=0, atol=2e-6)
    for ours, reference in zip(gradients, exact, strict=True):
        torch.testing.assert_close(ours.double(), reference, rtol=2e-5, atol=2e-5)


def test_a_weight_that_is_no_number_is_seen_in_the_values():
    network, batch = AgentNetwork(SPEC, AGENT), ragged_batch()
    with torch.no_grad():
        network.gru.weight_hh_l0[0, 0] = math.nan
    assert histories(network, batch).q_RNA.isnan().any()


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("sizes", [[1], [5, 5, 4, 2, 2, 1], [96] * 30 + [40] * 20 + [3], [900] * 9 + [1]])
def test_shares_are_all_sequences_once_and_about_as_long(monkeypatch, sizes, threads):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    sizes = np.array(sizes)
    shares = shares_of(sizes)
    assert [k for first, last in shares for k in range(first, last)] == list(range(sizes[0]))
    assert len(shares) == min(threads, sizes[0]) or sizes[0] > MOST_SEQUENCES
    if sizes[0] > 90:
        rows = [np.clip(sizes - first, 0, last - first).sum() for first, last in shares]
        assert max(rows) <= 1.1 * min(rows) + len(sizes)


@pytest.mark.parametrize("threads", [1, 3])
def test_every_share_is_worked_on_once_and_an_error_is_not_lost(monkeypatch, threads):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    shares, done = [(k, k + 1) for k in range(20)], []
    in_parallel(done.append, shares)
    assert sorted(done) == shares

    def fails(share):
        if share == (7, 8):
            raise ValueError("share 7")

    with pytest.raises(ValueError, match="share 7"):
        in_parallel(fails, shares)
