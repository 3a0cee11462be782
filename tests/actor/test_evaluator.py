"""Greedy test episodes: the right number, without favour for short ones, reported once."""

import threading

import numpy as np
import pytest

from actor.environment import episode_seed
from actor.evaluator import evaluate_weights, play_greedy, run_evaluator, summarise
from actor.policy import Policy
from actor.settings import ActorSettings, EnvSettings
from common.agent import AgentNetwork, pack_weights
from common.errors import FatalError
from common.lifecycle import StopSignal
from common.settings import AgentSettings
from tests.actor.service import Service, replay_service
from tests.actor.test_main import act
from tests.actor.toy_environment import ToyEnvironment

AGENT = AgentSettings(hidden_size=8)
TOY = EnvSettings(name="toy", map="tiny")
SPEC = ToyEnvironment.spec


def toy_weights(version=5):
    return pack_weights(AgentNetwork(SPEC, AGENT), session="learner", version=version)


def evaluate(weights, *, copies, episodes=30, env=TOY, **options):
    return evaluate_weights(
        env=env,
        settings=ActorSettings(copies=copies),
        agent=AGENT,
        weights=weights,
        episodes=episodes,
        seed=2,
        **options,
    )


def test_the_result_does_not_depend_on_the_number_of_copies():
    """The same seeds are played to their ends; with the first to end, more copies would mean shorter ones."""
    weights = toy_weights()
    results = [evaluate(weights, copies=copies) for copies in (1, 7, 30, 64)]
    for result in results:
        assert (result.episodes, result.weights_version) == (30, 5)
        assert result.wins == results[0].wins
        assert result.mean_length == results[0].mean_length
        assert result.mean_return == pytest.approx(results[0].mean_return)
    assert 0 < results[0].wins < 30


def test_all_begun_first_are_counted_and_none_else():
    policy = Policy(SPEC, AGENT, seed=0)
    metas = play_greedy(ToyEnvironment(copies=4, void_every=5), policy, episodes=10, seeds=(8,))
    assert sorted(meta.seed for meta in metas) == sorted(episode_seed((8,), n) for n in range(10))


def test_progress_is_told():
    seen = []
    evaluate(toy_weights(), copies=4, episodes=6, progress=lambda metas: seen.append(len(metas)))
    assert seen == sorted(seen)
    assert seen[-1] == 6


@pytest.fixture
def interrupted(monkeypatch):
    """Set when an environment is told not to wait for its game any more."""
    told = threading.Event()
    monkeypatch.setattr(ToyEnvironment, "interrupt", lambda _: told.set())
    return told


def test_a_stopped_evaluation_has_no_result(interrupted):
    stop = StopSignal()
    stop.set()
    assert evaluate(toy_weights(), copies=2, stop=stop) is None
    assert interrupted.is_set()


def test_weights_of_another_network_are_told():
    network = AgentNetwork(SPEC, AgentSettings(hidden_size=4))
    with pytest.raises(FatalError, match="do not fit"):
        evaluate(pack_weights(network, session="s", version=1), copies=1)


def test_summary():
    policy = Policy(SPEC, AGENT, seed=0)
    metas = play_greedy(ToyEnvironment(copies=2), policy, episodes=5, seeds=(8,))
    summary = summarise(metas, env_steps=100, version=3)
    assert (summary.env_steps, summary.weights_version, summary.episodes) == (100, 3, 5)
    assert summary.wins == sum(meta.won for meta in metas)
    assert summary.mean_return == pytest.approx(np.mean([meta.episode_return for meta in metas]))
    assert summary.mean_length == pytest.approx(np.mean([meta.length for meta in metas]))


def evaluator(service: Service, stop):
    run_evaluator(
        name="evaluator-0",
        env=TOY,
        settings=ActorSettings(copies=4),
        agent=AGENT,
        rpc=service.settings,
        seed=1,
        stop=stop,
    )


def test_every_point_is_evaluated_with_its_weights_and_then_it_ends():
    with replay_service(total_env_steps=1_000, evaluation_interval=250, evaluation_episodes=8) as service:
        service.register(SPEC)
        service.publish(toy_weights(version=4))
        thread = threading.Thread(target=evaluator, args=(service, StopSignal()))
        thread.start()
        act(service.settings)
        thread.join()
        status, results = service.status(), service.evaluations()
    assert [result.env_steps for result in results] == [250, 500, 750, 1_000]
    assert {(result.episodes, result.weights_version) for result in results} == {(8, 4)}
    assert status.evaluations_pending == 0


def test_an_evaluation_is_the_same_whoever_plays_it():
    """A lease that is given out again must not change the curve: seeds follow from run and point alone."""
    curves = []
    weights = toy_weights(version=4)
    for _ in range(2):
        with replay_service(total_env_steps=300, evaluation_interval=100, evaluation_episodes=8) as service:
            service.register(SPEC)
            service.publish(weights)
            act(service.settings)
            evaluator(service, StopSignal())
            results = service.evaluations()
            curves.append([(r.env_steps, r.wins, r.mean_return) for r in results])
    assert curves[0] == curves[1]
    assert len({mean_return for _, _, mean_return in curves[0]}) > 1


def test_a_stop_ends_an_idle_evaluator(interrupted):
    with replay_service() as service:
        stop = StopSignal()
        thread = threading.Thread(target=evaluator, args=(service, stop))
        thread.start()
        service.until(lambda status: status.HasField("spec"))
        stop.set()
        thread.join()
        assert service.evaluations() == []
    assert interrupted.is_set()
