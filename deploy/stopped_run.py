"""The replay service of a run that is not going on, for as long as a command needs it."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from common.errors import EXIT_STOPPED, FatalError
from common.lifecycle import StopSignal
from common.settings import RpcSettings
from deploy import child
from deploy.address import claim_address
from deploy.commands import replay_command
from deploy.config import save_config
from deploy.run_dir import RunDir
from deploy.settings import Config
from deploy.supervisor import child_environment, log_tail

_LOCAL = "127.0.0.1:0"


@contextlib.contextmanager
def serving_stopped_run(config: Config, files: RunDir, stop: StopSignal) -> Iterator[RpcSettings]:
    """Starts the service on the run's data, on this machine alone, and stops it at the end.

    `config` is for this time only: the run's own file stays as it is. Raises FatalError if the run is going
    on or the service cannot be started.
    """
    with files.locked(), tempfile.TemporaryDirectory(prefix="vdfd-") as folder:
        file = Path(folder) / files.config.name
        save_config(config, file)
        files.logs.mkdir(exist_ok=True)
        log = files.logs / "replay.log"
        address = claim_address(_LOCAL)
        with log.open("ab") as errors:
            process = subprocess.Popen(
                (
                    *(sys.executable, "-I", "-S", child.__file__, str(os.getpid())),
                    *replay_command(config, file, files, address=address),
                ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=child_environment(),
                process_group=0,  # Ctrl-C is for the command, which stops the service after its own end
            )
        try:
            _wait_until_ready(process, stop)
            if stop.is_set():
                raise FatalError("Stopped before anything was done.", code=EXIT_STOPPED)
            if process.poll() is not None:
                lines = log_tail(log)
                raise FatalError(lines[-1].removeprefix("vdfd: ") if lines else f"{log} says why.")
            yield config.rpc.model_copy(update={"address": address})
        finally:
            _end(process, config.supervisor.replay_stop_s)


def _wait_until_ready(process: subprocess.Popen[bytes], stop: StopSignal) -> None:
    """Until it says that it answers, or has ended; a stop meanwhile ends it."""
    ready = False

    def give_up() -> None:
        if not ready:
            process.terminate()

    stop.call_when_set(give_up)
    assert process.stdout is not None
    if not process.stdout.readline():
        process.wait()
    ready = True


def _end(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    process.terminate()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdout is not None
    process.stdout.close()
