"""`vdfd replay import`: the episodes of a data set go into a replay service, each once."""

from pathlib import Path

from actor.joining import join_run
from actor.replay_writer import ReplayWriter
from actor.settings import ActorSettings
from common import rpc
from common.errors import EXIT_STOPPED, FatalError
from common.lifecycle import StopSignal
from common.settings import RpcSettings
from deploy.dataset.progress import progress
from deploy.dataset.reader import Dataset, open_dataset, verified
from replay.settings import DEFAULT_TABLE

QUEUE = {"queue_episodes": 256, "queue_bytes": 64 * 1024 * 1024}
"""What may be on its way to the service."""
DRAIN_TIMEOUT_S = 5.0
"""After Ctrl-C: how long what is on its way may take to be acknowledged."""


def import_dataset(
    root: Path,
    settings: RpcSettings,
    stop: StopSignal,
    *,
    max_episode_bytes: int,
    table: str = DEFAULT_TABLE,
) -> str:
    """Checks all of the data set, then sends it into a table; returns what was done, as a sentence.

    Raises BadInputError, with nothing sent, if the data set is damaged or of another environment than the
    run's; FatalError if the service refuses, the run has all its steps, or `stop` is set before the end.
    """
    dataset = open_dataset(root, max_episode_bytes=max_episode_bytes)
    total = dataset.manifest.episodes
    with progress("Checking") as tell:
        for checked in verified(dataset, max_episode_bytes=max_episode_bytes):
            tell(checked, total)
            if stop.is_set():
                raise FatalError("Stopped: nothing was imported.", code=EXIT_STOPPED)
    with rpc.channel(settings) as channel:
        join_run(channel, dataset.spec, settings, stop=stop)
        queue = ActorSettings(table=table, **QUEUE)
        writer = ReplayWriter(channel, queue, settings, stop=stop, imports=True)
        try:
            _send(dataset, writer, stop)
        finally:
            writer.close()
    stats = writer.stats()
    there = stats.stored + stats.duplicates
    done = f"{stats.stored:,} episodes imported, {stats.duplicates:,} were there already"
    if there == total:
        return f"{root}: {done}."
    if stop.is_set():
        raise FatalError(f"Stopped: {done}; the same command goes on.", code=EXIT_STOPPED)
    raise FatalError(
        f"{root}: {done}, {total - there:,} were not taken, because the run has all its "
        f"{writer.counters.env_steps:,} steps: give the service more by run.env_steps."
    )


def _send(dataset: Dataset, writer: ReplayWriter, stop: StopSignal) -> None:
    total = dataset.manifest.episodes
    with progress("Importing") as tell:
        for sent, episode in enumerate(dataset.episodes(), 1):
            if stop.is_set() or not writer.put(episode):
                writer.drain(DRAIN_TIMEOUT_S)
                return
            tell(sent, total)
        while not (writer.drain(1.0) or stop.is_set()):
            pass
