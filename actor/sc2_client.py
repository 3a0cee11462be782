"""The game client behind pysc2: started under guard, with a deadline on every answer.

pysc2 by itself waits 360 s for an answer, chooses ports that other processes can choose as well, and
leaves the client and its folder behind when its own process is killed. It starts clients by the run
configuration of the highest priority: within `guarding` that is the one here.
"""

import contextlib
import logging
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import websocket
from google.protobuf.message import DecodeError
from pysc2.lib import protocol, remote_controller, sc_process
from pysc2.run_configs import platforms
from s2clientprotocol.sc2api_pb2 import ResponseObservation
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_any, wait_fixed
from tenacity.stop import stop_after_delay, stop_base, stop_when_event_set

from actor import sc2_guard
from actor.sc2_folder import ClientFolder
from actor.sc2_port import PortReservation
from common.errors import FatalError

logging.getLogger("absl").setLevel(logging.ERROR)  # pysc2 tells of every launch and end

CONNECT_PAUSE_S = 0.05
STOP_CHECK_S = 0.2
GUARD_END_S = 5.0
"""The guard only has to kill and to remove; one that does not get that done is killed itself."""
LOG_TAIL = 300
"""Characters of the client's output that its failure is told with."""

CLIENT_FAILURES = (
    protocol.ConnectionError,
    protocol.ProtocolError,
    remote_controller.ConnectError,
    remote_controller.RequestError,
    sc_process.SC2LaunchError,
    websocket.WebSocketException,
    DecodeError,
    OSError,
)
"""What pysc2 raises when the client crashes, hangs, drops the connection or answers nonsense."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientLimits:
    """How long a client may take."""

    launch_s: float = 60.0
    """From its start until its first battle can begin."""
    answer_s: float = 5.0
    """For everything that one step or the beginning of one further battle asks of it."""
    stopping: threading.Event = field(default_factory=threading.Event)
    """Once it is set nothing is waited for any more."""


class DeadlineSocket(websocket.WebSocket):  # type: ignore[misc]
    """A websocket whose answers must be there by a common deadline, so that slow ones do not add up."""

    deadline = 0.0
    """On the monotonic clock."""
    stopping = threading.Event()

    def recv(self) -> str | bytes:
        """The next message. WebSocketTimeoutException: it is not there in time, or the process is to end."""
        while (left_s := self.deadline - time.monotonic()) > 0:
            if select.select([self.sock], [], [], min(left_s, STOP_CHECK_S))[0]:
                self.settimeout(left_s)
                message: str | bytes = super().recv()
                return message
            if self.stopping.is_set():
                raise websocket.WebSocketTimeoutException("the process was asked to stop")
        raise websocket.WebSocketTimeoutException("no time is left")

    def close(self, *_: object, **__: object) -> None:
        """At once: the usual close waits 3 s for an answer, which a client that hangs will not give."""
        self.shutdown()


class Controller(remote_controller.RemoteController):  # type: ignore[misc]
    """Sends requests to a client that has just been started."""

    def allow(self, seconds: float) -> None:
        """Gives the client so long from now for everything that it will be asked."""
        self._socket.deadline = time.monotonic() + seconds

    def observe(self, disable_fog: bool = False, target_game_loop: int = 0) -> ResponseObservation:
        """The present observation. ProtocolError: there is none that could be used."""
        try:
            return super().observe(disable_fog, target_game_loop)
        except (ValueError, RuntimeError) as error:  # pysc2's words for an empty answer
            raise protocol.ProtocolError(str(error)) from error

    def _connect(self, host: str, port: int, proc: "GuardedClient", timeout_seconds: float) -> DeadlineSocket:
        deadline = time.monotonic() + timeout_seconds
        # Nothing tells when the client begins to listen; pysc2 itself looks once in a second.
        retry = Retrying(
            retry=retry_if_exception_type((OSError, websocket.WebSocketException)),
            wait=wait_fixed(CONNECT_PAUSE_S),
            stop=stop_any(
                stop_after_delay(timeout_seconds), stop_when_event_set(proc.stopping), _ClientGone(proc)
            ),
            reraise=True,
        )
        url = f"ws://{host}:{port}/sc2api"
        socket: DeadlineSocket = retry(
            websocket.create_connection, url, timeout=timeout_seconds, class_=DeadlineSocket
        )
        socket.deadline, socket.stopping = deadline, proc.stopping
        self._socket = socket
        return socket


class _ClientGone(stop_base):
    """Ends the attempts to connect when the process has ended."""

    def __init__(self, client: "GuardedClient") -> None:
        self._client = client

    def __call__(self, retry_state: RetryCallState) -> bool:  # noqa: ARG002
        return not self._client.running


class GuardedClient(sc_process.StarcraftProcess):  # type: ignore[misc]
    """A client process with its own folder and port. Both are free again after close()."""

    _proc: "subprocess.Popen[bytes] | None" = None

    def __init__(self, run_config: "GuardedLinux", exec_path: str, limits: ClientLimits) -> None:
        self.stopping = limits.stopping
        self._resources = contextlib.ExitStack()  # close() may be called before all of them are there
        with contextlib.ExitStack() as stack:
            reservation = PortReservation()
            stack.callback(reservation.close)
            self._folder = ClientFolder()
            stack.callback(self._folder.remove)
            # Not in the folder: it is read when the guard has removed that.
            self._output = stack.enter_context(tempfile.TemporaryFile())
            run_config.tmp_dir = str(self._folder.path)
            super().__init__(run_config, exec_path, run_config.version, port=reservation.port, connect=False)
            self._resources = stack.pop_all()
        try:
            self._controller = Controller(self.host, self.port, self, limits.launch_s)
        except (*CLIENT_FAILURES, RuntimeError) as error:
            said = self._last_words()
            self.close()
            raise sc_process.SC2LaunchError(f"{error}{said}") from error

    def close(self) -> None:
        """Ends the client at once, whatever state it is in. May be called twice."""
        self._port = None  # pysc2 would give it back to its own picker of ports
        try:
            super().close()
        finally:
            self._resources.close()

    def _launch(self, run_config: "GuardedLinux", args: list[str], **_: object) -> "subprocess.Popen[bytes]":
        guard = (sys.executable, "-I", "-S", sc2_guard.__file__, str(self._folder.path))
        return subprocess.Popen(
            (*guard, *args),
            cwd=run_config.cwd,
            env=run_config.env,
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the actor, which ends the client in order
        )

    def _shutdown(self) -> None:
        guard, self._proc = self._proc, None
        if guard is None or guard.stdin is None:
            return
        guard.stdin.close()
        try:
            guard.wait(GUARD_END_S)
        except subprocess.TimeoutExpired:
            guard.kill()
            guard.wait()

    def _last_words(self) -> str:
        self._output.seek(0)
        text = " ".join(self._output.read().decode(errors="replace").split())
        return f" (it said: {text[-LOG_TAIL:]})" if text else ""


class GuardedLinux(platforms.Linux):  # type: ignore[misc]
    """How pysc2 starts clients within `guarding`."""

    limits: ClassVar[ClientLimits | None] = None

    @classmethod
    def priority(cls) -> int | None:
        """Above that of pysc2's own configurations, which is 1; None: not to be used."""
        return None if cls.limits is None else 2

    def start(self, **_: object) -> GuardedClient:
        """Starts a client without a window; what else it is asked for is about windows."""
        base = f"Base{self.version.build_version:05d}"
        path = Path(self.data_dir, "Versions", base, self._exec_name)
        return GuardedClient(self, str(path), self.limits or ClientLimits())


def check_version(version: str | None) -> None:
    """Raises FatalError if this version of the game is not installed."""
    try:
        GuardedLinux(version=version)
    except (ValueError, sc_process.SC2LaunchError) as error:
        raise FatalError(f"StarCraft II {version or ''} cannot be used: {error}") from error


@contextlib.contextmanager
def guarding(limits: ClientLimits) -> Iterator[None]:
    """Whatever client pysc2 starts in here is guarded, and has so long to answer."""
    GuardedLinux.limits = limits
    try:
        yield
    finally:
        GuardedLinux.limits = None
