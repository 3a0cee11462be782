"""The whole actor against a real service: how it begins, plays, keeps step with a learner, and ends."""

import contextlib
import dataclasses
import threading

import grpc
import pytest
import torch

from actor import main
from actor.main import run_actor
from actor.replay_writer import ReplayWriter
from actor.rollout import Rollout
from actor.settings import ActorSettings, EnvSettings
from common.agent import AgentNetwork, pack_weights
from common.codec import episode_from_proto
from common.errors import BadInputError, FatalError
from common.exploration import ExplorationSettings
from common.lifecycle import StopSignal
from common.payload import decode_episode
from common.settings import AgentSettings, RpcSettings
from protos import replay_pb2 as pb
from tests.actor.service import TIMEOUT_S, LockstepLearner, replay_service, unused_address
from tests.actor.toy_environment import Toy, ToyEnvironment

AGENT = AgentSettings(hidden_size=8)
TOY = EnvSettings(name="toy", map="tiny")
SPEC = ToyEnvironment.spec


def act(rpc_settings, *, stop=None, env=TOY, name="actor-0", seed=1, batch_size=4, **settings):
    run_actor(
        name=name,
        env=env,
        settings=ActorSettings(**{"copies": 3, "weights_poll_s": 0.01, **settings}),
        agent=AGENT,
        rpc=rpc_settings,
        seed=seed,
        batch_size=batch_size,
        stop=stop or StopSignal(),
    )


def acting(*arguments, **options):
    thread = threading.Thread(target=act, args=arguments, kwargs=options)
    thread.start()
    return thread


def test_an_actor_plays_until_the_run_is_complete():
    with replay_service(total_env_steps=2_000) as service:
        act(service.settings)
        status = service.status()
    assert 2_000 <= status.counters.env_steps < 2_000 + SPEC.episode_limit * 16
    assert status.counters.run_complete
    assert status.rejected == status.duplicates == 0
    assert [actor.actor for actor in status.actors] == ["actor-0"]
    assert 0 < status.train_win_rate < 1


def test_new_weights_are_played_and_episodes_carry_their_version():
    with replay_service() as service:
        stop = StopSignal()
        thread = acting(service.settings, stop=stop)
        service.until(lambda status: status.counters.episodes > 0)
        service.publish(pack_weights(AgentNetwork(SPEC, AGENT), session="learner", version=9))
        # The lag is the mean over recent episodes of newest - played: 9 until the new weights are played.
        service.until(lambda status: status.counters.weights_version == 9 and status.weights_lag < 4.5)
        stop.set()
        thread.join()


def test_an_actor_that_joins_late_never_plays_untrained_weights():
    with replay_service() as service:
        service.register(SPEC)
        service.publish(pack_weights(AgentNetwork(SPEC, AGENT), session="learner", version=9))
        stop = StopSignal()
        thread = acting(service.settings, stop=stop)
        status = service.until(lambda status: status.counters.episodes > 20)
        stop.set()
        thread.join()
    assert status.weights_lag == 0


def test_an_actor_that_joins_late_explores_as_the_steps_of_the_run_say():
    """Epsilon belongs to the run: with more actors, or restarted ones, it must not begin anew."""
    network = AgentNetwork(SPEC, AGENT)
    network.head.weight.data.zero_()
    network.head.bias.data = torch.arange(
        SPEC.n_actions, dtype=torch.float32
    )  # the greedy policy: the last one
    exploration = ExplorationSettings(epsilon_finish=0.0, epsilon_anneal_steps=100)
    with replay_service() as service:
        service.register(SPEC)
        service.publish(pack_weights(network, session="learner", version=1))
        for name in ("early", "late"):
            stop, begun = StopSignal(), service.status().counters
            thread = acting(service.settings, stop=stop, name=name, exploration=exploration)
            service.until(lambda status, begun=begun: status.counters.env_steps > begun.env_steps + 300)
            stop.set()
            thread.join()
        greedy = {"early": [], "late": []}
        for response in service.stub.ReadWindow(pb.ReadWindowRequest(), timeout=TIMEOUT_S):
            for stored in response.episodes:
                episode = decode_episode(episode_from_proto(stored.episode), SPEC)
                chosen = (episode.actions == SPEC.n_actions - 1) | ~episode.avail_actions[
                    : len(episode.actions), :, -1
                ]
                greedy[stored.episode.meta.actor].append(chosen.all())
    assert all(greedy["late"]) and not all(greedy["early"])


def test_a_stop_keeps_what_was_played_and_ends_at_once():
    with replay_service() as service:
        stop = StopSignal()
        thread = acting(service.settings, stop=stop, copies=2)
        service.until(lambda status: status.counters.episodes > 20)
        stop.set()
        thread.join()
        status = service.status()
    assert status.counters.episodes > 20
    assert status.rejected == 0


@pytest.fixture
def rollouts(monkeypatch):
    """Those of all actors of the test."""
    made = []

    def make(*arguments, **options):
        made.append(Rollout(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(main, "Rollout", make)
    return made


@contextlib.contextmanager
def held_actor(service, rollouts, **settings):
    """One that waits for room: four episodes make a batch, and no more may enter before somebody takes it."""
    stop = StopSignal()
    thread = acting(service.settings, stop=stop, copies=8, queue_episodes=2, **settings)
    service.until(lambda status: status.counters.episodes == 4 and rollouts[0].stats().episodes > 4 + 2)
    yield stop
    thread.join()


def taking_batches(service):
    """A learner that looks at nothing; returns what ends it."""
    opening = pb.SampleOpen(batch_size=4, consumed_batches=0)
    requests = iter([pb.SampleRequest(open=opening, credits=1000)])
    call = service.stub.Sample(requests, timeout=TIMEOUT_S)

    def take():
        with contextlib.suppress(grpc.RpcError):
            for _ in call:
                pass

    threading.Thread(target=take).start()
    return call.cancel


def test_a_stop_loses_no_finished_episode_that_the_learner_makes_room_for(rollouts):
    """Play waits for room in the midst of a step that ended several episodes."""
    with replay_service(insert_lead_episodes=0, samples_per_insert=4) as service:
        with held_actor(service, rollouts) as stop:
            stop.set()
            end = taking_batches(service)
        stored = service.status().counters.episodes
        end()
    assert stored == rollouts[0].stats().episodes > 4 + 2 + 1


def test_a_stop_ends_an_actor_that_the_rate_limiter_holds_and_counts_what_is_lost(rollouts, caplog):
    with replay_service(insert_lead_episodes=0, samples_per_insert=4) as service:
        with held_actor(service, rollouts, drain_timeout_s=0.1) as stop:
            stop.set()
        lost = rollouts[0].stats().episodes - service.status().counters.episodes
    assert f"gave up {lost} episodes" in caplog.text


def failing_toy(monkeypatch, when_it_fails):
    """From its twentieth episode on it cannot be begun."""
    reset = ToyEnvironment.reset

    def fail_at_last(self, mask_K, seeds_K):
        if len(self.seeds_begun) < 20:
            return reset(self, mask_K, seeds_K)
        when_it_fails()
        raise FatalError("The toy is broken.")

    monkeypatch.setattr(ToyEnvironment, "reset", fail_at_last)


def test_a_game_that_cannot_go_on_loses_no_finished_episode(monkeypatch, rollouts):
    with replay_service(insert_lead_episodes=0, samples_per_insert=4) as service:
        ends = []
        failing_toy(monkeypatch, lambda: ends.append(taking_batches(service)))
        with pytest.raises(FatalError, match="toy is broken"):
            act(service.settings, queue_episodes=100)
        stored = service.status().counters.episodes
        ends[0]()
    assert stored == rollouts[0].stats().episodes > 4


def test_a_game_that_cannot_go_on_is_told_though_the_service_refuses_its_episodes(monkeypatch):
    """The message of the first failure is the one that helps."""

    def refuse(*_):
        raise FatalError("The service refuses.")

    monkeypatch.setattr(ReplayWriter, "drain", refuse)
    failing_toy(monkeypatch, lambda: None)
    with replay_service() as service, pytest.raises(FatalError, match="toy is broken"):
        act(service.settings)


def test_a_restarted_actor_plays_other_episodes(monkeypatch):
    opened = []

    def open_toy(settings, *, copies, threads):
        opened.append(ToyEnvironment(copies=copies))
        return opened[-1]

    monkeypatch.setattr(Toy, "open", staticmethod(open_toy))
    with replay_service(total_env_steps=100) as service:
        act(service.settings)
    with replay_service() as service:
        for _ in range(2):
            stop = StopSignal()
            thread = acting(service.settings, stop=stop)
            already = service.status().counters.episodes
            service.until(lambda status, already=already: status.counters.episodes > already + 10)
            stop.set()
            thread.join()
    assert [environment.interrupted for environment in opened] == [False, True, True]
    other_run, first, second = (environment.seeds_begun for environment in opened)
    assert first[:10] == other_run[:10]  # the run's seed decides
    assert not set(first) & set(second)
    assert all(environment.closed for environment in opened)


def lockstep_run(seed):
    """200 environment steps with a learner; the batches it got."""
    with replay_service(
        total_env_steps=200, batch_size=2, seed=seed, samples_per_insert=2, insert_lead_episodes=0
    ) as service:
        service.register(SPEC)
        learner = LockstepLearner(service, SPEC, AGENT, batch_size=2)
        exploration = ExplorationSettings(epsilon_anneal_steps=150)
        act(
            service.settings,
            seed=seed,
            batch_size=2,
            copies=1,
            lockstep=True,
            exploration=exploration,
        )
        learner.join()
        status = service.status()
    assert status.weights_lag <= 1.0
    assert len(learner.batches) == status.counters.episodes
    return learner.batches


def test_lockstep_gives_the_learner_the_same_batches_twice():
    """Weights depend on the batches and actions on the weights, so any race would show."""
    first = lockstep_run(seed=3)
    assert lockstep_run(seed=3) == first
    assert lockstep_run(seed=4) != first
    assert len({payload for batch in first for payload in batch}) > 10


def test_lockstep_needs_one_copy():
    with pytest.raises(BadInputError, match=r"actor.copies=1, not 3"):
        act(RpcSettings(address=unused_address()), lockstep=True)


@pytest.mark.parametrize("name", ["", 65 * "a"])
def test_a_name_that_the_service_would_refuse_is_told_before_anything_is_asked_of_it(name):
    with pytest.raises(BadInputError, match=rf"--name.* 1 to 64 .* has {len(name)}"):
        act(RpcSettings(address=unused_address()), name=name)


def test_an_unknown_map_is_told_before_anything_is_asked_of_the_service():
    with pytest.raises(BadInputError, match="tiny"):
        act(RpcSettings(address=unused_address()), env=EnvSettings(name="toy", map="tini"))


def test_no_service():
    settings = RpcSettings(address=unused_address(), connect_timeout_s=0.3)
    with pytest.raises(FatalError, match=rf"{settings.address}.*vdfd replay.*rpc.address"):
        act(settings)


def test_a_stop_ends_the_wait_for_a_service():
    stop = StopSignal()
    thread = acting(RpcSettings(address=unused_address()), stop=stop)
    stop.set()
    thread.join()


def test_a_run_of_another_environment():
    with replay_service() as service:
        service.register(dataclasses.replace(SPEC, map="huge", n_agents=5))
        with pytest.raises(FatalError, match=r"does not play toy tiny.*map: 'tiny' differs"):
            act(service.settings)


def test_weights_of_another_network_end_the_actor():
    with replay_service() as service:
        service.register(SPEC)
        other = AgentNetwork(SPEC, AgentSettings(hidden_size=4))
        service.publish(pack_weights(other, session="learner", version=3))
        with pytest.raises(FatalError, match="version 3 do not fit"):
            act(service.settings)
