"""The options by which every command takes its configuration."""

import functools
import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Concatenate, ParamSpec

import typer

from actor.registry import ENVIRONMENTS
from common.errors import BadInputError
from common.lifecycle import StopSignal
from deploy.config import Sources, load_config
from deploy.preset import preset_names
from deploy.settings import Config
from learner.algorithms import ALGORITHM_NAMES

P = ParamSpec("P")

MANUAL_RUN_DIR = Path("runs/manual")
RunDirOption = Annotated[Path, typer.Option(help="Directory of the run's files.")]

_PANEL = "Configuration"

# Actor and learner take turns, one episode and one step at a time: two runs of a seed are then alike.
_DETERMINISTIC = {
    "run.actors": 1,
    "actor.copies": 1,
    "actor.lockstep": True,
    "replay.insert_lead_episodes": 0,
    "learner.deterministic": True,
    "learner.publish_every_steps": 1,
}


def _any_of(names: Iterable[str]) -> str:
    return ", ".join(names)


def sources_of(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE", help="Settings, for example learner.optimiser.learning_rate=1e-3."
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help=f"Named settings to begin with: {_any_of(preset_names())}.", rich_help_panel=_PANEL
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="YAML file with settings, such as a run's config.yaml.", rich_help_panel=_PANEL),
    ] = None,
    algo: Annotated[
        str | None,
        typer.Option(
            help=f"Algorithm, with the preset of its name: {_any_of(ALGORITHM_NAMES)}.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    env: Annotated[
        str | None, typer.Option(help=f"Environment: {_any_of(ENVIRONMENTS)}.", rich_help_panel=_PANEL)
    ] = None,
    map_: Annotated[
        str | None,
        typer.Option("--map", help="Map of the environment: 3m, 2s3z, 5m_vs_6m...", rich_help_panel=_PANEL),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Environment steps of the whole run.", rich_help_panel=_PANEL)
    ] = None,
    actors: Annotated[
        int | None, typer.Option(help="Actor processes of the local cluster.", rich_help_panel=_PANEL)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random.", rich_help_panel=_PANEL)] = None,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic",
            help="One actor in lockstep with the learner: two runs of a seed give the same weights. Slow.",
            rich_help_panel=_PANEL,
        ),
    ] = False,
    address: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Of the replay service.", rich_help_panel=_PANEL),
    ] = None,
) -> Sources:
    """What was given on the command line and in the environment."""
    options: dict[str, object] = {
        **(_DETERMINISTIC if deterministic else {}),
        "learner.algorithm": algo,
        "env.name": env,
        "env.map": map_,
        "run.env_steps": steps,
        **({} if actors is None else {"run.actors": actors}),
        "run.seed": seed,
        "rpc.address": address,
    }
    return Sources(
        preset=preset,
        file=config,
        environment=os.environ,
        overrides=tuple(overrides or ()),
        options=options,
    )


def takes_configuration(command: Callable[Concatenate[Sources, P], None]) -> Callable[..., None]:
    """Gives a command the options of `sources_of` besides its own; it gets the Sources they make."""
    options = inspect.signature(sources_of, eval_str=True).parameters
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

    @functools.wraps(command)
    def with_options(**given: object) -> None:
        chosen = {name: given.pop(name) for name in options}
        command(sources_of(**chosen), **given)  # type: ignore[arg-type, call-arg]

    signature = inspect.Signature([*own, *options.values()])
    with_options.__signature__ = signature  # type: ignore[attr-defined]
    return with_options


def client_config(sources: Sources) -> Config:
    """The configuration of a command that talks to a replay service: the address has to be one."""
    config = load_config(sources)
    if config.rpc.address.endswith(":0"):
        raise BadInputError(
            "rpc.address has port 0: give the replay service's address by --address HOST:PORT."
        )
    return config


def prepare(level: int = logging.INFO) -> StopSignal:
    """Logging to stderr, and the signals."""
    logging.basicConfig(
        level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    stop = StopSignal()
    stop.install()
    return stop
