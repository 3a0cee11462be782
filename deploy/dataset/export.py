"""`vdfd replay export`: the window of a replay service becomes a data set."""

import threading
from collections.abc import Callable
from pathlib import Path

import grpc

from common import rpc
from common.background import cancel, retrying, worth_retrying
from common.codec import episode_from_proto, spec_from_proto
from common.errors import EXIT_STOPPED, BadInputError, FatalError
from common.lifecycle import StopSignal
from common.payload import CodecError, decode_episode
from common.settings import RpcSettings
from common.types import EnvSpec
from deploy.dataset.progress import progress
from deploy.dataset.table import Row, episode_of
from deploy.dataset.writer import check_free, writing
from deploy.status import no_answer
from protos import replay_pb2 as pb
from protos.replay_pb2_grpc import ReplayStub
from replay.settings import DEFAULT_TABLE


def export(root: Path, settings: RpcSettings, stop: StopSignal, *, table: str = DEFAULT_TABLE) -> str:
    """Writes the data set of a table; returns what was done, as a sentence.

    Raises FatalError, with nothing at `root`, if there is nothing to export, the service refuses, the disk is
    full, or `stop` is set before the end.
    """
    check_free(root)
    with rpc.channel(settings) as channel:
        stub = ReplayStub(channel)
        try:
            status = stub.GetStatus(pb.GetStatusRequest(), timeout=settings.unary_timeout_s)
        except grpc.RpcError as error:
            raise no_answer(settings, error) from error
        held = {one.table: one.window_episodes for one in status.tables}
        if table not in held:
            raise BadInputError(f"There is no table {table}; there are: {', '.join(held)}.")
        if not (status.HasField("spec") and held[table]):
            raise FatalError(
                f"Table {table} of the replay service at {settings.address} has no episodes yet."
            )
        spec, counters = spec_from_proto(status.spec), status.counters
        with writing(root, spec) as writer, progress("Exporting") as tell:
            window = WindowReader(stub, settings, stop, table)

            def add(stored: pb.StoredEpisode) -> None:
                writer.add(_row(stored, spec))
                tell(stored.number + 1 - window.begin, window.end - window.begin)

            window.read(add)
            manifest = writer.finish(
                left_out=window.end - window.begin - window.count,
                run_env_steps=counters.env_steps,
                run_weights_version=counters.weights_version,
            )
            size_bytes = writer.size_bytes
    gone = f"; {manifest.left_out} left the window meanwhile" if manifest.left_out else ""
    return (
        f"{root}: {manifest.episodes:,} episodes with {manifest.env_steps:,} steps in {len(manifest.shards)} "
        f"files, {size_bytes / 2**20:,.1f} MiB{gone}."
    )


class WindowReader:
    """Reads the window once through, over as many streams as it takes."""

    def __init__(self, stub: ReplayStub, settings: RpcSettings, stop: StopSignal, table: str) -> None:
        self.begin = self.end = self.count = 0
        """The window when reading began, and how many of its episodes have come."""
        self._stub = stub
        self._settings = settings
        self._stop = stop
        self._table = table
        self._next = 0

    def read(self, take: Callable[[pb.StoredEpisode], None]) -> None:
        """Gives every episode to `take`. Raises FatalError if the service refuses or `stop` is set."""
        closing = threading.Event()
        self._stop.call_when_set(closing.set)
        retry = retrying(closing, "reading the window", self._settings)
        try:
            while not (retry(self._read_one_stream, take) or self._stop.is_set()):
                pass
        except grpc.RpcError as error:
            address, why = self._settings.address, rpc.describe(error)
            raise FatalError(f"The replay service at {address} does not let us read: {why}.") from error
        except CodecError as error:
            raise FatalError(
                f"An episode of the replay service at {self._settings.address} cannot be unpacked ({error}); "
                "use the same version of vdfd as the run."
            ) from error
        if self._stop.is_set():
            raise FatalError("Stopped: nothing was written.", code=EXIT_STOPPED)

    def _read_one_stream(self, take: Callable[[pb.StoredEpisode], None]) -> bool:
        """Whether the window is through. Raises what is worth trying again if the stream brought nothing."""
        before = self._next
        request = pb.ReadWindowRequest(table=self._table, begin=self._next, end=self.end)
        call = self._stub.ReadWindow(request, timeout=self._settings.stream_timeout_s)
        self._stop.call_when_set(lambda: cancel(call))
        try:
            for response in call:
                if not self.end:
                    self.begin = self._next = before = response.begin
                    self.end = response.end
                for stored in response.episodes:
                    take(stored)
                    self.count, self._next = self.count + 1, stored.number + 1
            return True
        except grpc.RpcError as error:
            if self._stop.is_set():
                return True
            if self._next == before or not worth_retrying(error):
                raise
            return False
        finally:
            cancel(call)


def _row(stored: pb.StoredEpisode, spec: EnvSpec) -> Row:
    encoded = episode_from_proto(stored.episode)
    return Row(
        episode=episode_of(encoded.meta, decode_episode(encoded, spec)),
        number=stored.number,
        env_steps=stored.env_steps,
        stored_at_s=stored.stored_at_s,
    )
