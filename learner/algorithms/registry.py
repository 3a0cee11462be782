"""Algorithms by name."""

import torch

from common.errors import BadInputError
from common.settings import AgentSettings
from common.types import EnvSpec
from learner.algorithms import ALGORITHM_NAMES
from learner.algorithms.base import Algorithm
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
}
assert tuple(ALGORITHMS) == ALGORITHM_NAMES


def build_algorithm(
    spec: EnvSpec, agent: AgentSettings, settings: LearnerSettings, *, device: torch.device, seed: int
) -> Algorithm:
    """The algorithm that the settings name."""
    if settings.algorithm not in ALGORITHMS:
        raise BadInputError(
            f"there is no algorithm {settings.algorithm!r}; there are {', '.join(ALGORITHMS)}"
        )
    return ALGORITHMS[settings.algorithm](spec, agent, settings, device=device, seed=seed)
