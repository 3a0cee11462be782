"""`vdfd plot`: figures, their data and tables of many runs, or the world model's page of each."""

import itertools
from collections.abc import Sequence
from pathlib import Path

from common.errors import BadInputError
from deploy.experiments.figures import RETURN, WIN_RATE, draw_curves
from deploy.experiments.health_page import draw_health
from deploy.experiments.results import RunResult, collect, find_run_dirs, write_csv
from deploy.experiments.tables import Groups, markdown_tables
from deploy.run_dir import make_directory


def plot_runs(paths: Sequence[Path], out: Path, *, algorithms: Sequence[str], unfinished: bool) -> None:
    """Writes curves.csv, win_rate and return (.png, .svg, .csv) and tables.md into `out`.

    `algorithms` names what is drawn, and in which order; empty: all. Raises BadInputError, before it writes,
    if there is nothing to draw.
    """
    results, left_out = collect(paths, unfinished=unfinished)
    for reason in left_out:
        print(f"Left out: {reason}")
    found = sorted({run.algorithm for run in results})
    if missing := sorted(set(algorithms) - set(found)):
        raise BadInputError(f"No run is of {', '.join(missing)}; there are runs of {', '.join(found)}.")
    chosen = list(algorithms) or found
    results = [run for run in results if run.algorithm in chosen]
    if not results:
        raise BadInputError("No run with an evaluation was found; --unfinished takes those that go on, too.")
    make_directory(out, "--out")
    groups = _grouped(results)
    write_csv(out / "curves.csv", results)
    written = [out / "curves.csv", out / "tables.md"]
    for quantity in (WIN_RATE, RETURN):
        written += draw_curves(out, groups, chosen, quantity)
    tables = markdown_tables(groups, chosen)
    (out / "tables.md").write_text(tables, encoding="utf-8")
    print(tables)
    print(f"Written: {', '.join(map(str, written))}")


def plot_health(paths: Sequence[Path], out: Path | None) -> None:
    """Draws the page of every run directory with a world model, into itself or into `out`."""
    if out is not None:
        make_directory(out, "--out")
    drawn = False
    for run_dir in itertools.chain.from_iterable(map(find_run_dirs, paths)):
        name = run_dir.root.resolve().name
        path = run_dir.health if out is None else out / f"{name}-{run_dir.health.name}"
        if draw_health(run_dir, path, title=name):
            print(f"Written: {path}")
            drawn = True
        else:
            print(f"Left out: {run_dir.root}: it has no figures of a world model")
    if not drawn:
        raise BadInputError("No run has figures of a world model: none is of VDFD, or all are too short.")


def _grouped(results: Sequence[RunResult]) -> Groups:
    groups: dict[tuple[tuple[str, str], str], list[RunResult]] = {}
    for run in results:
        groups.setdefault((run.task, run.algorithm), []).append(run)
    return groups
