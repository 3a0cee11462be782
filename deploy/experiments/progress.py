"""How an experiment is doing, from the files of its runs, and the time that is left."""

import json
import os
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.experiments.plan import PlannedRun, Progress
from deploy.formatting import duration

_TAIL_BYTES = 8192


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """One moment."""

    total: int
    done: int
    failed: int
    running: tuple[tuple[str, float], ...]
    """Names, and the share of its environment steps that each has."""
    elapsed_s: float
    left_s: float | None
    """None until it can be told."""

    def lines(self) -> list[str]:
        """For people: one line for all, one per run that is going on."""
        failed = f", {self.failed} failed" if self.failed else ""
        times = f"{duration(self.elapsed_s)} gone, {duration(self.left_s)} left"
        first = f"{self.done} of {self.total} runs done{failed}, {len(self.running)} going on; {times}"
        return [first, *(f"  {name} {share:.0%}" for name, share in self.running)]


class ProgressWatch:
    """Reckons the time left from the environment steps that all runs have gained since it was made."""

    def __init__(self, runs: Sequence[PlannedRun]) -> None:
        self._runs = runs
        self._started_at = time.monotonic()
        self._before = {run.name: played_steps(run) for run in runs}

    def status(self, *, running: Collection[str], failed: Collection[str]) -> Status:
        """The present state; what failed counts neither as work done here nor as work left."""
        played = {run.name: min(played_steps(run), run.env_steps) for run in self._runs}
        counted = [run for run in self._runs if run.name not in failed]
        gained = sum(played[run.name] - min(self._before[run.name], run.env_steps) for run in counted)
        left = sum(run.env_steps - played[run.name] for run in counted)
        elapsed_s = time.monotonic() - self._started_at
        return Status(
            total=len(self._runs),
            done=sum(run.progress() is Progress.DONE for run in self._runs),
            failed=len(failed),
            running=tuple(
                (run.name, played[run.name] / run.env_steps) for run in self._runs if run.name in running
            ),
            elapsed_s=elapsed_s,
            left_s=0.0 if not left else elapsed_s * left / gained if gained else None,
        )


def played_steps(run: PlannedRun) -> int:
    """Environment steps as far as the learner has noted them."""
    if run.progress() is Progress.DONE:
        return run.env_steps
    return max((record.get("env_steps", 0) for record in _last_records(run.files.metrics)), default=0)


def _last_records(path: Path) -> list[dict[str, int]]:
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        begins_inside = file.seek(max(0, file.tell() - _TAIL_BYTES)) > 0
        lines = file.read().splitlines(keepends=True)
    whole = lines[1:] if begins_inside else lines
    return [json.loads(line) for line in whole if line.endswith(b"\n")]
