"""`vdfd experiment`: all runs of a file, and what came out of them."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from actor.registry import check_environment
from common.errors import EXIT_FAILURE, EXIT_STOPPED
from deploy.experiments.plan import PlannedRun, Progress, load_plan
from deploy.experiments.runner import Runner
from deploy.experiments.view import open_view
from deploy.formatting import duration
from deploy.run_dir import locked_directory, make_directory


def run_experiment(file: Path, root: Path | None, *, jobs: int | None, dry_run: bool) -> int:
    """Trains what is not trained yet. Exit code: 0, 1 if a run failed, 130 after Ctrl-C."""
    root = root or Path("runs") / file.stem
    settings, runs = load_plan(file, root)
    if dry_run:
        _print_runs(runs)
        return 0
    for run in runs:
        check_environment(run.config.env).check_installed(run.config.env)
    make_directory(root, "--dir")
    with locked_directory(root, "vdfd experiment"):
        (root / "experiment.yaml").write_bytes(file.read_bytes())
        intervals = runs[0].config.supervisor
        view = open_view(log_interval_s=intervals.log_interval_s)
        runner = Runner(
            runs, root / "logs", view, jobs=jobs or settings.jobs, interval_s=intervals.status_interval_s
        )
        try:
            asyncio.run(runner.run())
        finally:
            view.close()
    _print_runs(runs)
    for name, reason in runner.failed.items():
        print(f"Failed: {name}: {reason}")
    if runner.stopped:
        print(f"Go on with: vdfd experiment {file} --dir {root}")
        return EXIT_STOPPED
    return EXIT_FAILURE if runner.failed else 0


def _print_runs(runs: Sequence[PlannedRun]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("run", overflow="fold")
    table.add_column("state")
    for name in ("steps", "last Test Win Rate", "time"):
        table.add_column(name, justify="right")
    for run in runs:
        table.add_row(run.name, run.progress().value, *_result(run))
    Console().print(table)


def _result(run: PlannedRun) -> tuple[str, str, str]:
    summary = run.files.read_summary()
    if summary is None or run.progress() is not Progress.DONE:
        return "", "", ""
    rate = summary["test_win_rate_last3"]
    return f"{summary['env_steps']:,}", "" if rate is None else f"{rate:.3f}", duration(summary["wall_s"])
