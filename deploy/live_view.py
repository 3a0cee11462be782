"""A Snapshot as a screen: progress, figures, the curve of the Test Win Rate, one line per process."""

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from deploy.formatting import duration, sparkline
from deploy.snapshot import ProcessRow, Snapshot

_CURVE_POINTS = 48
_STATE_STYLES = {"running": "green", "finished": "blue", "restarting": "bold yellow", "failed": "bold red"}


def render(snapshot: Snapshot) -> RenderableType:
    """The whole screen."""
    parts = [_progress(snapshot), _figures(snapshot), _curve(snapshot), _processes(snapshot.processes)]
    parts += [Text(f"• {event}", style="yellow") for event in snapshot.events]
    return Panel(
        Group(*parts),
        title=f"[bold]{snapshot.title}[/] · {snapshot.phase}",
        subtitle=f"{snapshot.run_dir} · Ctrl-C stops and saves",
    )


def _progress(snapshot: Snapshot) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    steps = f"{snapshot.counters.env_steps:,} of {snapshot.total_env_steps:,} environment steps"
    grid.add_row(
        ProgressBar(total=1.0, completed=snapshot.progress, width=30),
        steps,
        f"{snapshot.progress:.0%}",
        f"{duration(snapshot.wall_s)} gone, {duration(snapshot.time_left_s)} left",
    )
    return grid


def _figures(snapshot: Snapshot) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    for _ in range(3):
        grid.add_column(style="dim")
        grid.add_column(justify="right")
    cells = list(_figure_cells(snapshot))
    for row in range(0, len(cells), 3):
        grid.add_row(*(text for cell in cells[row : row + 3] for text in cell))
    return Group(Text(), grid)


def _figure_cells(snapshot: Snapshot) -> Iterable[tuple[str, str]]:
    yield "episodes/s", f"{snapshot.episodes_per_s:.1f}"
    yield "learner steps/s", f"{snapshot.learner_steps_per_s:.1f}"
    yield "samples per insert", f"{snapshot.samples_per_insert:.2f} ({snapshot.target_samples_per_insert:g})"
    yield "episodes", f"{snapshot.counters.episodes:,}"
    yield "learner steps", f"{snapshot.learner_steps:,}"
    yield "age of weights in play", f"{snapshot.weights_lag:.1f} steps"
    yield "train win rate", f"{snapshot.train_win_rate:.2f}"
    yield "train return", f"{snapshot.train_return:.2f}"
    yield "restarts", f"{snapshot.restarts}"
    for name, value in snapshot.losses.items():
        yield name, f"{value:.4g}"


def _curve(snapshot: Snapshot) -> RenderableType:
    rates = [evaluation.win_rate for evaluation in snapshot.evaluations[-_CURVE_POINTS:]]
    line = Text("\nTest Win Rate  ", style="bold")
    if not rates:
        line.append("no evaluation yet", style="dim")
        return line
    line.append(sparkline(rates), style="cyan")
    line.append(f"  {rates[-1]:.2f}")
    line.append(f"  at {snapshot.evaluations[-1].env_steps:,} steps", style="dim")
    line.append(f", mean of the last three {snapshot.win_rate_last3:.2f}", style="dim")
    if snapshot.evaluations_pending:
        line.append(f", {snapshot.evaluations_pending} pending", style="dim")
    return line


def _processes(rows: Iterable[ProcessRow]) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("process")
    table.add_column("state")
    for name in ("pid", "up", "restarts", "CPU", "memory"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row.name,
            Text(row.state, style=_STATE_STYLES.get(row.state, "")),
            str(row.pid or ""),
            duration(row.uptime_s) if row.pid else "",
            str(row.restarts),
            f"{row.cpu_percent:.0f} %" if row.pid else "",
            f"{row.memory_bytes / 2**20:,.0f} MiB" if row.pid else "",
        )
    return Group(Text(), table)
