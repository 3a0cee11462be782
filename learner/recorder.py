"""What a run leaves for people to look at: metrics.jsonl, TensorBoard events and win_rate.png."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from common.types import Evaluation
from learner.metrics_log import MetricsLog, read_records
from learner.win_rate_plot import draw_win_rate


class Recorder:
    """Writes records and evaluations into a run directory; threads may share it.

    metrics.jsonl is the truth: an evaluation that it holds is not written again, also after a restart.
    """

    def __init__(self, run_dir: Path, *, title: str) -> None:
        """Goes on where an earlier recorder of the same directory ended."""
        path = run_dir / "metrics.jsonl"
        self._evaluations = {e.env_steps: e for e in map(_evaluation, read_records(path)) if e is not None}
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

    def record(self, *, learner_step: int, env_steps: int, figures: Mapping[str, float]) -> None:
        """Writes figures of training."""
        with self._lock:
            self._log.append(learner_step=learner_step, env_steps=env_steps, figures=figures)
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
