"""What Level-Based Foraging can play, without importing it."""

from collections.abc import Mapping
from typing import NamedTuple

from actor.environment import Environment, EnvironmentKind
from actor.settings import EnvSettings
from common.settings import PositiveInt, Settings


class LbfTask(NamedTuple):
    """One task: a square field with agents and food."""

    size: int
    """Cells along each side of the field."""
    agents: int
    food: int
    """Pieces of food at the start."""
    sight: int | None = None
    """Cells that an agent sees in each direction; None: the whole field."""
    coop: bool = False
    """Every piece of food needs all agents (at most three) together."""


# Named as by the package, without "Foraging-" and the version. Those that are commonly reported come first.
TASKS = {
    "8x8-2p-2f-coop": LbfTask(8, 2, 2, coop=True),
    "2s-8x8-2p-2f-coop": LbfTask(8, 2, 2, sight=2, coop=True),
    "10x10-3p-3f": LbfTask(10, 3, 3),
    "2s-10x10-3p-3f": LbfTask(10, 3, 3, sight=2),
    "15x15-3p-5f": LbfTask(15, 3, 5),
    "15x15-4p-3f": LbfTask(15, 4, 3),
    "15x15-4p-5f": LbfTask(15, 4, 5),
    "5x5-2p-1f-coop": LbfTask(5, 2, 1, coop=True),
}


class LbfOptions(Settings):
    """Options of the environment `lbf`."""

    episode_limit: PositiveInt = 50
    """Longest episode in steps."""


class Lbf(EnvironmentKind):
    """Level-Based Foraging: agents with levels gather food that is too heavy for one of them."""

    @staticmethod
    def maps() -> Mapping[str, str]:
        """Each task's name with what it is."""
        return {name: _describe(task) for name, task in TASKS.items()}

    @staticmethod
    def check_options(settings: EnvSettings) -> None:
        """Raises pydantic's ValidationError if `settings.options` are not LbfOptions."""
        LbfOptions(**settings.options)

    @staticmethod
    def open(settings: EnvSettings, *, copies: int, threads: int) -> Environment:  # noqa: ARG004
        """Builds the environment; it is plain Python, one thread."""
        from actor.lbf_env import LbfEnvironment

        return LbfEnvironment(
            map_name=settings.map,
            task=TASKS[settings.map],
            episode_limit=LbfOptions(**settings.options).episode_limit,
            copies=copies,
        )


def _describe(task: LbfTask) -> str:
    sight = "" if task.sight is None else f", sight {task.sight}"
    coop = ", all are needed for each" if task.coop else ""
    return f"{task.agents} agents, {task.food} food on {task.size} x {task.size}{sight}{coop}"
