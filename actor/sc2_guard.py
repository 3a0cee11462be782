"""Runs a game client that must not outlive its owner: python -I -S sc2_guard.py FOLDER COMMAND...

The owner holds the other end of this process's standard input. When that closes, because the owner asks
for the end or is dead (kill -9 included), the client's whole process group is killed and FOLDER is
removed. Should this process be killed itself, the kernel kills the client; its folder is then removed
by the next one that is made (actor/sc2_folder.py).

A file of its own, run by its path, that imports nothing of the project: it starts in milliseconds.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from types import FrameType

_PR_SET_PDEATHSIG = 1
_WAITS = {signal.SIGTERM}
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    """Returns the client's exit code, 128 + N if signal N ended it."""
    folder, *command = sys.argv[1:]
    guard = os.getpid()
    # A SIGTERM that comes before there is somebody to pass it on to waits until there is.
    signal.pthread_sigmask(signal.SIG_BLOCK, _WAITS)
    # Between fork and exec is where the kernel must be asked; nothing else runs in this process yet.
    game = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: _die_with(guard),
    )

    def end(_number: int = 0, _frame: FrameType | None = None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(game.pid, signal.SIGKILL)

    signal.signal(signal.SIGTERM, end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _WAITS)
    threading.Thread(target=_call_at_end_of_input, args=(end,), daemon=True).start()
    # The client is not reaped yet when its group is killed, so its number cannot be another's.
    os.waitid(os.P_PID, game.pid, os.WEXITED | os.WNOWAIT)
    end()
    code = game.wait()
    shutil.rmtree(folder, ignore_errors=True)
    return code if code >= 0 else 128 - code


def _call_at_end_of_input(end: Callable[[], None]) -> None:
    while os.read(0, 1):  # not sys.stdin: its lock, held here, would spoil the exit
        pass
    end()


def _die_with(guard: int) -> None:
    """In the client, before it becomes the game: the kernel kills it when this process ends."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _WAITS)
    if _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != guard:  # it ended before the kernel was asked
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
