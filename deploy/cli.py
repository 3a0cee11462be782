"""The command line `vdfd`. Torch and JAX are imported by the commands that need them, so --help is quick."""

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from common.errors import BadInputError, FatalError
from deploy.cli_options import client_config, prepare, takes_configuration
from deploy.cli_parts import parts
from deploy.cli_replay import replay
from deploy.config import Sources, config_text, load_config
from deploy.keys import settings_fields
from learner.idle_threads import let_idle_threads_sleep

_HELP = """Trains cooperative agents with VDFD or QMIX.

[bold]vdfd train[/] runs everything on this machine: a replay service with its Redis, a learner, actors and
an evaluator. The other commands are its parts, for those who start them themselves.

Settings come from a preset, then --config FILE, then environment variables (VDFD_ENV__MAP=2s3z), then
KEY=VALUE arguments, then options such as --map; the later wins. [bold]vdfd config[/] shows the result.
"""

app = typer.Typer(
    help=_HELP,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(replay, name="replay")
app.add_typer(parts)


@app.command()
@takes_configuration
def train(
    sources: Sources,
    run_dir: Annotated[
        Path | None, typer.Option(help="Where the run's files go; by default a new directory in runs/.")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN_DIR", help="Goes on with a stopped run, or with more --steps than it had."),
    ] = None,
    dataset: Annotated[
        Path | None,
        typer.Option(help="Trains on a data set of `vdfd replay export` alone, without actors."),
    ] = None,
) -> None:
    """Trains with a local cluster, from start to end, and shows how it goes.

    Ctrl-C saves and ends within seconds; a second one ends at once.

    Examples:

      vdfd train

      vdfd train --algo qmix --map 2s3z --actors 4 --steps 500000 --seed 2

      vdfd train --algo qmix --dataset episodes.parquet replay.samples_per_insert=100

      vdfd train learner.optimiser.learning_rate=1e-3 actor.copies=32

      vdfd train --resume runs/vdfd-smax-3m-seed1-20260101-120000 --steps 300000
    """
    from deploy import train as training

    if resume is None:
        code = training.train_new(sources, run_dir, dataset)
    elif dataset is not None:
        raise BadInputError("--resume goes on with the run's own data set: leave --dataset out.")
    elif run_dir is None:
        code = training.resume(sources, resume)
    else:
        raise BadInputError("--resume goes on in the run's own directory: leave --run-dir out.")
    raise typer.Exit(code)


@app.command()
@takes_configuration
def status(sources: Sources) -> None:
    """How the run behind a replay service is doing.

    Example: vdfd status --address replay-host:50051
    """
    from deploy.status import describe_run

    print(describe_run(client_config(sources).rpc))


@app.command()
@takes_configuration
def health(sources: Sources) -> None:
    """Exit code 0 if the replay service can be used: a check for containers.

    Example: vdfd health --address localhost:50051
    """
    from deploy.status import check_health

    check_health(client_config(sources).rpc)


@app.command()
def evaluate(
    checkpoint: Annotated[
        Path, typer.Argument(help="A checkpoint directory, or a run directory: its newest.")
    ],
    episodes: Annotated[int, typer.Option(min=1, help="How many episodes are played.")] = 128,
    seed: Annotated[int, typer.Option(min=0, help="Of the battles; equal seeds give equal battles.")] = 0,
    save_replays: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where StarCraft II saves its replays (smac only).")
    ] = None,
) -> None:
    """Plays greedy episodes with saved weights: win rate with its 95 % interval.

    Example: vdfd evaluate runs/vdfd-smax-3m-seed1-20260101-120000 --episodes 512
    """
    from deploy.evaluate import evaluate as play

    stop = prepare(logging.WARNING)
    raise typer.Exit(play(checkpoint, episodes=episodes, seed=seed, stop=stop, replays=save_replays))


@app.command()
def watch(
    checkpoint: Annotated[
        Path, typer.Argument(help="A checkpoint directory, or a run directory: its newest.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The film; by default a file here, named after the checkpoint.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the battle.")] = 0,
) -> None:
    """Makes a film (GIF) of a SMAX battle: units, health, targets, actions and Q-values.

    Example: vdfd watch runs/vdfd-smax-3m-seed1-20260101-120000 --out battle.gif
    """
    from deploy.watch import watch as film

    raise typer.Exit(film(checkpoint, out=out, seed=seed))


@app.command()
def experiment(
    file: Annotated[Path, typer.Argument(help="YAML file with presets, maps, seeds, steps and overrides.")],
    directory: Annotated[
        Path | None,
        typer.Option("--dir", help="Where the run directories go; by default runs/ and the file's name."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at once; by default what the file says, or one.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option(help="Shows the runs and their state, and starts nothing.")
    ] = False,
) -> None:
    """Trains every preset on every map with every seed, each in a run directory of its own.

    Stopped or killed, it goes on where it was when it is started again; what is done is skipped.

    Example: vdfd experiment docs/experiments/smax.yaml --jobs 2
    """
    from deploy.experiments.main import run_experiment

    raise typer.Exit(run_experiment(file, directory, jobs=jobs, dry_run=dry_run))


@app.command()
def plot(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Run directories, directories with some in them, or a curves.csv."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Where the files go; by default plots, of --health the run's own.")
    ] = None,
    presets: Annotated[
        str, typer.Option(help="What is drawn, in this order, with commas between; by default all.")
    ] = "",
    unfinished: Annotated[bool, typer.Option("--unfinished", help="Takes runs that go on, too.")] = False,
    health: Annotated[
        bool, typer.Option("--health", help="Draws the world model's page of each run instead.")
    ] = False,
) -> None:
    """Draws Test Win Rate against environment steps, a panel per map, and reckons tables with intervals.

    Examples:

      vdfd plot runs/smax --out plots/smax --presets vdfd,qmix,vdn

      vdfd plot --health runs/vdfd-smax-3m-seed1-20260101-120000
    """
    from deploy.experiments import plot as plotting

    if health:
        plotting.plot_health(runs, out)
        return
    names = [name.strip() for name in presets.split(",") if name.strip()]
    plotting.plot_runs(runs, out or Path("plots"), algorithms=names, unfinished=unfinished)


@app.command()
@takes_configuration
def profile(
    sources: Sources,
    learner_steps: Annotated[
        int, typer.Option(min=0, help="Learner steps that are recorded; 0 leaves the learner out.")
    ] = 20,
    actor_steps: Annotated[
        int, typer.Option(min=0, help="Steps of an actor that are recorded; 0 leaves it out.")
    ] = 200,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the traces go.")] = Path("profiles"),
) -> None:
    """Shows where a learner's and an actor's step go: a table of each, and a trace for Perfetto.

    It plays a few episodes with random weights to train on, and needs no cluster.

    Examples:

      vdfd profile --algo vdfd --map 3m

      vdfd profile --algo qmix --map 2s3z --actor-steps 0 learner.device=cuda learner.batch_size=64
    """
    let_idle_threads_sleep()
    from deploy.profile import profile as measure

    measure(sources, out=out, learner_steps=learner_steps, actor_steps=actor_steps)


@app.command("config")
@takes_configuration
def show_config(
    sources: Sources,
    explain: Annotated[bool, typer.Option(help="Lists all keys with their meaning instead.")] = False,
) -> None:
    """Prints the configuration that the given sources make, as YAML; --config reads it back.

    Example: vdfd config --map 2s3z > mine.yaml && vdfd train --config mine.yaml
    """
    config = load_config(sources)
    if not explain:
        print(config_text(config), end="")
        return
    for key, field in settings_fields():
        print(f"{key}: {' '.join((field.description or '').split())}")


def main() -> None:
    """Runs the command line; expected failures are one sentence on stderr and an exit code."""
    try:
        app()
    except FatalError as error:
        print(f"vdfd: {error}", file=sys.stderr)
        sys.exit(error.code)


if __name__ == "__main__":
    main()
