"""The command line of every process of the local cluster."""

import re
import sys
from itertools import count
from pathlib import Path

from deploy.run_dir import RunDir
from deploy.run_status import RunStatus
from deploy.settings import Config
from deploy.supervisor import ProcessSpec


def process_specs(config: Config, run_dir: RunDir, status: RunStatus, *, address: str) -> list[ProcessSpec]:
    """The replay service first, then the others in the order in which they are to be started."""
    limits = config.supervisor
    ports = count(config.metrics.port)
    in_run_dir = ("--run-dir", str(run_dir.root))

    def command(role: str, *options: str) -> tuple[str, ...]:
        # One machine, so each process needs a port of its own; 0 gives all of them any.
        metrics = (f"metrics.port={next(ports)}",) if config.metrics.serve and config.metrics.port else ()
        return _command((role,), run_dir.config, address, *options, *metrics)

    replay = ProcessSpec(
        name="replay",
        command=command("replay", *in_run_dir, *_own_keys(config, run_dir)),
        stop_order=2,
        stop_timeout_s=limits.replay_stop_s,
    )
    learner = ProcessSpec(
        name="learner",
        command=command("learner", *in_run_dir),
        stop_order=1,
        stop_timeout_s=limits.learner_stop_s,
        is_done=status.learner_done,
    )
    if config.run.dataset:
        into = ("--table", config.learner.table)
        importer = ProcessSpec(
            name="import",
            command=_command(("replay", "import", config.run.dataset), run_dir.config, address, *into),
            stop_order=0,
            stop_timeout_s=limits.actor_stop_s,
            is_done=_done,
            others_wait=True,
        )
        return [replay, importer, learner]
    actors = [
        ProcessSpec(
            name=name,
            command=command("actor", "--name", name),
            stop_order=0,
            stop_timeout_s=limits.actor_stop_s,
            is_done=status.actors_done,
        )
        for name in (f"actor-{number}" for number in range(config.run.actors))
    ]
    evaluator = ProcessSpec(
        name="evaluator",
        command=command("evaluator"),
        stop_order=0,
        stop_timeout_s=limits.actor_stop_s,
        is_done=status.evaluator_done,
    )
    return [replay, learner, *actors, evaluator]


def replay_command(config: Config, file: Path, run_dir: RunDir, *, address: str) -> tuple[str, ...]:
    """Of a run's replay service alone, with the configuration that has been saved as `file`."""
    options = ("--run-dir", str(run_dir.root), *_own_keys(config, run_dir), "metrics.serve=false")
    return _command(("replay",), file, address, *options)


async def _done() -> bool:
    return True


def _command(words: tuple[str, ...], file: Path, address: str, *options: str) -> tuple[str, ...]:
    # -P: a folder of the same name where the command was given must not be taken for ours.
    python = (sys.executable, "-P", "-m", "deploy.cli")
    return (*python, *words, "--config", str(file), "--address", address, *options)


def _own_keys(config: Config, run_dir: RunDir) -> list[str]:
    """In a Redis that runs share, each has the name of its directory before its keys."""
    if not config.replay.redis_url:
        return []
    name = f"{config.replay.redis_prefix}.{run_dir.root.resolve().name}"
    return [f"replay.redis_prefix={re.sub('[^A-Za-z0-9_.-]', '_', name)[-64:]}"]
