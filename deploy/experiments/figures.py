"""Curves over environment steps: mean and standard deviation over seeds, one panel per map.

Algorithms differ in line style, marker and lightness, so that a print in grey tells them apart.
"""

import csv
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from deploy.experiments.results import Point, RunResult
from deploy.experiments.statistics import common_steps
from deploy.experiments.tables import Groups, Task

_PANEL_INCHES = (3.6, 2.8)
_MARKERS = "osD^vPX*<>"
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
_MARKS_PER_LINE = 8
# Text stays text, and equal data give equal files.
_SVG: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "vdfd"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantity:
    """What is drawn."""

    file_stem: str
    label: str
    of: Callable[[Point], float]
    is_share: bool


WIN_RATE = Quantity(
    file_stem="win_rate", label="Test Win Rate", of=lambda point: point.win_rate, is_share=True
)
RETURN = Quantity(file_stem="return", label="Test return", of=lambda point: point.mean_return, is_share=False)


def draw_curves(out: Path, groups: Groups, algorithms: Sequence[str], quantity: Quantity) -> list[Path]:
    """Writes STEM.png, STEM.svg and the data behind them as STEM.csv; returns their paths."""
    tasks = sorted({task for task, _ in groups})
    columns = 2 if len(tasks) == 4 else min(3, len(tasks))
    rows = math.ceil(len(tasks) / columns)
    size = (_PANEL_INCHES[0] * columns, _PANEL_INCHES[1] * rows + 0.5)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for task, axes in zip(tasks, panels, strict=False):
        _draw_panel(axes, task, groups, algorithms, quantity)
    for axes in panels[len(tasks) :]:
        axes.set_visible(False)
    _draw_legend(figure, panels[: len(tasks)])
    stem = out / quantity.file_stem
    _write_data(stem.with_suffix(".csv"), groups, algorithms, quantity)
    figure.savefig(stem.with_suffix(".png"))
    with mpl.rc_context(_SVG):
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
    return [stem.with_suffix(suffix) for suffix in (".png", ".svg", ".csv")]


def curve(runs: Sequence[RunResult], quantity: Quantity) -> Iterator[tuple[int, float, float, int]]:
    """(env_steps, mean, standard deviation, runs) wherever all runs were evaluated; of one run it is 0.

    It ends where the first run does: a mean that loses a seed on its way jumps, and says nothing.
    """
    by_step = [{point.env_steps: quantity.of(point) for point in run.points} for run in runs]
    for env_steps in common_steps(runs):
        found = [values[env_steps] for values in by_step]
        deviation = float(np.std(found, ddof=1)) if len(found) > 1 else 0.0
        yield env_steps, float(np.mean(found)), deviation, len(found)


def _draw_panel(
    axes: Axes, task: Task, groups: Groups, algorithms: Sequence[str], quantity: Quantity
) -> None:
    shades = mpl.colormaps["viridis"](np.linspace(0.0, 0.8, len(algorithms)))
    for number, name in enumerate(algorithms):
        found = list(curve(groups.get((task, name), ()), quantity))
        if not found:
            continue
        steps, means, deviations, _ = (np.array(x) for x in zip(*found, strict=True))
        low, high = means - deviations, means + deviations
        if quantity.is_share:
            low, high = low.clip(0, 1), high.clip(0, 1)
        axes.fill_between(steps, low, high, color=shades[number], alpha=0.15, linewidth=0)
        every = max(1, len(steps) // _MARKS_PER_LINE)
        axes.plot(
            *(steps, means),
            color=shades[number],
            linestyle=_LINES[number % len(_LINES)],
            marker=_MARKERS[number % len(_MARKERS)],
            markersize=4,
            markevery=(number % every, every),  # not all at the same steps
            linewidth=1.4,
            label=name,
        )
    axes.set(title=" ".join(task), xlabel="environment steps", ylabel=quantity.label)
    if quantity.is_share:
        axes.set_ylim(-0.03, 1.03)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(color="0.9")
    axes.set_axisbelow(True)


def _draw_legend(figure: Figure, panels: Sequence[Axes]) -> None:
    handles = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=min(6, len(handles)) or 1,
        frameon=False,
    )


def _write_data(path: Path, groups: Groups, algorithms: Sequence[str], quantity: Quantity) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("env", "map", "algorithm", "env_steps", "mean", "standard_deviation", "runs"))
        for task in sorted({task for task, _ in groups}):
            for name in algorithms:
                for steps, mean, deviation, runs in curve(groups.get((task, name), ()), quantity):
                    writer.writerow((*task, name, steps, round(mean, 6), round(deviation, 6), runs))
