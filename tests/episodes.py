"""Synthetic specs and episodes that the codec accepts, for tests of every part."""

import dataclasses

import numpy as np

from common.types import EnvSpec, Episode, EpisodeMeta

SPEC = EnvSpec(
    env="synthetic",
    map="tiny",
    n_agents=3,
    n_actions=7,
    obs_size=11,
    state_size=13,
    episode_limit=20,
    fallback_action=4,
)


def make_episode(
    spec: EnvSpec = SPEC,
    *,
    length: int = 9,
    seq: int = 1,
    seed: int = 0,
    session: str = "session-1",
    terminated: bool = True,
    **meta: object,
) -> Episode:
    """A random episode: every chosen action is available, the return is the sum of the rewards."""
    rng = np.random.default_rng([seed, seq])
    actions = rng.integers(0, spec.n_actions, (length, spec.n_agents)).astype(np.uint8)
    avail = rng.random((length + 1, spec.n_agents, spec.n_actions)) < 0.5
    avail[..., spec.fallback_action] = True
    np.put_along_axis(avail[:-1], actions[..., None].astype(np.intp), True, axis=-1)
    reward = rng.random(length).astype(np.float32)
    episode_meta = EpisodeMeta(
        session=session,
        seq=seq,
        actor="actor-test",
        seed=seed,
        weights_version=0,
        length=length,
        episode_return=float(reward.sum(dtype=np.float64)),
        won=False,
        terminated=terminated,
    )
    return Episode(
        meta=dataclasses.replace(episode_meta, **meta),
        obs=rng.standard_normal((length + 1, spec.n_agents, spec.obs_size)).astype(np.float32),
        state=rng.standard_normal((length + 1, spec.state_size)).astype(np.float32),
        avail_actions=avail,
        actions=actions,
        reward=reward,
    )
