"""The real smac and pysc2 against the stand-in of the game: play, failures of all kinds, nothing left behind.

Figures of battles are the stand-in's; they say nothing about SMAC.
"""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from smac.env import StarCraft2Env
from smac.env.starcraft2.maps import smac_maps
from tenacity import wait_fixed

from actor.environment import EnvironmentStats
from actor.policy import random_actions
from actor.registry import make_environment
from actor.sc2_folder import PREFIX
from actor.settings import EnvSettings
from actor.smac import MAPS
from actor.smac_env import NO_OP
from common.errors import FatalError

ALL = np.ones(1, bool)
STOP, FIRST_TARGET = 1, 6
FAULTS = ("crash@3", "hang@3:600", "drop@3", "error@3")


@pytest.fixture(autouse=True)
def game(game_folder, tmp_path, monkeypatch):
    """The stand-in, with temporary files of its own. Returns where they go."""
    monkeypatch.setenv("SC2PATH", str(game_folder))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def open_smac():
    opened = []

    def open_one(map_name="3m", **options):
        settings = EnvSettings(name="smac", map=map_name, options=options)
        opened.append(make_environment(settings, copies=16, threads=1))
        return opened[-1]

    yield open_one
    for environment in opened:
        environment.close()
        environment.close()  # harmless


def seeds(number):
    return np.array([number], np.uint64)


def focus_fire(frame):
    """On 3m: all shoot at the weakest enemy that anybody reaches, or else at one in reach, or else come near.

    Nobody moves before an enemy is in reach: they come.
    """
    avail_NA, state = frame.avail_actions_KNA[0], frame.state_KS[0]
    allies, enemies = state[:12].reshape(3, 4), state[12:21].reshape(3, 3)
    weakness = np.where(avail_NA[:, FIRST_TARGET:].any(axis=0), 1 - enemies[:, 0], -1)
    target = int(weakness.argmax())
    wanted_NA = np.zeros(avail_NA.shape)
    wanted_NA[:, STOP] = 1
    if weakness.max() >= 0:
        wanted_NA[np.arange(3), [toward(enemies[target, 1:] - ally[2:]) for ally in allies]] = 2
        wanted_NA[:, FIRST_TARGET:] = 4 + weakness
    return np.where(avail_NA, wanted_NA, -1).argmax(axis=-1)[None]


def toward(offset):
    """The move (north, south, east, west are 2 to 5) that comes nearer."""
    x, y = offset
    if abs(x) > abs(y):
        return 4 if x > 0 else 5
    return 2 if y > 0 else 3


def play_episode(environment, choose, *, seed=1):
    """Steps of one episode, to its end or its failure."""
    frame = environment.reset(ALL, seeds(seed))
    results = []
    while not results or not (results[-1].done_K | results[-1].void_K).any():
        results.append(environment.step(choose(frame)))
        frame = results[-1].frame
    return results


def clients():
    """Processes of the game that were started from here, guards included."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.status() != psutil.STATUS_ZOMBIE]


def left_behind(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith((PREFIX, "sc-"))]


@pytest.mark.parametrize("map_name", MAPS)
def test_sizes_and_limits_are_those_of_smac(open_smac, map_name):
    spec = open_smac(map_name).spec
    assert set(MAPS) == set(smac_maps.get_smac_map_registry())
    bare = StarCraft2Env(map_name=map_name)
    info = bare.get_env_info()
    assert (spec.n_agents, spec.n_actions) == (info["n_agents"], info["n_actions"])
    assert (spec.obs_size, spec.state_size) == (info["obs_shape"], info["state_shape"])
    assert spec.episode_limit == info["episode_limit"] == MAPS[map_name].episode_limit
    assert bare.difficulty == "7"


@pytest.mark.parametrize("map_name", ["MMM", "2s3z", "2s_vs_1sc"])
def test_frames_have_the_sizes_of_the_spec(open_smac, rng, map_name):
    environment = open_smac(map_name)
    spec = environment.spec
    frame = environment.reset(ALL, seeds(3))
    for _ in range(20):
        assert frame.obs_KNO.shape == (1, spec.n_agents, spec.obs_size)
        assert frame.state_KS.shape == (1, spec.state_size)
        assert frame.avail_actions_KNA.shape == (1, spec.n_agents, spec.n_actions)
        assert np.isfinite(frame.obs_KNO).all() and np.isfinite(frame.state_KS).all()
        assert frame.avail_actions_KNA.any(axis=-1).all()
        frame = environment.step(random_actions(frame.avail_actions_KNA, rng)).frame
    assert environment.copies == 1  # sixteen were asked for


def test_focus_fire_wins_every_battle_with_the_full_return(open_smac):
    environment = open_smac()
    for number in range(20):
        results = play_episode(environment, focus_fire, seed=number)
        assert results[-1].won_K[0] and results[-1].terminated_K[0]
        assert sum(result.reward_K[0] for result in results) == pytest.approx(20.0, abs=1e-4)
    assert environment.stats() == EnvironmentStats(launched=1, failed=0, recycled=0)


def test_the_time_limit_ends_an_episode_without_terminating_it(open_smac):
    environment = open_smac("2s_vs_1sc")  # the enemy cannot move: who keeps away lives
    results = play_episode(environment, lambda _: np.full((1, 2), STOP))
    assert len(results) == environment.spec.episode_limit
    last = results[-1]
    assert (last.done_K[0], last.terminated_K[0], last.won_K[0]) == (True, False, False)


def test_a_defeat_is_terminated_and_the_dead_have_nothing_but_no_op(open_smac):
    results = play_episode(open_smac(), lambda frame: frame.avail_actions_KNA.argmax(axis=-1))
    first, last = results[0], results[-1]
    assert not first.frame.avail_actions_KNA[0, :, NO_OP].any(), "the living have it never"
    assert (last.done_K[0], last.terminated_K[0], last.won_K[0]) == (True, True, False)
    assert last.frame.avail_actions_KNA[0, :, NO_OP].all()
    assert (last.frame.avail_actions_KNA.sum(axis=-1) == 1).all()
    assert not last.frame.obs_KNO.any()


def test_the_seed_of_the_launch_decides_the_episodes(open_smac):
    one, other = open_smac(), open_smac()
    frames = [environment.reset(ALL, seeds(2**40 + 5)) for environment in (one, other)]
    np.testing.assert_array_equal(frames[0].state_KS, frames[1].state_KS)
    for environment in (one, other):
        assert environment.seeds_K == [2**40 + 5]
    rewards = []
    for environment in (one, other):
        results = play_episode(environment, focus_fire, seed=9)
        assert environment.seeds_K == [9]  # the first episode was left unfinished: a new client
        rewards.append([float(result.reward_K[0]) for result in results])
    assert rewards[0] == rewards[1]
    play_episode(one, focus_fire, seed=10)
    assert one.seeds_K == [9], "the game takes a seed when it is launched only"


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("episode", [0, 1])
def test_a_failure_voids_its_episode_and_play_goes_on(open_smac, game, monkeypatch, fault, episode):
    steps = {0: 3, 1: 30}[episode]  # in the midst of the first or of the second episode
    monkeypatch.setenv("SC2_STANDIN_FAULT", fault.replace("@3", f"@{steps}"))
    environment = open_smac(answer_timeout_s=3.0)
    for number in range(episode + 1):
        frame_before = environment.reset(ALL, seeds(number))
        monkeypatch.delenv("SC2_STANDIN_FAULT", raising=False)
        results = [environment.step(focus_fire(frame_before))]
        while not (results[-1].done_K | results[-1].void_K)[0]:
            results.append(environment.step(focus_fire(results[-1].frame)))
        assert results[-1].void_K[0] == (number == episode)
    assert not results[-1].done_K[0]
    assert clients() == [] and left_behind(game) == []

    again = play_episode(environment, focus_fire, seed=5)
    assert again[-1].won_K[0]
    assert sum(result.reward_K[0] for result in again) == pytest.approx(20.0, abs=1e-4), (
        "the scale has changed"
    )
    assert environment.stats() == EnvironmentStats(launched=2, failed=1, recycled=0)


def test_answers_that_each_come_in_time_still_have_to_make_up_a_step_in_time(open_smac, monkeypatch):
    """The deadline is for all that one step asks: the step itself and the observation after it."""
    monkeypatch.setenv("SC2_STANDIN_FAULT", "slow@3:1.8")
    results = play_episode(open_smac(answer_timeout_s=3.0), focus_fire)
    assert results[-1].void_K[0] and len(results) == 3


def test_clients_that_always_fail_in_play_end_the_process(open_smac, game, monkeypatch):
    monkeypatch.setenv("SC2_STANDIN_FAULT", "error@3")
    environment = open_smac(client_attempts=3)
    for _ in range(2):
        assert play_episode(environment, focus_fire)[-1].void_K[0]
    with pytest.raises(FatalError, match=r"3 clients .*\(.*injected error.*answer_timeout_s=5\."):
        play_episode(environment, focus_fire)
    assert environment.stats() == EnvironmentStats(launched=3, failed=3, recycled=0)
    assert clients() == [] and left_behind(game) == []


def test_an_episode_that_is_finished_makes_up_for_clients_that_failed(open_smac, monkeypatch):
    environment = open_smac(client_attempts=2)
    for fault in ("error@3", "", "error@3", ""):
        monkeypatch.setenv("SC2_STANDIN_FAULT", fault)
        assert play_episode(environment, focus_fire)[-1].void_K[0] == bool(fault)
        environment.close()


def test_a_failure_between_two_episodes_costs_none(open_smac, monkeypatch):
    environment = open_smac()
    results = play_episode(environment, focus_fire)
    assert results[-1].won_K[0]
    for client in clients():
        client.kill()
    again = play_episode(environment, focus_fire, seed=2)
    assert again[-1].won_K[0] and environment.seeds_K == [2]
    assert environment.stats() == EnvironmentStats(launched=2, failed=1, recycled=0)


def test_units_that_appear_late_do_not_change_the_reward(open_smac, monkeypatch):
    """The package counts those that are there twice if it has to wait for the others."""
    monkeypatch.setenv("SC2_STANDIN_LATE_UNITS", "2")
    environment = open_smac()
    results = play_episode(environment, focus_fire)
    assert results[-1].won_K[0]
    assert sum(result.reward_K[0] for result in results) == pytest.approx(20.0, abs=1e-4)


def test_clients_are_recycled(open_smac):
    environment = open_smac(recycle_episodes=2)
    for number in range(5):
        play_episode(environment, focus_fire, seed=number)
    assert environment.stats() == EnvironmentStats(launched=3, failed=0, recycled=2)
    assert len(clients()) == 2  # one guard, one client


def test_a_slow_start_is_waited_for_and_a_too_slow_one_is_replaced(open_smac, game, monkeypatch):
    monkeypatch.setenv("SC2_STANDIN_BOOT", "1")
    environment = open_smac()
    environment.reset(ALL, seeds(1))
    environment.close()
    environment = open_smac(launch_timeout_s=0.3, launch_attempts=2)
    with pytest.raises(FatalError, match="could not be launched 2 times in a row"):
        environment.reset(ALL, seeds(1))
    assert environment.stats() == EnvironmentStats(launched=2, failed=2, recycled=0)
    assert clients() == [] and left_behind(game) == []


def stopped(environment, act, *, when):
    """Interrupts `act`, in another thread, as soon as `when`; how long it then took, and what it returned."""
    results = []
    thread = threading.Thread(target=lambda: results.append(act()))
    thread.start()
    while not when():
        assert thread.is_alive()
    began = time.monotonic()
    environment.interrupt()
    thread.join()
    return time.monotonic() - began, results[0]


def test_a_stop_ends_a_launch(open_smac, game, monkeypatch):
    monkeypatch.setenv("SC2_STANDIN_BOOT", "100")
    environment = open_smac()
    took_s, frame = stopped(environment, lambda: environment.reset(ALL, seeds(1)), when=clients)
    assert took_s < 5
    assert clients() == [] and left_behind(game) == []
    result = environment.step(random_actions(frame.avail_actions_KNA, np.random.default_rng(1)))
    assert result.void_K[0] and not result.done_K[0]


def test_a_stop_ends_the_pause_between_two_launches(open_smac, monkeypatch):
    monkeypatch.setenv("SC2_STANDIN_BOOT", "100")
    monkeypatch.setattr("actor.smac_env.wait_random_exponential", lambda **_: wait_fixed(100))
    environment = open_smac(launch_timeout_s=0.1)
    in_pause = lambda: environment.stats().failed == 1  # noqa: E731
    took_s, _ = stopped(environment, lambda: environment.reset(ALL, seeds(1)), when=in_pause)
    assert took_s < 5


def test_a_stop_ends_the_wait_for_an_answer(open_smac, game, monkeypatch, tmp_path):
    said = tmp_path / "requests"
    monkeypatch.setenv("SC2_STANDIN_FAULT", "hang@3:600")
    monkeypatch.setenv("SC2_STANDIN_LOG", str(said))
    environment = open_smac(answer_timeout_s=100.0)
    hangs = lambda: said.exists() and said.read_text().count("step ") == 3  # noqa: E731
    took_s, results = stopped(environment, lambda: play_episode(environment, focus_fire), when=hangs)
    assert took_s < 5
    assert results[-1].void_K[0]


def test_a_game_that_does_not_start_is_told_with_its_own_words(open_smac, game, game_folder, monkeypatch):
    broken = game / "broken"
    client = broken / "Versions" / "Base75689" / "SC2_x64"
    client.parent.mkdir(parents=True)
    client.write_text("#!/bin/sh\necho libGL is missing >&2\nexit 3\n")
    client.chmod(0o755)
    (broken / "Maps").symlink_to(game_folder / "Maps")
    monkeypatch.setenv("SC2PATH", str(broken))
    with pytest.raises(FatalError, match="libGL is missing"):
        open_smac(launch_attempts=1).reset(ALL, seeds(1))


def test_a_version_that_is_not_installed_is_told_before_anything_starts(open_smac):
    with pytest.raises(FatalError, match=r"II 4.6.2 cannot be used: .*Known versions"):
        open_smac(game_version="4.6.2")
    assert open_smac(game_version="4.10.0").reset(ALL, seeds(1)).avail_actions_KNA.any()


def test_a_replay_that_cannot_be_written_ends_the_process(open_smac, tmp_path):
    (tmp_path / "file").touch()
    environment = open_smac(replay_dir=str(tmp_path / "file"))
    with pytest.raises(FatalError, match=r"file/3m-seed1.SC2Replay cannot be written"):
        play_episode(environment, focus_fire)


def test_replays_are_saved(open_smac, tmp_path):
    environment = open_smac(replay_dir=str(tmp_path / "replays"), recycle_episodes=1)
    for number in range(2):
        play_episode(environment, focus_fire, seed=number)
    files = sorted((tmp_path / "replays").iterdir())
    assert [file.name for file in files] == ["3m-seed0.SC2Replay", "3m-seed1.SC2Replay"]
    assert b"3m seed=1" in files[1].read_bytes()


def test_a_killed_actor_leaves_neither_client_nor_folder(tmp_path):
    code = f"""
        import os, sys, tempfile
        import numpy as np
        from actor.registry import make_environment
        from actor.settings import EnvSettings
        tempfile.tempdir = {str(tmp_path)!r}
        environment = make_environment(EnvSettings(name="smac"), copies=1, threads=1)
        environment.reset(np.ones(1, bool), np.ones(1, np.uint64))
        print("playing", flush=True)
        sys.stdin.read()
        """
    command = (sys.executable, "-c", textwrap.dedent(code))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as actor:
        assert actor.stdout.readline() == "playing\n"
        started = clients()
        assert left_behind(tmp_path) != []
        os.kill(actor.pid, signal.SIGKILL)
        actor.wait()
    _, alive = psutil.wait_procs(started, timeout=20)
    assert alive == [] and left_behind(tmp_path) == []


def test_many_clients_start_at_once(game):
    """Each has a port of its own and answers."""
    code = """
        import numpy as np
        from actor.registry import make_environment
        from actor.settings import EnvSettings
        environment = make_environment(EnvSettings(name="smac"), copies=1, threads=1)
        environment.reset(np.ones(1, bool), np.ones(1, np.uint64))
        print(environment.stats().failed, environment._field._client._client._port)
        input()
        environment.close()
        """
    command = (sys.executable, "-c", textwrap.dedent(code))
    actors = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    answers = [actor.stdout.readline().split() for actor in actors]
    for actor in actors:
        actor.communicate("\n")
    assert [failed for failed, _ in answers] == ["0"] * 4
    assert len({port for _, port in answers}) == 4


def test_the_package_is_not_changed_where_it_is_right(game_folder):
    """Frames and rewards are those of the bare package."""
    bare = StarCraft2Env(map_name="2s3z", seed=7)
    bare.reset()
    environment = make_environment(EnvSettings(name="smac", map="2s3z"), copies=1, threads=1)
    frame = environment.reset(ALL, seeds(7))
    rng = np.random.default_rng(1)
    for _ in range(30):
        actions = random_actions(frame.avail_actions_KNA, rng)
        reward, _, _ = bare.step(actions[0].tolist())
        result = environment.step(actions)
        frame = result.frame
        assert result.reward_K[0] == np.float32(reward)
        np.testing.assert_array_equal(frame.obs_KNO[0], np.array(bare.get_obs(), np.float32))
        np.testing.assert_array_equal(frame.state_KS[0], bare.get_state())
        np.testing.assert_array_equal(frame.avail_actions_KNA[0], np.array(bare.get_avail_actions(), bool))
    environment.close()
    bare.close()
    assert Path(game_folder).is_dir()
