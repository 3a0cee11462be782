"""What a run leaves for people to look at: metrics.jsonl, TensorBoard events and win_rate.png."""

import math
import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from common.types import Evaluation
from learner.metrics_log import MetricsLog, read_records
from learner.win_rate_plot import draw_win_rate

MUST_BE_FINITE = ("loss/", "grad_norm/")
"""Figures that show when training has failed: weights can break by a gradient before a loss shows it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecorderStats:
    """The run directory."""

    not_finite: int
    """Records with a loss or gradient that was not finite, those before a restart included."""
    disk_free_bytes: int
    disk_size_bytes: int


class Recorder:
    """Writes records and evaluations into a run directory; threads may share it.

    metrics.jsonl is the truth: an evaluation that it holds is not written again, also after a restart.
    """

    def __init__(self, run_dir: Path, *, title: str) -> None:
        """Goes on where an earlier recorder of the same directory ended."""
        path = run_dir / "metrics.jsonl"
        self._run_dir = run_dir
        self._evaluations: dict[int, Evaluation] = {}
        self._not_finite = 0
        for record in read_records(path):
            if (evaluation := _evaluation(record)) is not None:
                self._evaluations[evaluation.env_steps] = evaluation
            self._not_finite += any(
                v is None for name, v in record.items() if name.startswith(MUST_BE_FINITE)
            )
        self._log = MetricsLog(path)
        self._writer = SummaryWriter(run_dir / "tensorboard")
        self._plot = run_dir / "win_rate.png"
        self._title = title
        self._lock = threading.Lock()
        if self._evaluations:  # the last one may have been written but not drawn
            self._draw()

    @property
    def evaluations(self) -> list[Evaluation]:
        """All evaluations so far, by ascending env_steps."""
        with self._lock:
            return [self._evaluations[env_steps] for env_steps in sorted(self._evaluations)]

    def stats(self) -> RecorderStats:
        """Figures of the whole run, and the room that is left."""
        disk = shutil.disk_usage(self._run_dir)
        return RecorderStats(
            not_finite=self._not_finite, disk_free_bytes=disk.free, disk_size_bytes=disk.total
        )

    def record(self, *, learner_step: int, env_steps: int, figures: Mapping[str, float]) -> None:
        """Writes figures of training."""
        with self._lock:
            self._log.append(learner_step=learner_step, env_steps=env_steps, figures=figures)
            self._not_finite += bool(not_finite(figures))
            self._show(learner_step, figures)

    def record_evaluation(self, evaluation: Evaluation) -> bool:
        """Writes an evaluation and draws the curve again; false if it was written before."""
        with self._lock:
            if evaluation.env_steps in self._evaluations:
                return False
            figures = {
                "test/win_rate": evaluation.win_rate,
                "test/return": evaluation.mean_return,
                "test/length": evaluation.mean_length,
                "test/wins": evaluation.wins,
                "test/episodes": evaluation.episodes,
            }
            self._log.append(
                learner_step=evaluation.weights_version, env_steps=evaluation.env_steps, figures=figures
            )
            self._evaluations[evaluation.env_steps] = evaluation
            self._show(evaluation.env_steps, figures)
        self._draw()
        return True

    def close(self) -> None:
        """Closes the files. May be called twice."""
        with self._lock:
            self._log.close()
            self._writer.close()

    def _draw(self) -> None:
        draw_win_rate(self._plot, self.evaluations, title=self._title)

    def _show(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()


def not_finite(figures: Mapping[str, float]) -> list[str]:
    """The names of those that must be finite and are not."""
    return [
        name
        for name, value in figures.items()
        if name.startswith(MUST_BE_FINITE) and not math.isfinite(value)
    ]


def _evaluation(record: Mapping[str, Any]) -> Evaluation | None:
    if "test/win_rate" not in record:
        return None
    return Evaluation(
        env_steps=record["env_steps"],
        weights_version=record["learner_step"],
        episodes=int(record["test/episodes"]),
        wins=int(record["test/wins"]),
        mean_return=record["test/return"],
        mean_length=record["test/length"],
    )
