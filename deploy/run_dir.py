"""The files of one run: where they are, how the directory is made, and what outlives a stop."""

import contextlib
import fcntl
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.errors import BadInputError, FatalError
from deploy.settings import Config


@dataclass(frozen=True, kw_only=True)
class Elapsed:
    """What a run has taken so far, over all its stops."""

    wall_s: float = 0.0
    restarts: int = 0


class RunDir:
    """One run directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "config.yaml"
        self.logs = root / "logs"
        self.metrics = root / "metrics.jsonl"
        self.checkpoints = root / "checkpoints"
        self.redis = root / "redis"
        self.summary = root / "summary.json"
        self.health = root / "world_model.png"
        self._elapsed = root / "elapsed.json"

    @classmethod
    def create(cls, root: Path) -> "RunDir":
        """Makes the directory; BadInputError if it holds something already."""
        if root.exists() and not (root.is_dir() and not any(root.iterdir())):
            raise BadInputError(
                f"{root} exists already: go on with that run by --resume {root}, or choose another --run-dir."
            )
        run_dir = cls(root)
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInputError(f"Run directory {root} cannot be made: {error.strerror}.") from error
        return run_dir

    @classmethod
    def existing(cls, root: Path) -> "RunDir":
        """The directory of a run that was started before; BadInputError if it is none."""
        run_dir = cls(root)
        if not run_dir.config.is_file():
            raise BadInputError(f"{root} is not a run directory: it has no config.yaml.")
        return run_dir

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Keeps other launchers out; FatalError if one is at work. A lock dies with its process."""
        return locked_directory(self.root, "vdfd train")

    def elapsed(self) -> Elapsed:
        """What the run has taken before this start."""
        if not self._elapsed.exists():
            return Elapsed()
        return Elapsed(**json.loads(self._elapsed.read_text(encoding="utf-8")))

    def save_elapsed(self, elapsed: Elapsed) -> None:
        """Notes it for a later --resume."""
        write_json(self._elapsed, asdict(elapsed))


@contextlib.contextmanager
def locked_directory(root: Path, command: str) -> Iterator[None]:
    """Keeps others that run the same command out of a directory; FatalError if one is at work."""
    with (root / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FatalError(f"Another {command} is at work in {root}; stop it first.") from error
        yield


def default_name(config: Config) -> str:
    """The name of a new run directory: what is trained, and when it was started."""
    what = (config.run.preset, config.env.name, config.env.map, f"seed{config.run.seed}")
    return "-".join((*what, time.strftime("%Y%m%d-%H%M%S")))


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes a file that is there as a whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
