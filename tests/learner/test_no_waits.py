"""A gradient step asks a tensor for nothing: on a GPU the host would wait for the answer.

Its operations are looked at while the CPU does them. Sizes may be read: they are not on the device.
"""

import dataclasses

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from learner.algorithms.registry import ALGORITHMS
from learner.prioritised import Sampling
from tests.learner.batches import LENGTHS, WORLD_MODEL, build, ragged_batch

ATEN = torch.ops.aten
BY_MASK = (ATEN.index.Tensor, ATEN.index_put.default, ATEN.index_put_.default)
ASKING = {
    ATEN.bincount.default,
    ATEN.masked_select.default,
    ATEN.multinomial.default,
    ATEN.nonzero.default,
    ATEN._unique2.default,
}


class NothingAsked(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        indices = args[1] if function in BY_MASK else ()
        masks = [index for index in indices if index is not None and index.dtype == torch.bool]
        read = function == ATEN._local_scalar_dense.default and args[0].is_floating_point()
        assert not masks and not read and function not in ASKING, function
        return function(*args, **(kwargs or {}))


def _prioritised(batch):
    importance = torch.from_numpy(np.linspace(0.1, 1.0, len(LENGTHS), dtype=np.float32))
    sampling = Sampling.of(tuple(range(len(LENGTHS))), importance, batch.row_sizes_T)
    return dataclasses.replace(batch, sampling=sampling)


@pytest.mark.parametrize("prioritised", [False, True])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_step_waits_for_nothing(name, prioritised):
    # With its gradient imagination is torch's operations, as on a GPU.
    algorithm = build(name, world_model=WORLD_MODEL.model_copy(update={"td_gradient": True}))
    batch = _prioritised(ragged_batch()) if prioritised else ragged_batch()
    with NothingAsked():
        algorithm.train_step(batch)
