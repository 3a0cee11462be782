"""Actors on the game's stand-in whose clients crash, hang, drop the connection and answer errors at random.

    python -m tests.bench.smac_faults --actors 4 --seconds 600 --fault-rate 0.0005

As many actors without faults play before them; not beside them, since whoever waits for a client leaves the
processors to the others. Every stored episode is compared with what its own frames say: who is alive at its
end, and what damage and kills are worth on SMAC's scale. At the end the actors are killed with kill -9 in the
midst of play, and whatever still runs or lies about is counted.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from actor.sc2_folder import PREFIX
from actor.smac import MAPS
from common.codec import episode_from_proto, spec_from_proto
from common.payload import decode_episode
from protos import replay_pb2 as pb
from tests import sc2_standin
from tests.actor.service import replay_service

MARINES, HEALTH = 3, 45.0
WIN, KILL, SCALE = 200.0, 10.0, 20.0
FULL = MARINES * (HEALTH + KILL) + WIN
MAP = "3m"
READ_TIMEOUT_S = 120.0
CALM, FAULTY = "calm", "faulty"
FAILED = re.compile(r"client failed and is replaced: (.*)")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--actors", type=int, default=4, help="of each group")
    parser.add_argument("--seconds", type=float, default=600, help="of each group")
    parser.add_argument("--fault-rate", type=float, default=0.0005, help="chance per step of a client")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        game = sc2_standin.install(Path(folder, "game"))
        temporary = Path(folder, "temporary")
        temporary.mkdir()
        episodes, stored, spec = play(options, game, temporary)
        logs = "".join(log.read_text() for log in temporary.glob(f"{FAULTY}-*.log"))
        failures = [found.split(": ", 1)[-1] for found in FAILED.findall(logs)]
        others = sum("replaced" in log.read_text() for log in temporary.glob(f"{CALM}-*.log"))
        bad = [complaint for episode in stored if (complaint := check(episode, spec))]
        print(
            f"episodes: {episodes}; throughput with faults / without: {episodes[FAULTY] / episodes[CALM]:.3f}"
        )
        print(
            f"failed clients: {len(failures)}, { ({what: failures.count(what) for what in set(failures)}) }"
        )
        print(f"calm actors with a failed client: {others}")
        print(f"stored episodes checked: {len(stored)}, bad: {len(bad)} {bad[:3]}")
        print(f"left behind after kill -9 of all actors: {left_behind(game, temporary)}")


def play(options, game, temporary):
    """Stored episodes of each group in its time, all stored episodes, and their sizes."""
    environment = {**os.environ, "SC2PATH": str(game), "TMPDIR": str(temporary)}
    faulty = {**environment, "SC2_STANDIN_RANDOM_FAULTS": str(options.fault_rate)}
    with replay_service(window_episodes=10**6, window_bytes=2**33) as service:
        episodes = {
            group: play_group(service, group, variables, options, temporary)
            for group, variables in ((CALM, environment), (FAULTY, faulty))
        }
        status = service.status()
        stored = list(read_window(service))
    assert status.rejected == 0
    return episodes, stored, spec_from_proto(status.spec)


def read_window(service):
    """All stored episodes."""
    for response in service.stub.ReadWindow(pb.ReadWindowRequest(), timeout=READ_TIMEOUT_S):
        for stored in response.episodes:
            yield episode_from_proto(stored.episode)


def play_group(service, group, variables, options, temporary):
    """Episodes that the group's actors store in the time measured, which begins when all of them play."""
    actors = [
        start_actor(service.settings.address, temporary / f"{group}-{number}.log", variables)
        for number in range(options.actors)
    ]
    service.until(lambda status: len(episodes_of(status, group)) == len(actors))
    before = sum(episodes_of(service.status(), group))
    time.sleep(options.seconds)
    after = sum(episodes_of(service.status(), group))
    ended = [actor.poll() for actor in actors]
    for actor in actors:
        actor.kill()
        actor.wait()
    assert ended == [None] * len(actors), f"actors ended by themselves: {ended}"
    return after - before


def episodes_of(status, group):
    return [actor.episodes for actor in status.actors if actor.actor.startswith(group)]


def start_actor(address, log, environment):
    command = (
        *(sys.executable, "-P", "-m", "deploy.cli", "actor", "--name", log.stem, "--address", address),
        *("--env", "smac", "--map", MAP, "agent.hidden_size=8"),
    )
    with log.open("w") as file:
        return subprocess.Popen(command, env=environment, stdout=file, stderr=file)


def check(encoded, spec):
    """What is wrong with a stored episode; nothing if nothing is."""
    meta, arrays = encoded.meta, decode_episode(encoded, spec)
    allies_TN = arrays.state[:, : MARINES * 4].reshape(-1, MARINES, 4)[..., 0]
    enemies_TN = arrays.state[:, MARINES * 4 : MARINES * 7].reshape(-1, MARINES, 3)[..., 0]
    over = not allies_TN[-1].any() or not enemies_TN[-1].any()
    won = allies_TN[-1].any() and not enemies_TN[-1].any()
    worth = (1 - enemies_TN[-1]).sum() * HEALTH + (enemies_TN[-1] == 0).sum() * KILL + won * WIN
    if meta.terminated != over:
        return f"terminated {meta.terminated}, but the battle is {'' if over else 'not '}over"
    if not over and meta.length != MAPS[MAP].episode_limit:
        return f"cut after {meta.length} steps"
    if meta.won != won:
        return f"won {meta.won}"
    if abs(meta.episode_return - worth / FULL * SCALE) > 1e-2:
        return f"return {meta.episode_return:.3f} instead of {worth / FULL * SCALE:.3f}"
    return None


def left_behind(game, temporary):
    """Processes and folders, as soon as the guards had time to see that the actors are dead."""
    running = [p for p in psutil.process_iter(["cmdline"]) if str(game) in " ".join(p.info["cmdline"] or ())]
    _, alive = psutil.wait_procs(running, timeout=10)
    folders = [path for path in temporary.iterdir() if path.name.startswith((PREFIX, "sc-"))]
    return f"{len(alive)} processes, {len(folders)} folders"


if __name__ == "__main__":
    main()
