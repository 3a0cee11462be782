"""A game client's temporary folder, which goes away with its owner.

The guard (actor/sc2_guard.py) removes it. If that was killed too, nobody is left to do it: then the next
folder's maker does. A lock on a file inside tells a folder that is in use from one that was left behind;
the kernel gives it up with the process that holds it, however that ends.
"""

import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

PREFIX = "vdfd-sc2-"
_LOCK = "lock"
_BIRTH_S = 60.0
"""A folder without a lock is left alone for so long: it may be being made."""


class ClientFolder:
    """A locked temporary folder in `parent` (None: where temporary files go)."""

    def __init__(self, parent: Path | None = None) -> None:
        parent = parent or Path(tempfile.gettempdir())
        remove_abandoned(parent)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        # Locked under another name first: a lock file that nobody holds means an abandoned folder.
        new = self.path / f"{_LOCK}.new"
        self._lock = os.open(new, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        new.rename(self.path / _LOCK)

    def remove(self) -> None:
        """Removes it with all that is in it. May be called twice."""
        if self._lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)  # the guard may be at it too
            os.close(self._lock)
            self._lock = -1


def remove_abandoned(parent: Path) -> list[Path]:
    """Removes the folders of this user in `parent` whose owners are dead; returns which."""
    abandoned = [path for path in parent.glob(f"{PREFIX}*") if _is_abandoned(path)]
    for path in abandoned:
        shutil.rmtree(path, ignore_errors=True)
    return abandoned


def _is_abandoned(path: Path) -> bool:
    try:
        status = path.stat()
        if status.st_uid != os.getuid():
            return False
        lock = os.open(path / _LOCK, os.O_RDWR)
    except FileNotFoundError:
        return path.is_dir() and time.time() - status.st_mtime > _BIRTH_S
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True
