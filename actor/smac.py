"""What SMAC can play, and whether StarCraft II and smac are installed, without importing them."""

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from actor.environment import Environment, EnvironmentKind
from actor.settings import EnvSettings
from common.errors import FatalError
from common.settings import PositiveFloat, PositiveInt, Settings


class SmacMap(NamedTuple):
    """One battle, as SMAC has it; a test compares with the package's own table."""

    description: str
    episode_limit: int
    """In steps."""


MAPS = {
    "3m": SmacMap("3 marines against 3 marines", 60),
    "8m": SmacMap("8 marines against 8 marines", 120),
    "25m": SmacMap("25 marines against 25 marines", 150),
    "5m_vs_6m": SmacMap("5 marines against 6 marines", 70),
    "8m_vs_9m": SmacMap("8 marines against 9 marines", 120),
    "10m_vs_11m": SmacMap("10 marines against 11 marines", 150),
    "27m_vs_30m": SmacMap("27 marines against 30 marines", 180),
    "MMM": SmacMap("1 medivac, 2 marauders, 7 marines against the same", 150),
    "MMM2": SmacMap("1 medivac, 2 marauders, 7 marines against 1 medivac, 3 marauders, 8 marines", 180),
    "2s3z": SmacMap("2 stalkers, 3 zealots against the same", 120),
    "3s5z": SmacMap("3 stalkers, 5 zealots against the same", 150),
    "3s5z_vs_3s6z": SmacMap("3 stalkers, 5 zealots against 3 stalkers, 6 zealots", 170),
    "3s_vs_3z": SmacMap("3 stalkers against 3 zealots", 150),
    "3s_vs_4z": SmacMap("3 stalkers against 4 zealots", 200),
    "3s_vs_5z": SmacMap("3 stalkers against 5 zealots", 250),
    "1c3s5z": SmacMap("1 colossus, 3 stalkers, 5 zealots against the same", 180),
    "2m_vs_1z": SmacMap("2 marines against 1 zealot", 150),
    "corridor": SmacMap("6 zealots against 24 zerglings", 400),
    "6h_vs_8z": SmacMap("6 hydralisks against 8 zealots", 150),
    "2s_vs_1sc": SmacMap("2 stalkers against 1 spine crawler", 300),
    "so_many_baneling": SmacMap("7 zealots against 32 banelings", 100),
    "bane_vs_bane": SmacMap("4 banelings, 20 zerglings against the same", 200),
    "2c_vs_64zg": SmacMap("2 colossi against 64 zerglings", 400),
}


class SmacOptions(Settings):
    """Options of the environment `smac`. Those of the game have SMAC's own values."""

    difficulty: Literal["1", "2", "3", "4", "5", "6", "7", "8", "9", "A"] = "7"
    """Of the game's own player; 7 is "very hard", with which results are reported."""
    game_version: str | None = None
    """Such as "4.10.0"; null: the newest that is installed. Results of different versions differ."""
    obs_last_action: bool = False
    """Put the allies' last actions into the observations."""
    state_last_action: bool = True
    """Put every agent's last action into the state."""
    launch_timeout_s: PositiveFloat = 60.0
    """A client that takes longer to start is replaced."""
    answer_timeout_s: PositiveFloat = 5.0
    """A client that takes longer over one step is replaced, and its episode dropped."""
    launch_attempts: PositiveInt = 5
    """Launches in a row that may fail before the process gives up."""
    client_attempts: PositiveInt = 10
    """Clients in a row that may fail in play, none with an episode finished, before the process gives up."""
    recycle_episodes: PositiveInt = 500
    """A client is replaced after so many episodes, because its memory grows."""
    replay_dir: str | None = None
    """Where to save .SC2Replay files, one per client with all its episodes; null: none are saved."""


class Smac(EnvironmentKind):
    """The StarCraft Multi-Agent Challenge: one StarCraft II client per process."""

    max_copies = 1

    @staticmethod
    def maps() -> Mapping[str, str]:
        """Each map's name with its two sides and its time limit."""
        return {name: f"{m.description}, {m.episode_limit} steps" for name, m in MAPS.items()}

    @staticmethod
    def check_options(settings: EnvSettings) -> None:
        """Raises pydantic's ValidationError if `settings.options` are not SmacOptions."""
        SmacOptions(**settings.options)

    @staticmethod
    def check_installed(settings: EnvSettings) -> None:
        """Raises FatalError unless smac, the game and the map are there."""
        _check_package()
        _check_game(game_folder(), settings.map)

    @staticmethod
    def open(settings: EnvSettings, *, copies: int, threads: int) -> Environment:  # noqa: ARG004
        """Builds the environment; the first reset starts its client."""
        from actor.smac_env import SmacEnvironment

        return SmacEnvironment(map_name=settings.map, options=SmacOptions(**settings.options))


def game_folder() -> Path:
    """Where StarCraft II is: $SC2PATH, or what pysc2 takes without it."""
    return Path(os.environ.get("SC2PATH") or "~/StarCraftII").expanduser()


def _check_package() -> None:
    found = importlib.util.find_spec("smac")
    folders = list(found.submodule_search_locations or ()) if found else []
    if not folders:
        raise FatalError("Environment smac needs the package smac, which is not installed: make sc2-python.")
    if not any(Path(folder, "env", "starcraft2").is_dir() for folder in folders):
        # On PyPI the name belongs to a tool for hyper-parameter search.
        raise FatalError(
            f"The package smac in {folders[0]} is AutoML's SMAC3, not the StarCraft Multi-Agent Challenge: "
            "pip uninstall smac, then make sc2-python (`pip install smac` always gives the wrong one)."
        )


def _check_game(folder: Path, map_name: str) -> None:
    if not any(folder.glob("Versions/Base*/SC2_x64")):
        raise FatalError(
            f"StarCraft II is not in {folder}: set SC2PATH to where it is, or install it with `make sc2`."
        )
    file = folder / "Maps" / "SMAC_Maps" / f"{map_name}.SC2Map"
    if not file.is_file():
        raise FatalError(f"SMAC's map {file} is missing: install SMAC's maps with `make sc2`.")
