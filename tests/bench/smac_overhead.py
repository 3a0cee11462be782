"""What the environment layer costs per step, on top of smac itself, against the game's stand-in.

    python -m tests.bench.smac_overhead --map 3m --steps 3000

Two clients with one seed play the same actions. Steps alternate between the bare package, asked for all that
a learner needs, and ours; the stand-in's time is in both.
"""

import argparse
import os
import tempfile
import time

import numpy as np
from smac.env import StarCraft2Env

from actor.policy import random_actions
from actor.registry import make_environment
from actor.settings import EnvSettings
from tests import sc2_standin

ALL = np.ones(1, bool)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--map", default="3m")
    parser.add_argument("--steps", type=int, default=3000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SC2PATH"] = str(sc2_standin.install(folder))
        for cpu in (False, True):
            bare_s, ours_s = measure(options.map, options.steps, cpu=cpu)
            print(f"{options.map}, {options.steps} steps, {'own CPU' if cpu else 'wall'} time, ms per step:")
            for name, times in (("bare", bare_s), ("ours", ours_s)):
                print(f"  {name}  mean {1e3 * times.mean():.3f}  median {1e3 * np.median(times):.3f}")
            print(
                f"  ours / bare: mean {ours_s.mean() / bare_s.mean():.4f}, "
                f"median {np.median(ours_s) / np.median(bare_s):.4f}, "
                f"median of the paired differences {1e3 * np.median(ours_s - bare_s):.4f} ms",
                flush=True,
            )


def measure(map_name, steps, *, cpu):
    """Seconds of each step, of the bare package and of ours; of this process's CPU time alone if wanted."""
    rng = np.random.default_rng(1)
    bare = StarCraft2Env(map_name=map_name, seed=1)
    ours = make_environment(EnvSettings(name="smac", map=map_name), copies=1, threads=1)
    times = {play_bare: [], play_ours: []}
    clock = time.process_time if cpu else time.perf_counter
    over = True
    while len(times[play_ours]) < steps:
        if over:
            bare.reset()
            frame = ours.reset(ALL, np.array([1], np.uint64))
        actions_KN = random_actions(frame.avail_actions_KNA, rng)
        # Whoever is second finds warmer caches: take turns.
        order = ((bare, play_bare), (ours, play_ours))[:: 1 if len(times[play_ours]) % 2 else -1]
        for environment, play in order:
            began = clock()
            result = play(environment, actions_KN)
            times[play].append(clock() - began)
            if play is play_ours:
                frame, over = result.frame, bool(result.done_K[0])
    ours.close()
    bare.close()
    return np.array(times[play_bare]), np.array(times[play_ours])


def play_bare(environment, actions_KN):
    """A step as a runner of episodes makes it with the package."""
    outcome = environment.step(actions_KN[0])
    return outcome, environment.get_obs(), environment.get_state(), environment.get_avail_actions()


def play_ours(environment, actions_KN):
    """The same through the environment protocol."""
    return environment.step(actions_KN)


if __name__ == "__main__":
    main()
