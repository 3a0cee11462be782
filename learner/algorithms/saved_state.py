"""All that an algorithm needs to go on exactly, as named tensors."""

from collections.abc import Iterable, Mapping
from typing import Protocol

import torch
from torch import Tensor


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
    """Puts a saved state back and returns the counters; raises ValueError when it does not fit."""
    try:
        for part, owner in parts.items():
            owner.load_state_dict(_below(f"{part}/", state))
        generator.set_state(state["generator"].cpu())
        return {name: int(state[name]) for name in counters}
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"the saved state does not fit this algorithm: {error}") from error


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
