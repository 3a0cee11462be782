"""Runs a command that the kernel kills when its parent dies: python child.py PARENT_PID COMMAND...

A file of its own, executed before the command in the same process, because the alternative (a
function that runs between fork and exec) can deadlock in a parent that has threads. It imports
nothing of the project, so that it adds only milliseconds to a start.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Asks for the signal, then becomes the command."""
    parent, *command = sys.argv[1:]
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    # The parent may have died before the kernel was asked.
    if os.getppid() != int(parent):
        sys.exit("The parent process is gone.")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
