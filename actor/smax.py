"""What SMAX can play, without importing it, and how its process is set up before JAX is imported."""

import contextlib
import hashlib
import io
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from actor.environment import Environment, EnvironmentKind
from actor.settings import EnvSettings
from common.settings import PositiveInt, Settings

log = logging.getLogger(__name__)


# The simulator's numbers of its types of units.
MARINE, STALKER, ZEALOT, ZERGLING = 0, 2, 3, 4


class Sides(NamedTuple):
    """Who fights whom: the type of every unit."""

    allies: tuple[int, ...]
    enemies: tuple[int, ...]


class SmaxMap(NamedTuple):
    """One battle."""

    description: str
    episode_limit: int
    """SMAC's time limit of the map of the same name, in steps."""
    sides: Sides | None = None
    """Of a battle that the package does not bring along; None: the package knows them by the map's name."""


# Those of SMAC whose units the simulator has. All are fought in the open: it has no terrain.
MAPS = {
    "3m": SmaxMap("3 marines against 3 marines", 60),
    "8m": SmaxMap("8 marines against 8 marines", 120),
    "25m": SmaxMap("25 marines against 25 marines", 150),
    "2s3z": SmaxMap("2 stalkers, 3 zealots against the same", 120),
    "3s5z": SmaxMap("3 stalkers, 5 zealots against the same", 150),
    "5m_vs_6m": SmaxMap("5 marines against 6 marines", 70),
    "10m_vs_11m": SmaxMap("10 marines against 11 marines", 150),
    "27m_vs_30m": SmaxMap("27 marines against 30 marines", 180),
    "3s5z_vs_3s6z": SmaxMap("3 stalkers, 5 zealots against 3 stalkers, 6 zealots", 170),
    "3s_vs_5z": SmaxMap("3 stalkers against 5 zealots", 250),
    "6h_vs_8z": SmaxMap("6 hydralisks against 8 zealots", 150),
    "8m_vs_9m": SmaxMap("8 marines against 9 marines", 120, Sides((MARINE,) * 8, (MARINE,) * 9)),
    "3s_vs_3z": SmaxMap("3 stalkers against 3 zealots", 150, Sides((STALKER,) * 3, (ZEALOT,) * 3)),
    "3s_vs_4z": SmaxMap("3 stalkers against 4 zealots", 200, Sides((STALKER,) * 3, (ZEALOT,) * 4)),
    "2m_vs_1z": SmaxMap("2 marines against 1 zealot", 150, Sides((MARINE,) * 2, (ZEALOT,))),
    "corridor": SmaxMap(
        "6 zealots against 24 zerglings, without the corridor", 400, Sides((ZEALOT,) * 6, (ZERGLING,) * 24)
    ),
}


class SmaxOptions(Settings):
    """Options of the environment `smax`."""

    episode_limit: PositiveInt | None = None
    """Longest episode in steps; null: SMAC's limit of the map."""
    state_last_action: bool = True
    """Put every agent's last action into the state, as SMAC does by default."""


class Smax(EnvironmentKind):
    """StarCraft-like battles simulated in JAX (JaxMARL's SMAX) against its heuristic enemy."""

    @staticmethod
    def maps() -> Mapping[str, str]:
        """Each map's name with its two sides and its time limit."""
        return {name: f"{m.description}, {m.episode_limit} steps" for name, m in MAPS.items()}

    @staticmethod
    def check_options(settings: EnvSettings) -> None:
        """Raises pydantic's ValidationError if `settings.options` are not SmaxOptions."""
        SmaxOptions(**settings.options)

    @staticmethod
    def open(settings: EnvSettings, *, copies: int, threads: int) -> Environment:
        """Imports JAX, set up for `threads` CPU threads, and builds the environment."""
        options = SmaxOptions(**settings.options)
        _prepare_jax(threads)
        with _quiet():
            from actor.smax_env import SmaxEnvironment
        return SmaxEnvironment(
            map_name=settings.map,
            sides=MAPS[settings.map].sides,
            episode_limit=options.episode_limit or MAPS[settings.map].episode_limit,
            state_last_action=options.state_last_action,
            copies=copies,
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The package greets on sys.__stdout__ when imported, and points sys.stdout and sys.stderr elsewhere."""
    streams = sys.stdout, sys.stderr, sys.__stdout__
    sys.stdout = sys.__stdout__ = io.StringIO()  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        sys.stdout, sys.stderr, sys.__stdout__ = streams  # type: ignore[misc]


def _prepare_jax(threads: int) -> None:
    """Settings that JAX reads once, when it is imported. What a person set in XLA_FLAGS etc. stays."""
    # The learner owns the GPU; a battle of a few units is faster on a core anyway.
    os.environ["JAX_PLATFORMS"] = "cpu"
    # By default XLA takes all cores, and many actors on one machine then wait for each other.
    flags = f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}"
    os.environ.setdefault("XLA_FLAGS", f"{flags} intra_op_parallelism_threads={threads}")
    os.environ.setdefault("NPROC", str(threads))
    cache = _cache_folder()
    if cache is not None:
        # A second process finds the compiled step there: seconds instead of ten or more.
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def _cache_folder() -> Path | None:
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        parent = Path(base) if base else Path.home() / ".cache"
        folder = parent / "vdfd" / f"jax-{_processor_id()}"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:
        log.warning("no compilation cache: %s", error)
        return None
    return folder


def _processor_id() -> str:
    """Tells processors apart: code compiled for one may not run on another that shares the home folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    features = sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
    return hashlib.sha256("\n".join(features).encode()).hexdigest()[:12]
