"""`vdfd learner`, `actor` and `evaluator`: the parts of a run, for those who start them themselves."""

import os
import socket
from pathlib import Path
from typing import Annotated

import typer

from common.errors import FatalError
from deploy.cli_options import MANUAL_RUN_DIR, RunDirOption, client_config, prepare, takes_configuration
from deploy.config import Sources, save_config
from deploy.run_dir import RunDir, make_directory
from deploy.settings import Config
from learner.idle_threads import let_idle_threads_sleep

parts = typer.Typer()


@parts.command()
@takes_configuration
def learner(sources: Sources, run_dir: RunDirOption = MANUAL_RUN_DIR) -> None:
    """The learner: trains on batches of the replay service and publishes weights.

    Goes on from the newest checkpoint in RUN_DIR, if there is one.

    Example: vdfd learner --address replay-host:50051 --run-dir runs/big --map 2s3z
    """
    config = client_config(sources)
    let_idle_threads_sleep()
    _keep_config(config, run_dir)
    from learner.main import run_learner

    run_learner(
        settings=config.learner,
        agent=config.agent,
        exploration=config.actor.exploration,
        rpc=config.rpc,
        metrics=config.metrics,
        seed=config.run.seed,
        run_dir=run_dir,
        stop=prepare(),
    )


@parts.command()
@takes_configuration
def actor(
    sources: Sources,
    name: Annotated[
        str,
        typer.Option(
            help="Unique among the run's actors, since its battles follow from it and from the seed; "
            "{host} and {pid} in it become the host's name and the process's number."
        ),
    ] = "{host}-{pid}",
) -> None:
    """An actor: plays episodes and sends them to the replay service.

    Example: vdfd actor --name actor-7 --address replay-host:50051 --map 2s3z actor.copies=32
    """
    config = client_config(sources)
    from actor.main import run_actor

    run_actor(
        name=name.replace("{host}", socket.gethostname()).replace("{pid}", str(os.getpid())),
        env=config.env,
        settings=config.actor,
        agent=config.agent,
        rpc=config.rpc,
        metrics=config.metrics,
        seed=config.run.seed,
        batch_size=config.learner.batch_size,
        stop=prepare(),
    )


@parts.command()
@takes_configuration
def evaluator(
    sources: Sources,
    name: Annotated[str, typer.Option(help="Unique among the run's evaluators.")] = "evaluator",
) -> None:
    """An evaluator: plays greedy test episodes whenever they fall due.

    Example: vdfd evaluator --address replay-host:50051 --map 2s3z
    """
    config = client_config(sources)
    from actor.evaluator import run_evaluator

    run_evaluator(
        name=name,
        env=config.env,
        settings=config.actor,
        agent=config.agent,
        rpc=config.rpc,
        metrics=config.metrics,
        seed=config.run.seed,
        stop=prepare(),
    )


def _keep_config(config: Config, run_dir: Path) -> None:
    """Of a part that was started by hand: plots and evaluations read it. The launcher's is there already."""
    files = RunDir(run_dir)
    if files.config.exists():
        return
    make_directory(run_dir, "--run-dir")
    try:
        save_config(config, files.config)
    except OSError as error:
        raise FatalError(f"{run_dir} cannot be written to: {error}.") from error
