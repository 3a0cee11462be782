"""The plan of an experiment: maps x presets x seeds from one file, checked before anything starts."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from common.errors import BadInputError
from common.settings import PositiveInt, Settings
from deploy.config import Sources, load_config
from deploy.preset import read_mapping
from deploy.run_dir import RunDir
from deploy.settings import Config

# What may differ between the plan and a run that was begun with it: where, how long, and how it is watched.
_MAY_DIFFER: dict[str, Any] = {
    "run": {"name", "out", "env_steps"},
    "rpc": True,
    "metrics": True,
    "supervisor": True,
}
# What a launcher may leave that was killed before it had saved the configuration.
_BEFORE_CONFIG = {".lock", "logs", "config.yaml.partial"}


class ExperimentSettings(Settings):
    """An experiment file: every preset is trained on every map with every seed."""

    presets: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of presets, such as vdfd, qmix, vdfd-no-ac."""
    maps: Annotated[tuple[str, ...], Field(min_length=1)]
    """Maps of SMAX, or ENVIRONMENT/MAP."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    """One run each."""
    steps: PositiveInt | None = None
    """Environment steps of every run; null: what the preset says."""
    jobs: PositiveInt = 1
    """Runs at once, unless the command line says otherwise."""
    overrides: tuple[str, ...] = ()
    """Settings of all runs, such as learner.gamma=0.98."""

    @model_validator(mode="after")
    def _nothing_twice(self) -> Self:
        for name in ("presets", "maps", "seeds"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} has an entry twice")
        return self


class Progress(StrEnum):
    """How far a planned run is, from its directory alone."""

    NEW = "new"
    STARTED = "started"
    DONE = "done"


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run of the plan."""

    name: str
    files: RunDir
    config: Config
    arguments: tuple[str, ...]
    """Of the `vdfd train` that begins it."""

    @property
    def env_steps(self) -> int:
        """That it is to have."""
        return self.config.run.env_steps

    def progress(self) -> Progress:
        """Its state on disk; one that has fewer steps than are planned now is to go on."""
        summary = self.files.read_summary()
        if summary is not None and summary["env_steps"] >= self.env_steps:
            return Progress.DONE
        return Progress.STARTED if self.files.config.exists() else Progress.NEW

    def left_by_early_death(self) -> bool:
        """Whether the directory holds no more than a launcher leaves that died before it had begun."""
        root = self.files.root
        return root.is_dir() and {path.name for path in root.iterdir()} <= _BEFORE_CONFIG


def load_plan(file: Path, root: Path) -> tuple[ExperimentSettings, list[PlannedRun]]:
    """The experiment of a file, with run directories under `root`; the seeds vary slowest.

    Thus all presets have been trained on all maps before a second seed begins. Raises BadInputError, and
    changes nothing, when the file or any of its runs is wrong, or when a run was begun with other settings.
    """
    settings = _read(file)
    combinations = itertools.product(settings.seeds, settings.maps, settings.presets)
    runs = [_plan_run(settings, root, seed, place, preset) for seed, place, preset in combinations]
    if len({run.name for run in runs}) < len(runs):  # 3m and smax/3m
        raise BadInputError(f"Experiment file {file}: maps has an entry twice.")
    for run in runs:
        _check_unchanged(run)
    return settings, runs


def _read(file: Path) -> ExperimentSettings:
    try:
        return ExperimentSettings.model_validate(read_mapping(file))
    except ValidationError as error:
        raise BadInputError(f"Experiment file {file}: {_sentence(error)}") from error


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    valid = ", ".join(ExperimentSettings.model_fields)
    if first["type"] == "extra_forbidden":
        return f"there is no key {key}; there are: {valid}."
    if first["type"] == "missing":
        return f"{key} is missing."
    reason = first["msg"].removeprefix("Input ").removeprefix("Value error, ")
    return f"{key}: {reason}." if key else f"{reason}."


def _plan_run(settings: ExperimentSettings, root: Path, seed: int, place: str, preset: str) -> PlannedRun:
    env, slash, map_name = place.partition("/")
    env, map_name = (env, map_name) if slash else ("smax", env)
    name = f"{preset}-{env}-{map_name}-seed{seed}"
    options: dict[str, object] = {
        "env.name": env,
        "env.map": map_name,
        "run.seed": seed,
        "run.env_steps": settings.steps,
        "run.preset": preset,
    }
    config = load_config(Sources(preset=preset, overrides=settings.overrides, options=options))
    overrides = [f"{key}={value}" for key, value in options.items() if value is not None]
    return PlannedRun(
        name=name,
        files=RunDir(root / name),
        config=config,
        arguments=("--run-dir", str(root / name), "--preset", preset, *settings.overrides, *overrides),
    )


def _check_unchanged(run: PlannedRun) -> None:
    if not run.files.config.exists():
        return
    begun = load_config(Sources(file=run.files.config))
    was, now = (config.model_dump(exclude=_MAY_DIFFER) for config in (begun, run.config))
    for key, before, after in _differences(was, now):
        raise BadInputError(
            f"{run.files.root} was begun with {key} = {before!r}, and now it is {after!r}: "
            "take the change back, or give the experiment another --dir."
        )


def _differences(
    was: dict[str, Any], now: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Dotted key and both values, of what is not the same."""
    for name in was | now:
        before, after = was.get(name), now.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differences(before, after, f"{prefix}{name}.")
        elif before != after:
            yield f"{prefix}{name}", before, after
