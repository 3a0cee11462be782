"""The optimiser, with its state as named tensors so that it can be saved without pickle."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.labels import label
from learner.settings import OptimiserSettings


@dataclass(frozen=True, slots=True)
class ParameterGroup:
    """Parameters that are clipped and optimised together."""

    parameters: Sequence[nn.Parameter]
    settings: OptimiserSettings


class Optimiser:
    """Clips each group's gradient by its own norm, then steps each with an optimiser of its own.

    Groups are clipped apart, so that a large gradient of the world model can't shrink the step of the
    agents and the mixer (ours).
    """

    def __init__(self, groups: Mapping[str, ParameterGroup]) -> None:
        self._groups = dict(groups)
        self._optimisers = {name: _build(group) for name, group in groups.items()}

    def step(self, loss: Tensor) -> dict[str, Tensor]:
        """Descends the loss; returns each group's gradient norm before clipping."""
        for optimiser in self._optimisers.values():
            optimiser.zero_grad(set_to_none=True)
        with label("backward"):
            loss.backward()
        norms = {}
        with label("optimiser"):
            for name, group in self._groups.items():
                norms[name] = nn.utils.clip_grad_norm_(group.parameters, group.settings.max_grad_norm)
                self._optimisers[name].step()
        return norms

    def state_dict(self) -> dict[str, Tensor]:
        """ "<group>/<parameter index>/<name>" -> tensor."""
        return {
            f"{group}/{index}/{name}": value
            for group, optimiser in self._optimisers.items()
            for index, entry in optimiser.state_dict()["state"].items()
            for name, value in entry.items()
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes up a saved state of the same optimisers over the same parameters; KeyError: it has others."""
        entries: dict[str, dict[int, dict[str, Tensor]]] = {name: {} for name in self._groups}
        for key, value in state.items():
            group, index, name = key.split("/", 2)
            entries[group].setdefault(int(index), {})[name] = value
        for group, optimiser in self._optimisers.items():
            current = optimiser.state_dict()
            optimiser.load_state_dict({"state": entries[group], "param_groups": current["param_groups"]})


def _build(group: ParameterGroup) -> torch.optim.Optimizer:
    parameters, settings = group.parameters, group.settings
    if settings.name == "adam":
        return torch.optim.Adam(parameters, lr=settings.learning_rate, fused=True)
    return torch.optim.RMSprop(
        parameters, lr=settings.learning_rate, alpha=settings.rmsprop_alpha, eps=settings.rmsprop_eps
    )
