"""Actors on the game's stand-in whose clients crash, hang, drop the connection and answer errors at random.

    python -m tests.bench.smac_faults --actors 4 --seconds 120 --fault-rate 0.002 --rounds 2

Rounds with and without faults alternate. Every stored episode is compared with what its own frames say: who
is alive at its end, and what damage and kills are worth on SMAC's scale. At the end of a round the actors
are killed with kill -9 in the midst of play, and whatever still runs or lies about is counted.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

import replay.server
from actor.sc2_folder import PREFIX
from actor.smac import MAPS
from common.codec import decode_payload, episode_from_proto, spec_from_proto
from protos import replay_pb2 as pb
from replay.memory_storage import MemoryStorage
from tests import sc2_standin
from tests.actor.service import replay_service

MARINES, HEALTH = 3, 45.0
WIN, KILL, SCALE = 200.0, 10.0, 20.0
FULL = MARINES * (HEALTH + KILL) + WIN
MAP = "3m"
FAILED = re.compile(r"client failed and is replaced: (.*)")


def main():
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        game = sc2_standin.install(Path(folder, "game"))
        rates = {True: [], False: []}
        for number in range(options.rounds):
            for with_faults in (False, True):
                temporary = Path(folder, f"tmp-{number}-{with_faults}")
                temporary.mkdir()
                rates[with_faults].append(play(options, game, temporary, with_faults=with_faults))
    without, with_faults = (float(np.mean(rates[key])) for key in (False, True))
    print(f"throughput with faults / without: {with_faults / without:.3f}")


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("--actors", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--fault-rate", type=float, default=0.002, help="chance per step of a client")
    parser.add_argument("--rounds", type=int, default=1)
    return parser.parse_args()


def play(options, game, temporary, *, with_faults):
    """One round; returns episodes per second."""
    environment = {**os.environ, "SC2PATH": str(game), "TMPDIR": str(temporary)}
    if with_faults:
        environment["SC2_STANDIN_RANDOM_FAULTS"] = str(options.fault_rate)
    storages = []

    class Kept(MemoryStorage):
        def __init__(self, rules):
            super().__init__(rules)
            storages.append(self)

    replay.server.MemoryStorage = Kept
    with replay_service(window_episodes=10**6, window_bytes=2**33) as service:
        logs = [temporary / f"actor-{number}.log" for number in range(options.actors)]
        actors = [start_actor(service.settings.address, log, environment) for log in logs]
        service.until(lambda status: len(status.actors) == options.actors)
        before, began = service.status().counters.episodes, time.monotonic()
        time.sleep(options.seconds)
        status, seconds = service.status(), time.monotonic() - began
        ended = [actor.poll() for actor in actors]
        for actor in actors:
            actor.kill()
            actor.wait()
        blobs = list(storages[0]._blobs.values())
    assert ended == [None] * options.actors, f"actors ended by themselves: {ended}"
    rate = (status.counters.episodes - before) / seconds
    failures = [found for log in logs for found in FAILED.findall(log.read_text())]
    bad = [complaint for blob in blobs if (complaint := check(blob, spec_from_proto(status.spec)))]
    print(
        f"faults {'on ' if with_faults else 'off'}: {len(blobs)} episodes, {rate:.2f} episodes/s, "
        f"{len(failures)} clients failed {kinds(failures)}, rejected {status.rejected}, "
        f"bad episodes {len(bad)} {bad[:3]}, left behind: {left_behind(game, temporary)}",
        flush=True,
    )
    return rate


def start_actor(address, log, environment):
    command = (
        *(sys.executable, "-P", "-m", "deploy.cli", "actor", "--name", log.stem, "--address", address),
        *("--env", "smac", "--map", MAP, "agent.hidden_size=8"),
    )
    with log.open("w") as file:
        return subprocess.Popen(command, env=environment, stdout=file, stderr=file)


def check(blob, spec):
    """What is wrong with a stored episode; nothing if nothing is."""
    encoded = episode_from_proto(pb.Episode.FromString(blob))
    meta, arrays = encoded.meta, decode_payload(encoded, spec)
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


def kinds(failures):
    names = [failure.split(":")[0] + ":" + failure.split(":")[-1] for failure in failures]
    return {name: names.count(name) for name in sorted(set(names))}


def left_behind(game, temporary):
    """Processes and folders, as soon as the guards had time to see that the actors are dead."""
    running = [p for p in psutil.process_iter(["cmdline"]) if str(game) in " ".join(p.info["cmdline"] or ())]
    _, alive = psutil.wait_procs(running, timeout=10)
    folders = [path for path in temporary.iterdir() if path.name.startswith((PREFIX, "sc-"))]
    return f"{len(alive)} processes, {len(folders)} folders"


if __name__ == "__main__":
    main()
