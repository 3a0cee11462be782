"""`vdfd profile`: where a learner's and an actor's step go, as tables and as traces for Perfetto."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import torch

from actor.environment import Environment
from actor.joining import join_run
from actor.policy import Policy
from actor.profile import play_episodes, profile_actor
from actor.registry import check_environment, make_environment
from actor.replay_writer import ReplayWriter
from actor.rollout import Rollout
from common import rpc
from common.errors import BadInputError, FatalError
from common.lifecycle import StopSignal
from common.payload import encode_episode
from common.profile import Profiled, Row, read_trace, rows_of
from common.types import EncodedEpisode, EnvSpec
from deploy.config import Sources, load_config
from deploy.run_dir import make_directory
from deploy.scratch_service import scratch_service
from deploy.settings import Config
from learner.algorithms.registry import build_algorithm
from learner.profile import profile_learner
from learner.startup import choose_device, prepare_torch

POOL_BATCHES = 2
"""Batches are drawn from so many times their number of episodes."""


def profile(sources: Sources, *, out: Path, learner_steps: int, actor_steps: int) -> None:
    """Profiles what has steps to do, prints the tables, and writes actor.json and learner.json into `out`."""
    if learner_steps == actor_steps == 0:
        raise BadInputError("There is nothing to profile: --learner-steps and --actor-steps are both 0.")
    config = load_config(sources)
    device = choose_device(config.learner.device)
    check_environment(config.env).check_installed(config.env)
    make_directory(out, "--out")
    torch.set_num_threads(config.actor.threads)
    environment = make_environment(config.env, copies=config.actor.copies, threads=config.actor.threads)
    with contextlib.closing(environment):
        policy = Policy(
            environment.spec, config.agent, seed=config.run.seed, choice=config.agent.action_choice
        )
        rollout = Rollout(environment, policy, actor="profile", session="profile", seeds=(config.run.seed,))
        # Also without a learner to feed: the first episodes compile what is to be measured.
        episodes = play_episodes(rollout, POOL_BATCHES * config.learner.batch_size)
        if actor_steps:
            profiled = _profile_actor(config, environment, rollout, actor_steps)
            _show(profiled, "actor", f"actor on {config.env.name} {config.env.map}", out)
    if learner_steps:
        encoded = [encode_episode(episode) for episode in episodes]
        profiled = _profile_learner(config, environment.spec, encoded, device, learner_steps)
        title = f"learner of {config.learner.algorithm} on {config.env.name} {config.env.map}, {device}"
        _show(profiled, "learner", title, out)


def describe(profiled: Profiled, rows: Sequence[Row]) -> str:
    """The table of a profile."""
    on_gpu = any(row.gpu_ms for row in rows)
    lines = [
        f"{profiled.plain_ms:.2f} ms per step without the profiler, {rows[0].total_ms:.2f} ms with it; "
        f"means of {profiled.steps} steps, {profiled.load}",
        f"{'part':<42} {'calls':>7} {'total ms':>9} {'self ms':>9} {'share':>7}" + f" {'GPU ms':>9}" * on_gpu,
    ]
    for beside in (False, True):
        group = [row for row in rows if row.beside is beside]
        if beside and group:
            lines.append("beside it, in other threads:")
        lines += [_line(row, on_gpu=on_gpu) for row in group]
    return "\n".join(lines)


def _line(row: Row, *, on_gpu: bool) -> str:
    name = "  " * row.depth + row.name
    gpu = f" {row.gpu_ms:9.3f}" if on_gpu else ""
    return f"{name:<42} {row.calls:7.1f} {row.total_ms:9.3f} {row.self_ms:9.3f} {row.share:7.1%}{gpu}"


def _show(profiled: Profiled, name: str, title: str, out: Path) -> None:
    trace = out / f"{name}.json"
    try:
        profiled.recording.write_trace(trace)
    except (OSError, RuntimeError) as error:
        raise FatalError(f"The trace {trace} cannot be written: {error}.") from error
    rows = rows_of(read_trace(trace, profiled.recording.labels), profiled.step)
    print(f"{title}: {describe(profiled, rows)}")
    print(f"Trace for https://ui.perfetto.dev: {trace}\n", flush=True)


def _profile_actor(config: Config, environment: Environment, rollout: Rollout, steps: int) -> Profiled:
    with contextlib.ExitStack() as stack:
        settings = stack.enter_context(scratch_service(config))
        channel = stack.enter_context(rpc.channel(settings))
        stop = StopSignal()
        join_run(channel, environment.spec, settings, stop=stop)
        writer = ReplayWriter(channel, config.actor, settings, stop=stop)
        stack.callback(writer.close)
        return profile_actor(
            rollout,
            writer,
            epsilon=config.actor.exploration.epsilon_finish,
            copies=environment.copies,
            steps=steps,
        )


def _profile_learner(
    config: Config, spec: EnvSpec, episodes: Sequence[EncodedEpisode], device: torch.device, steps: int
) -> Profiled:
    settings, seed = config.learner, config.run.seed
    prepare_torch(settings, seed)
    exploration = config.actor.exploration
    algorithm = build_algorithm(
        spec, config.agent, settings, exploration=exploration, device=device, seed=seed
    )
    return profile_learner(
        algorithm, episodes, spec, batch_size=settings.batch_size, device=device, steps=steps
    )
