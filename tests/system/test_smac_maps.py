"""An episode of every SMAC map, from the game's stand-in through actor, gRPC and replay into the learner."""

import threading

import pytest
import torch

from actor.main import run_actor
from actor.settings import ActorSettings, EnvSettings
from actor.smac import MAPS
from common.exploration import ExplorationSettings
from common.lifecycle import StopSignal
from common.settings import AgentSettings
from learner import checkpoint
from learner.main import run_learner
from learner.settings import LearnerSettings
from tests.actor.service import replay_service

AGENT = AgentSettings(hidden_size=8)


@pytest.fixture(autouse=True)
def torch_as_it_was():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("map_name", MAPS)
def test_an_episode_of_each_map_is_learned_from(map_name, game_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SC2PATH", str(game_folder))
    stop = StopSignal()
    with replay_service(total_env_steps=1, batch_size=1) as service:
        learner = threading.Thread(
            target=run_learner,
            kwargs={
                "settings": LearnerSettings(algorithm="vdfd", batch_size=1, device="cpu"),
                "agent": AGENT,
                "exploration": ExplorationSettings(),
                "rpc": service.settings,
                "seed": 1,
                "run_dir": tmp_path,
                "stop": stop,
            },
        )
        learner.start()
        try:
            run_actor(
                name="actor-0",
                env=EnvSettings(name="smac", map=map_name),
                settings=ActorSettings(),
                agent=AGENT,
                rpc=service.settings,
                seed=1,
                batch_size=1,
                stop=stop,
            )
            learner.join()
            status = service.status()
        finally:
            stop.set()
            learner.join()
    assert status.counters.episodes >= 1
    assert status.counters.env_steps >= 1
    assert status.rejected == 0
    assert checkpoint.load(checkpoint.latest(tmp_path)).step == status.counters.samples >= 1
