"""Algorithms by name."""

import torch

from common.errors import BadInputError
from common.exploration import ExplorationSettings
from common.settings import AgentSettings
from common.types import EnvSpec
from learner.algorithms import ALGORITHM_NAMES
from learner.algorithms.base import Algorithm
from learner.algorithms.coma import Coma
from learner.algorithms.iql import Iql
from learner.algorithms.qmix import Qmix
from learner.algorithms.qtran import Qtran
from learner.algorithms.vdfd import Vdfd
from learner.algorithms.vdn import Vdn
from learner.settings import LearnerSettings

ALGORITHMS: dict[str, type[Algorithm]] = {
    "vdfd": Vdfd,
    "qmix": Qmix,
    "vdn": Vdn,
    "iql": Iql,
    "qtran": Qtran,
    "coma": Coma,
}
assert tuple(ALGORITHMS) == ALGORITHM_NAMES


def build_algorithm(
    spec: EnvSpec,
    agent: AgentSettings,
    settings: LearnerSettings,
    *,
    exploration: ExplorationSettings,
    device: torch.device,
    seed: int,
) -> Algorithm:
    """The algorithm that the settings name.

    Raises BadInputError if there is none of that name, or if it does not learn from what such actors play.
    """
    if settings.algorithm not in ALGORITHMS:
        raise BadInputError(
            f"there is no algorithm {settings.algorithm!r}; there are {', '.join(ALGORITHMS)}"
        )
    algorithm = ALGORITHMS[settings.algorithm]
    if agent.action_choice != algorithm.action_choice:
        raise BadInputError(
            f"{settings.algorithm} learns from actors with agent.action_choice={algorithm.action_choice}, "
            f"not {agent.action_choice}: its preset has that"
        )
    return algorithm(spec, agent, settings, exploration=exploration, device=device, seed=seed)
