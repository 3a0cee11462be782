"""A ragged batch that tests of the algorithms share."""

import dataclasses

import torch

from common.exploration import ExplorationSettings
from common.payload import encode_episode
from common.settings import AgentSettings
from common.types import EnvSpec
from learner.algorithms.registry import ALGORITHMS, build_algorithm
from learner.batching import EpisodeBatch, decode_batch
from learner.settings import ComaSettings, LearnerSettings, MixerSettings, WorldModelSettings
from tests.episodes import SPEC, make_episode

LENGTHS = (5, 12, 1, 12, 7)
AGENT = AgentSettings(hidden_size=10)
WORLD_MODEL = WorldModelSettings(latent_size=4, hidden_size=9, rollout_size=6)
SETTINGS = LearnerSettings(
    batch_size=len(LENGTHS),
    mixer=MixerSettings(embed_size=5, hypernet_size=7),
    world_model=WORLD_MODEL,
    coma=ComaSettings(critic_hidden_size=8, target_update_critic_steps=3 * max(LENGTHS)),
    target_update_episodes=3,
)
ALONE = dataclasses.replace(SPEC, n_agents=1)
EXPLORATION = ExplorationSettings(epsilon_start=0.5, epsilon_finish=0.1, epsilon_anneal_steps=100)


def ragged_episodes(seed: int = 0, lengths: tuple[int, ...] = LENGTHS, spec: EnvSpec = SPEC):
    return [
        make_episode(spec, length=n, seq=i + 1, seed=seed, terminated=i % 2 == 0)
        for i, n in enumerate(lengths)
    ]


def ragged_batch(seed: int = 0, spec: EnvSpec = SPEC) -> EpisodeBatch:
    return decode_batch([encode_episode(e) for e in ragged_episodes(seed, spec=spec)], spec)


def in_double(batch: EpisodeBatch) -> EpisodeBatch:
    """The same batch in float64."""
    tensors = batch.tensors().items()
    return EpisodeBatch(**{n: x.double() if x.dtype == torch.float32 else x for n, x in tensors})


def build(algorithm: str, *, seed: int = 0, spec: EnvSpec = SPEC, **changes):
    settings = SETTINGS.model_copy(update={"algorithm": algorithm, **changes})
    agent = AGENT.model_copy(update={"action_choice": ALGORITHMS[algorithm].action_choice})
    cpu = torch.device("cpu")
    return build_algorithm(spec, agent, settings, exploration=EXPLORATION, device=cpu, seed=seed)
