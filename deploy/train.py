"""`vdfd train`: makes or opens the run directory, runs the local cluster, and says how it ended."""

import asyncio
import dataclasses
import functools
from pathlib import Path

from actor.registry import check_environment
from common.errors import EXIT_STOPPED, BadInputError, FatalError
from deploy.address import claim_address
from deploy.cluster import Cluster
from deploy.config import Sources, load_config, save_config
from deploy.dataset.offline import check_fits_dataset, dataset_settings
from deploy.formatting import duration
from deploy.run_dir import RunDir, default_name
from deploy.settings import Config
from deploy.snapshot import LAST_EVALUATIONS, Snapshot
from deploy.summary import summarise
from deploy.view import open_view
from learner.settings import FIXED

# Port 0: the launcher chooses a free one, so that several runs can share a machine.
_DEFAULTS = {"rpc": {"address": "127.0.0.1:0"}}

# What a run is cannot change when it goes on; how long, how fast and how it is watched can.
_FIXED = (
    "run.seed",
    "run.dataset",
    "env",
    "agent",
    *(f"learner.{key}" for key in FIXED),
)


def train_new(sources: Sources, run_dir: Path | None, dataset: Path | None = None) -> int:
    """Trains in a new directory, on a data set without actors. Returns 0, or 130 after Ctrl-C."""
    of_dataset = {} if dataset is None else dataset_settings(dataset)
    config = load_config(dataclasses.replace(sources, defaults=_DEFAULTS, of_dataset=of_dataset))
    _check_played(config)
    address = claim_address(config.rpc.address)
    root = run_dir or Path(config.run.out) / (config.run.name or default_name(config))
    return _train(config, RunDir.create(root), address)


def resume(sources: Sources, run_dir: Path) -> int:
    """Goes on with a run that was stopped, or that is to have more steps than it had."""
    if sources.preset is not None or sources.file is not None:
        raise BadInputError(
            "--resume goes on with the run's own configuration: leave --preset and --config out."
        )
    files = RunDir.existing(run_dir)
    before = load_config(Sources(file=files.config))
    config = load_config(dataclasses.replace(sources, file=files.config))
    _check_same_run(before, config)
    _check_episodes(config, files)
    _check_played(config)
    if files.summary.exists() and config.run.env_steps == before.run.env_steps:
        raise BadInputError(
            f"The run in {run_dir} is complete with {before.run.env_steps} steps: "
            "give more by --steps to go on."
        )
    return _train(config, files, claim_address(config.rpc.address))


def _train(config: Config, files: RunDir, address: str) -> int:
    with files.locked():
        files.logs.mkdir(exist_ok=True)
        files.summary.unlink(missing_ok=True)
        save_config(config, files.config)
        print(f"Run directory: {files.root}", flush=True)
        view = open_view(log_interval_s=config.supervisor.log_interval_s)
        try:
            last = asyncio.run(Cluster(config, files, view, address=address).run())
            if last is not None:
                _draw_world_model(config, files)
                files.write_summary(summarise(config, last))
        except FatalError as error:
            raise FatalError(f"{error}\n{_how_to_resume(files)}", code=error.code) from error
        except OSError as error:
            raise FatalError(f"{files.root} cannot be used: {error}.\n{_how_to_resume(files)}") from error
        finally:
            view.close()
    print(_how_to_resume(files) if last is None else _result(last, files))
    return EXIT_STOPPED if last is None else 0


def _draw_world_model(config: Config, files: RunDir) -> None:
    """Beside win_rate.png, where a run has a world model."""
    from deploy.experiments.health_page import draw_health

    title = f"{config.run.preset} on {config.env.name} {config.env.map}, seed {config.run.seed}"
    draw_health(files, files.health, title=title)


def _check_played(config: Config) -> None:
    """Without its game every actor would fail, and be started again; better nothing is started."""
    if config.run.dataset:
        check_fits_dataset(config)
    else:
        check_environment(config.env).check_installed(config.env)


def _check_episodes(config: Config, files: RunDir) -> None:
    """A learner's own directory has its checkpoints, not what the service knows of the run."""
    if files.checkpoints.is_dir() and not (config.replay.redis_url or files.redis.is_dir()):
        raise BadInputError(
            f"{files.root} holds a learner's files only: its run goes on where its replay service is."
        )


def _check_same_run(before: Config, now: Config) -> None:
    for key in _FIXED:
        was, is_now = (functools.reduce(getattr, key.split("."), config) for config in (before, now))
        if was != is_now:
            raise BadInputError(f"--resume cannot change {key}: start a new run for that.")
    if now.run.env_steps < before.run.env_steps:
        raise BadInputError(
            f"--resume cannot lower run.env_steps from {before.run.env_steps} to {now.run.env_steps}."
        )


def _how_to_resume(files: RunDir) -> str:
    return f"Go on with: vdfd train --resume {files.root}"


def _result(last: Snapshot, files: RunDir) -> str:
    rate = last.win_rate_last3
    points = min(LAST_EVALUATIONS, len(last.evaluations))
    return (
        f"Done: {last.counters.env_steps:,} environment steps, {last.counters.episodes:,} episodes and "
        f"{last.learner_steps:,} learner steps in {duration(last.wall_s)}.\n"
        + (
            f"No evaluation was due; vdfd evaluate {files.root} plays with its weights.\n"
            if rate is None
            else f"Test Win Rate {rate:.3f}, mean of the last {points}.\n"
        )
        + f"Results: {files.summary}"
    )
