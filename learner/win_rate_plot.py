"""The curve of Test Win Rate against environment steps."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from common.confidence import wilson_interval
from common.types import Evaluation


def draw_win_rate(path: Path, evaluations: Sequence[Evaluation], *, title: str) -> None:
    """Draws the curve with its 95 % band into a PNG; the file is replaced as a whole.

    Black and grey alone, so that it reads the same in print. The figure is made without pyplot, which would
    keep it in memory and want a display.
    """
    figure = Figure(figsize=(6.4, 4.0), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    steps = [evaluation.env_steps for evaluation in evaluations]
    bounds = [wilson_interval(evaluation.wins, evaluation.episodes) for evaluation in evaluations]
    lows, highs = [low for low, _ in bounds], [high for _, high in bounds]
    axes.fill_between(steps, lows, highs, color="0.85", label="95 % interval of each point")
    axes.plot(
        steps, [evaluation.win_rate for evaluation in evaluations], color="black", marker="o", markersize=3
    )
    axes.set(title=title, xlabel="environment steps", ylabel="Test Win Rate", ylim=(-0.02, 1.02))
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.legend(loc="lower right", frameon=False)
    partial = path.with_name(f".{path.name}.partial")
    figure.savefig(partial, format="png")
    partial.replace(path)
