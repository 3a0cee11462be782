"""Training on a data set: what its run has to be like.

Every episode counts as one insert, and the run's environment steps are those of the data set. It is complete
when all episodes are in, and has ended when each has been sampled samples_per_insert times on average.
"""

from pathlib import Path
from typing import Any

from common.errors import BadInputError
from deploy.dataset.manifest import read_manifest, spec_of
from deploy.settings import Config
from replay.settings import ReplaySettings


def dataset_settings(root: Path) -> dict[str, Any]:
    """Settings that a run on this data set begins with; BadInputError if it is none."""
    manifest, standard = read_manifest(root), ReplaySettings()
    spec = spec_of(manifest, root)
    return {
        "run": {"dataset": str(root.resolve()), "env_steps": manifest.env_steps},
        "env": {"name": spec.env, "map": spec.map},
        "replay": {
            "window_episodes": max(standard.window_episodes, manifest.episodes),
            "window_bytes": max(standard.window_bytes, manifest.unpacked_bytes),
        },
    }


def check_fits_dataset(config: Config) -> None:
    """Raises BadInputError if the run would not train on all of its data set, or on another environment."""
    root = Path(config.run.dataset)
    manifest = read_manifest(root)
    spec = spec_of(manifest, root)
    if (config.env.name, config.env.map) != (spec.env, spec.map):
        raise BadInputError(
            f"{root} is of {spec.env} {spec.map}, not of {config.env.name} {config.env.map}: "
            "leave --env and --map out."
        )
    if config.run.env_steps != manifest.env_steps:
        raise BadInputError(
            f"run.env_steps cannot be {config.run.env_steps}: a run on {root} has its {manifest.env_steps} "
            "steps; replay.samples_per_insert says how long it trains on them."
        )
    table = config.replay.all_tables[config.learner.table]
    if table.limiter == "queue":
        raise BadInputError(
            f"Table {config.learner.table} gives every episode once, so there is no training on a "
            "data set from it: name another one by learner.table."
        )
    if (table.window_episodes or 0) < manifest.episodes:
        raise BadInputError(
            f"Table {config.learner.table} has room for {table.window_episodes} episodes, fewer than the "
            f"{manifest.episodes} of {root}: give a larger replay.window_episodes."
        )
