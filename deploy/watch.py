"""`vdfd watch`: a film of a battle played with the weights of a checkpoint."""

import contextlib
from pathlib import Path

import torch

from actor.policy import Policy
from actor.registry import make_environment
from actor.scene import Shot, Visible, film_battle
from common.errors import BadInputError, FatalError
from deploy.battle_film import write_film
from deploy.evaluate import as_in_run, checkpoint_at
from learner import checkpoint


def watch(path: Path, *, out: Path | None, seed: int) -> int:
    """Plays one greedy episode and writes it as a GIF. `path` is a checkpoint or a run directory."""
    directory = checkpoint_at(path)
    spec, agent, weights = checkpoint.load_agent(directory)
    file = out or Path(f"{spec.env}-{spec.map}-step{weights.version}-seed{seed}.gif")
    if file.suffix != ".gif":
        raise BadInputError(f"A film is a GIF: let {file} end in .gif.")
    env, settings = as_in_run(directory, spec)
    torch.set_num_threads(settings.threads)
    with contextlib.closing(make_environment(env, copies=1, threads=settings.threads)) as environment:
        if not isinstance(environment, Visible):
            raise BadInputError(
                f"Battles of {env.name} cannot be drawn; for StarCraft II see vdfd evaluate --save-replays."
            )
        policy = Policy(environment.spec, agent, seed=seed)
        policy.load(weights)
        shots = list[Shot](film_battle(environment, environment, policy, seed=seed))
        try:
            write_film(file, shots, environment.action_names)
        except OSError as error:
            raise FatalError(f"{file} cannot be written: {error.strerror}.") from error
    last = shots[-1]
    result = "won" if last.won else "not won"
    print(f"{file}: {last.step} steps, {result}, return {last.episode_return:.2f}")
    return 0
