"""`vdfd evaluate`: greedy episodes with the weights of a checkpoint."""

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from actor.evaluator import evaluate_weights
from actor.settings import ActorSettings, EnvSettings
from common.confidence import wilson_interval
from common.errors import EXIT_STOPPED, BadInputError
from common.lifecycle import StopSignal
from common.types import EnvSpec, EpisodeMeta, Evaluation
from deploy.config import Sources, load_config
from deploy.run_dir import RunDir
from learner import checkpoint


def evaluate(path: Path, *, episodes: int, seed: int, stop: StopSignal, replays: Path | None = None) -> int:
    """Plays, and prints the win rate with its 95 % interval. `path` is a checkpoint or a run directory.

    `replays`: where StarCraft II is to save its own recordings.
    """
    directory = checkpoint_at(path)
    spec, agent, weights = checkpoint.load_agent(directory)
    env, settings = as_in_run(directory, spec)
    if replays is not None:
        env = _with_replays(env, replays)
    print(f"{directory}: learner step {weights.version}, {spec.env} {spec.map}", flush=True)
    with _bar() as bar:
        task = bar.add_task("", total=episodes, rate="")

        def show(metas: list[EpisodeMeta]) -> None:
            won = sum(meta.won for meta in metas)
            bar.update(task, completed=len(metas), rate=f"won {won / len(metas):.2f}")

        result = evaluate_weights(
            env=env,
            settings=settings,
            agent=agent,
            weights=weights,
            episodes=episodes,
            seed=seed,
            progress=show,
            stop=stop,
        )
    if result is None:
        return EXIT_STOPPED
    print(describe(result))
    return 0


def checkpoint_at(path: Path) -> Path:
    """The checkpoint directory that is meant: `path` itself, or the newest of a run directory."""
    if checkpoint.is_complete(path):
        return path
    newest = checkpoint.latest(path)
    if newest is None:
        raise BadInputError(
            f"{path} is no checkpoint and no run directory with one: "
            "give a directory such as RUN_DIR or RUN_DIR/checkpoints/step_00001000."
        )
    return newest


def describe(result: Evaluation) -> str:
    """The result in two lines."""
    low, high = wilson_interval(result.wins, result.episodes)
    return (
        f"Win rate {result.win_rate:.3f} ({result.wins} of {result.episodes}), "
        f"95 % interval {low:.3f} to {high:.3f}\n"
        f"Mean return {result.mean_return:.2f}, mean length {result.mean_length:.1f} steps"
    )


def as_in_run(directory: Path, spec: EnvSpec) -> tuple[EnvSettings, ActorSettings]:
    """The environment with the options of the run that the checkpoint lies in, if it lies in one."""
    files = RunDir(directory.resolve().parent.parent)
    if not files.config.is_file():
        return EnvSettings(name=spec.env, map=spec.map), ActorSettings()
    config = load_config(Sources(file=files.config))
    return config.env, config.actor


def _with_replays(env: EnvSettings, folder: Path) -> EnvSettings:
    if env.name != "smac":
        raise BadInputError(
            f"Only StarCraft II (smac) saves replays; of {env.name}, `vdfd watch` makes films."
        )
    return env.model_copy(update={"options": {**env.options, "replay_dir": str(folder)}})


def _bar() -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))
