"""The files of one run: where they are, how the directory is made, and what outlives a stop."""

import contextlib
import fcntl
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.durable import replace_file
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
        make_directory(root, "--run-dir")
        return cls(root)

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
        return Elapsed(**_read_json(self._elapsed))

    def save_elapsed(self, elapsed: Elapsed) -> None:
        """Notes it for a later --resume."""
        _write_json(self._elapsed, asdict(elapsed))

    def read_summary(self) -> dict[str, Any] | None:
        """What a run that is complete came to; None while there is no summary."""
        return _read_json(self.summary) if self.summary.exists() else None

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """From then on the run counts as complete."""
        _write_json(self.summary, summary)


@contextlib.contextmanager
def locked_directory(root: Path, command: str) -> Iterator[None]:
    """Keeps others that run the same command out of a directory; FatalError if one is at work."""
    with (root / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FatalError(f"Another {command} is at work in {root}; stop it first.") from error
        yield


def make_directory(path: Path, option: str) -> None:
    """Makes what `option` names, unless it is there; BadInputError if it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInputError(f"{option} {path} cannot be made a directory: {error.strerror}.") from error


def default_name(config: Config) -> str:
    """The name of a new run directory: what is trained, and when it was started."""
    what = (config.run.preset, config.env.name, config.env.map, f"seed{config.run.seed}")
    return "-".join((*what, time.strftime("%Y%m%d-%H%M%S")))


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    replace_file(path, json.dumps(values, indent=2) + "\n")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("it is no JSON object")
    except (OSError, ValueError) as error:
        raise BadInputError(
            f"{path} cannot be read ({error}): remove it, and the run makes it anew when it goes on."
        ) from error
    return values
