"""metrics.jsonl: one JSON object per line, appended and never rewritten.

A record holds `time` (unix seconds), `learner_step`, `env_steps` and figures by name ("loss/td"). A figure
that is not finite is null, because JSON has no NaN. After a restart the learner step goes back to that of the
checkpoint; the records of the steps that are done again stay.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from common.errors import FatalError


class MetricsLog:
    """Appends records; each is in the file as a whole when append() returns."""

    def __init__(self, path: Path) -> None:
        """Opens or makes the file. A last line that was cut short by a crash is removed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        _repair(path)
        self._file = path.open("ab")

    def append(self, *, learner_step: int, env_steps: int, figures: Mapping[str, float]) -> None:
        """Adds a record."""
        record: dict[str, float | int | None] = {
            "time": round(time.time(), 3),
            "learner_step": learner_step,
            "env_steps": env_steps,
        }
        record.update({name: value if math.isfinite(value) else None for name, value in figures.items()})
        self._file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file. May be called twice."""
        self._file.close()


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file; a last line that is still being written is left out.

    Raises FatalError for a line that is no record.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.endswith(b"\n"):
                yield _parse(line, f"line {number} of {path}")


def _parse(line: bytes, place: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise FatalError(f"{place} is damaged ({error}); remove that line") from error
    if not isinstance(record, dict):
        raise FatalError(f"{place} is no JSON object; remove that line")
    return record


def _repair(path: Path) -> None:
    if not path.exists():
        return
    with path.open("r+b") as file:
        whole = 0
        for line in file:
            whole += len(line) if line.endswith(b"\n") else 0
        file.truncate(whole)
