"""All that an algorithm needs to go on exactly, as named tensors."""

import logging
from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

log = logging.getLogger(__name__)


class Part(Protocol):
    """A network or an optimiser."""

    def state_dict(self) -> dict[str, Tensor]:
        """Its tensors by name."""

    def load_state_dict(self, state_dict: dict[str, Tensor], /) -> object:
        """Takes up what state_dict gave; raises KeyError or RuntimeError if it does not fit."""


def save_parts(
    parts: Mapping[str, Part], counters: Mapping[str, int], generator: torch.Generator
) -> dict[str, Tensor]:
    """ "<part>/<name>" -> tensor, the counters, and the generator's state."""
    named = {
        f"{part}/{name}": value for part, owner in parts.items() for name, value in owner.state_dict().items()
    }
    numbers = {name: torch.tensor(number) for name, number in counters.items()}
    return {**named, **numbers, "generator": generator.get_state()}


def load_parts(
    state: Mapping[str, Tensor],
    parts: Mapping[str, Part],
    counters: Iterable[str],
    generator: torch.Generator,
) -> dict[str, int]:
    """Puts a saved state back and returns the counters; raises ValueError when it does not fit.

    `generator` must be as it was seeded when the algorithm was made.
    """
    try:
        for part, owner in parts.items():
            owner.load_state_dict(_below(f"{part}/", state))
        numbers = {name: int(state[name]) for name in counters}
        _restore(generator, state["generator"].cpu(), numbers)
        return numbers
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"the saved state does not fit this algorithm: {error}") from error


def _restore(generator: torch.Generator, saved: Tensor, counters: Mapping[str, int]) -> None:
    """States of a CPU's and of a GPU's generator differ in size; neither can be made from the other."""
    if saved.shape == generator.get_state().shape:
        generator.set_state(saved)
        return
    # Not the seed alone: that would draw again what was drawn when the run began.
    sequence = np.random.SeedSequence((generator.initial_seed(), *counters.values()))
    generator.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))
    log.warning(
        "the state was saved on another kind of device than %s: training goes on with other random numbers, "
        "not bit for bit as it would have there",
        generator.device,
    )


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
