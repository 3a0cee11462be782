"""One page that shows whether the world model of a run has learned anything."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from deploy.run_dir import RunDir
from learner.metrics_log import read_records

_HORIZON = (1, 2, 3)
_PREFIX = "world_model/"
_SHADES = ("0.0", "0.4", "0.65")
_MARKERS = "osD"
_BELOW = -0.5
"""Where the axis of explained variance ends; an untrained model may be at minus a thousand."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Line:
    key: str
    label: str
    style: int
    """Number of its shade and marker."""
    dashed: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class _Panel:
    title: str
    lines: tuple[_Line, ...]
    limits: tuple[float, float] | None = None
    log_scale: bool = False


def draw_health(run_dir: RunDir, path: Path, *, title: str) -> bool:
    """Draws the page into a PNG; false, and no file, if the run has no figures of a world model."""
    records = list(read_records(run_dir.metrics))
    if not any(name.startswith(_PREFIX) for record in records for name in record):
        return False
    figure = Figure(figsize=(13.0, 9.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"World model of {title}. {verdict(records)}", fontsize=11)
    for axes, panel in zip(figure.subplots(3, 3).flatten(), _panels(), strict=True):
        _draw_panel(axes, panel, records)
    partial = path.with_name(f".{path.name}.partial")
    figure.savefig(partial, format="png")
    partial.replace(path)
    return True


def verdict(records: Iterable[Mapping[str, Any]]) -> str:
    """In words: at which horizons the newest figures are better than copying the present."""
    newest: dict[str, float] = {}
    for record in records:
        newest.update({name: value for name, value in record.items() if value is not None})
    parts = []
    for what in ("h", "z"):
        better = [k for k in _HORIZON if _beats_copy(newest, what, k)]
        where = ", ".join(map(str, better))
        parts.append(f"{what} at k = {where}" if better else f"{what} nowhere")
    return f"Imagination explains more than copying the present does: {'; '.join(parts)}."


def _beats_copy(newest: Mapping[str, float], what: str, k: int) -> bool:
    imagined, copied = (newest.get(f"{_PREFIX}{what}_explained{kind}_k{k}") for kind in ("", "_copy"))
    return imagined is not None and copied is not None and imagined > copied


def _panels() -> Sequence[_Panel]:
    share = (_BELOW, 1.03)
    return (
        _Panel(title="divergence of posterior and prior", lines=_losses("kl_ac", "kl_af")),
        _Panel(title="reconstruction", lines=_losses("rec_ac", "rec_af", "st"), log_scale=True),
        _Panel(title="explained variance of h", lines=_explained("h"), limits=share),
        _Panel(title="explained variance of z", lines=_explained("z"), limits=share),
        _Panel(
            title="h, with the actions really taken",
            lines=_by_horizon("h_explained_real_actions"),
            limits=share,
        ),
        _Panel(
            title="imagined and real greedy actions agree",
            lines=_by_horizon("action_agreement"),
            limits=(0, 1.03),
        ),
        _Panel(title="accuracy of available actions", lines=_by_horizon("avail_accuracy"), limits=(0, 1.03)),
        _Panel(
            title="share in the mixer's input gradient",
            lines=tuple(
                _Line(key=f"mixer_input/{name}", label=name, style=number % 3, dashed=number == 3)
                for number, name in enumerate(("ac", "af", "st", "state"))
            ),
            limits=(0, 1.03),
        ),
        _Panel(
            title="norms of gradients before clipping",
            lines=(
                _Line(key="grad_norm/value", label="agents, mixer, rollout", style=0),
                _Line(key="grad_norm/world_model", label="world model", style=1, dashed=True),
            ),
            log_scale=True,
        ),
    )


def _losses(*names: str) -> tuple[_Line, ...]:
    return tuple(_Line(key=f"loss/{name}", label=name, style=number) for number, name in enumerate(names))


def _by_horizon(name: str, label: str = "", *, dashed: bool = False) -> tuple[_Line, ...]:
    return tuple(
        _Line(key=f"{_PREFIX}{name}_k{k}", label=f"{label}k = {k}", style=k - 1, dashed=dashed)
        for k in _HORIZON
    )


def _explained(what: str) -> tuple[_Line, ...]:
    copies = _by_horizon(f"{what}_explained_copy", "copy ", dashed=True)
    return _by_horizon(f"{what}_explained") + copies


def _draw_panel(axes: Axes, panel: _Panel, records: Sequence[Mapping[str, Any]]) -> None:
    for line in panel.lines:
        steps, values = _series(records, line.key)
        if not len(steps):
            continue
        axes.plot(
            *(steps, values),
            color=_SHADES[line.style],
            linestyle="--" if line.dashed else "-",
            marker=_MARKERS[line.style],
            markersize=3,
            markevery=max(1, len(steps) // 10),
            linewidth=1.0,
            label=line.label,
        )
    axes.set_title(panel.title, fontsize=9)
    axes.set_xlabel("environment steps", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(color="0.92")
    if panel.log_scale:
        axes.set_yscale("log")
    if panel.limits is not None:
        axes.set_ylim(*panel.limits)
    if axes.lines:
        axes.legend(fontsize=6, ncols=2, frameon=False)


def _series(
    records: Sequence[Mapping[str, Any]], key: str
) -> tuple["np.ndarray[Any, np.dtype[np.float64]]", "np.ndarray[Any, np.dtype[np.float64]]"]:
    """env_steps and values; what was not finite is a gap."""
    found = [(record["env_steps"], record[key]) for record in records if key in record]
    steps, values = ([pair[side] for pair in found] for side in (0, 1))
    return np.array(steps, np.float64), np.array(values, np.float64)
