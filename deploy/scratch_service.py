"""A replay service for measurements: a process of its own that keeps all in memory and holds nothing back."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from actor.settings import EnvSettings
from common.errors import FatalError
from common.settings import NO_METRICS, RpcSettings
from deploy import child
from deploy.config import save_config
from deploy.processes import READY
from deploy.settings import Config
from deploy.supervisor import child_environment, log_tail
from replay.server import MEMORY_URL
from replay.settings import ReplaySettings

STOP_S = 10.0
NO_LIMIT = 10**9


@contextlib.contextmanager
def scratch_service(config: Config) -> Iterator[RpcSettings]:
    """How to reach it; it ends with the block. Raises FatalError, saying why, if it does not start."""
    own = config.model_copy(
        update={
            "rpc": RpcSettings(address="127.0.0.1:0"),
            "replay": ReplaySettings(redis_url=MEMORY_URL, insert_lead_episodes=NO_LIMIT),
            "run": config.run.model_copy(update={"env_steps": NO_LIMIT}),
            "metrics": NO_METRICS,
            "env": EnvSettings(),  # the service asks no game
        }
    )
    with tempfile.TemporaryDirectory(prefix="vdfd-") as folder:
        file, log = Path(folder) / "config.yaml", Path(folder) / "log"
        save_config(own, file)
        command = ("-m", "deploy.cli", "replay", "--config", str(file), "--run-dir", folder)
        with log.open("wb") as errors:
            running = subprocess.Popen(
                (
                    sys.executable,
                    "-I",
                    "-S",
                    child.__file__,
                    str(os.getpid()),
                    sys.executable,
                    "-P",
                    *command,
                ),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=child_environment(),
            )
        with running:
            try:
                assert running.stdout is not None
                line = running.stdout.readline().strip()
                if not line.startswith(READY):
                    raise FatalError(f"The replay service did not start: {' '.join(log_tail(log))}")
                yield own.rpc.model_copy(update={"address": line.removeprefix(READY)})
            finally:
                _end(running)


def _end(running: "subprocess.Popen[str]") -> None:
    running.terminate()
    try:
        running.wait(STOP_S)
    except subprocess.TimeoutExpired:
        running.kill()
