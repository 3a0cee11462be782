"""The replay service as a process of its own."""

from pathlib import Path

import uvloop

from common.lifecycle import StopSignal
from deploy.run_dir import RunDir
from deploy.settings import Config
from replay.server import serve

READY = "Replay service at "
"""What the process prints, with its address, as soon as it answers."""


def serve_replay(config: Config, run_dir: Path, stop: StopSignal) -> None:
    """Serves until it is asked to stop."""
    data_dir = RunDir(run_dir).redis
    data_dir.mkdir(parents=True, exist_ok=True)
    uvloop.run(
        serve(
            config.replay,
            config.rpc,
            seed=config.run.seed,
            total_env_steps=config.run.env_steps,
            batch_size=config.learner.batch_size,
            data_dir=data_dir,
            stop=stop,
            metrics_settings=config.metrics,
            on_ready=lambda address: print(f"{READY}{address}", flush=True),
        )
    )
