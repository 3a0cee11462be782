"""`vdfd replay`: the service itself, and what is done with its episodes."""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from common.lifecycle import StopSignal
from deploy.cli_options import MANUAL_RUN_DIR, RunDirOption, client_config, prepare, takes_configuration
from deploy.config import Sources, load_config
from deploy.settings import Config
from replay.settings import DEFAULT_TABLE

_SERVE = "serve"
_HELP = """The replay service, and what is done with its episodes.

[bold]vdfd replay[/] alone is [bold]vdfd replay serve[/], and takes its options.

Examples:

  vdfd replay --address 0.0.0.0:50051 replay.redis_url=redis://localhost:6379/0

  vdfd replay export episodes.parquet --run-dir runs/vdfd-smax-3m-seed1-20260101-120000
"""


class _ServeByDefault(TyperGroup):
    """Takes what is no command for options of `serve`."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override] # click is no dependency of ours
        if not args or (args[0] not in self.commands and args[0] != "--help"):
            args = [_SERVE, *args]
        return super().parse_args(ctx, args)


replay = typer.Typer(cls=_ServeByDefault, help=_HELP, rich_markup_mode="rich", no_args_is_help=False)

DatasetArgument = Annotated[Path, typer.Argument(metavar="DATASET", help="Directory of the data set.")]
StoppedRunOption = Annotated[
    Path | None,
    typer.Option(help="A run that is not going on, in place of --address: its service is started for this."),
]

TableOption = Annotated[str, typer.Option(help="Name of the table (see replay.tables).")]


@replay.command(_SERVE)
@takes_configuration
def serve(sources: Sources, run_dir: RunDirOption = MANUAL_RUN_DIR) -> None:
    """The replay service: the one address that all other processes talk to.

    It starts a Redis of its own, with its data in RUN_DIR/redis, unless replay.redis_url names one.

    Example: vdfd replay --address 0.0.0.0:50051 replay.redis_url=redis://localhost:6379/0
    """
    config = load_config(sources)
    from deploy.processes import serve_replay

    serve_replay(config, run_dir, prepare())


@replay.command("export")
@takes_configuration
def export_dataset(
    sources: Sources,
    dataset: DatasetArgument,
    table: TableOption = DEFAULT_TABLE,
    run_dir: StoppedRunOption = None,
) -> None:
    """Writes the window's episodes as Parquet files, one row per episode, that pandas and polars read.

    Examples:

      vdfd replay export episodes.parquet --run-dir runs/vdfd-smax-3m-seed1-20260101-120000

      vdfd replay export episodes.parquet --address replay-host:50051
    """
    stop = prepare(logging.WARNING)
    with _service(sources, run_dir, stop) as config:
        from deploy.dataset.export import export

        print(export(dataset, config.rpc, stop, table=table))


@replay.command("import")
@takes_configuration
def import_dataset(
    sources: Sources,
    dataset: DatasetArgument,
    table: TableOption = DEFAULT_TABLE,
    run_dir: StoppedRunOption = None,
) -> None:
    """Puts an exported data set into a run, each episode once, however often it is done.

    All of it is checked before anything is sent. No learner is waited for.

    Example: vdfd replay import episodes.parquet --address replay-host:50051
    """
    stop = prepare(logging.WARNING)
    with _service(sources, run_dir, stop) as config:
        from deploy.dataset import importing

        limit = config.replay.max_episode_bytes
        done = importing.import_dataset(dataset, config.rpc, stop, max_episode_bytes=limit, table=table)
        print(done)


@replay.command("stats")
@takes_configuration
def stats(
    sources: Sources,
    run_dir: StoppedRunOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Prints one JSON object instead.")] = False,
    interval: Annotated[
        float, typer.Option(min=0.1, max=60, help="Seconds over which rates are measured.")
    ] = 1.0,
) -> None:
    """What is in each table and how old it is, rates, samples per insert, memory and Redis.

    Example: vdfd replay stats --address replay-host:50051
    """
    stop = prepare(logging.WARNING)
    with _service(sources, run_dir, stop) as config:
        from deploy.replay_stats import show_stats

        show_stats(config.rpc, stop, interval_s=interval, as_json=as_json)


@contextlib.contextmanager
def _service(sources: Sources, run_dir: Path | None, stop: StopSignal) -> Iterator[Config]:
    """The configuration, with the address of a service: the one that runs, or that of a stopped run."""
    if run_dir is None:
        yield client_config(sources)
        return
    from deploy.run_dir import RunDir
    from deploy.stopped_run import serving_stopped_run

    files = RunDir.existing(run_dir)
    config = load_config(dataclasses.replace(sources, file=files.config))
    with serving_stopped_run(config, files, stop) as settings:
        yield config.model_copy(update={"rpc": settings})
