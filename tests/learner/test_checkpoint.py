"""A checkpoint is whole or absent, and training goes on from it as if nothing had happened."""

import dataclasses
import json
import subprocess
import sys

import pytest
import torch

from common.agent import AgentNetwork, load_weights, pack_weights
from common.exploration import ExplorationSettings
from common.payload import encode_episode
from common.settings import AgentSettings
from common.types import Weights
from learner import checkpoint
from learner.algorithms.registry import ALGORITHMS, build_algorithm
from learner.batching import decode_batch
from learner.checkpoint import Checkpoint, CheckpointError
from learner.settings import LearnerSettings
from tests.episodes import SPEC, make_episode

AGENT = AgentSettings(hidden_size=8)
CPU = torch.device("cpu")


def make(step=1, **changes):
    values = {
        "step": step,
        "spec": SPEC,
        "agent": AGENT,
        "settings": LearnerSettings(),
        "weights": Weights(session="learner-1", version=step, data=b"agent at %d" % step),
        "algorithm": {"online/w": torch.arange(6.0).reshape(2, 3).t(), "steps": torch.tensor(step)},
    }
    return Checkpoint(**{**values, **changes})


def steps(run_dir):
    return sorted(int(path.name[5:]) for path in (run_dir / "checkpoints").iterdir())


def test_what_is_loaded_is_what_was_saved(tmp_path):
    saved = make(settings=LearnerSettings(algorithm="qmix", gamma=0.5))
    path = checkpoint.save(tmp_path, saved, keep=3)
    loaded = checkpoint.load(path)
    assert dataclasses.replace(loaded, algorithm={}) == dataclasses.replace(saved, algorithm={})
    assert loaded.algorithm.keys() == saved.algorithm.keys()
    for name, value in saved.algorithm.items():
        torch.testing.assert_close(loaded.algorithm[name], value, rtol=0, atol=0)
    assert checkpoint.load_agent(path) == (SPEC, AGENT, saved.weights)


def test_tensors_that_share_memory_are_saved(tmp_path):
    shared = torch.ones(4)
    loaded = checkpoint.load(
        checkpoint.save(tmp_path, make(algorithm={"a": shared, "b": shared[:2]}), keep=1)
    )
    assert {name: value.tolist() for name, value in loaded.algorithm.items()} == {"a": [1] * 4, "b": [1] * 2}


def test_the_newest_are_kept_and_found_by_number(tmp_path):
    assert checkpoint.latest(tmp_path) is None
    for step in (90_000_000, 100_000_000, 5, 7):
        checkpoint.save(tmp_path, make(step), keep=3)
    assert steps(tmp_path) == [7, 90_000_000, 100_000_000]
    assert checkpoint.load(checkpoint.latest(tmp_path)).step == 100_000_000


def test_saving_a_step_again_keeps_what_is_there(tmp_path):
    first = checkpoint.save(tmp_path, make(3), keep=1)
    assert checkpoint.save(tmp_path, make(3), keep=1) == first
    assert checkpoint.load(first).step == 3


def test_an_incomplete_checkpoint_is_passed_over_and_replaced(tmp_path):
    checkpoint.save(tmp_path, make(1), keep=3)
    broken = checkpoint.save(tmp_path, make(2), keep=3)
    (broken / "DONE").unlink()
    assert checkpoint.load(checkpoint.latest(tmp_path)).step == 1
    with pytest.raises(CheckpointError, match="step_00000002 is no complete checkpoint"):
        checkpoint.load(broken)
    assert checkpoint.load(checkpoint.save(tmp_path, make(2), keep=3)).step == 2


KILLED_AT_EVERY_STEP = """
import os, signal, sys
from pathlib import Path
from learner import checkpoint
from tests.learner.test_checkpoint import make, steps

run_dir = Path(sys.argv[1])
checkpoint.save(run_dir, make(0), keep=2)
checkpoint.save(run_dir, make(1), keep=2)
remaining = 0

def kill_at(event, _args):
    global remaining
    if event in EVENTS:
        remaining -= 1
        if remaining == 0:
            os.kill(os.getpid(), signal.SIGKILL)

EVENTS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir"}
killed = 0
while True:
    child = os.fork()
    if child == 0:
        remaining = killed + 1
        sys.addaudithook(kill_at)
        checkpoint.save(run_dir, make(2), keep=2)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    newest = checkpoint.load(checkpoint.latest(run_dir))
    if status == 0:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL, status
    killed += 1
    assert newest.step in (1, 2) and newest.weights.data == b"agent at %d" % newest.step
    for path in (run_dir / "checkpoints").glob("step_*"):
        checkpoint.load(path)
    if newest.step == 2:  # renamed already: take it away, so that the next child writes it again
        checkpoint._remove(checkpoint.latest(run_dir))
        if checkpoint.load(checkpoint.latest(run_dir)).step == 1:
            checkpoint.save(run_dir, make(0), keep=2)
assert newest.step == 2
checkpoint.save(run_dir, make(3), keep=2)
assert steps(run_dir) == [2, 3], steps(run_dir)
print(killed)
"""


def test_a_writer_killed_anywhere_leaves_whole_checkpoints(tmp_path):
    """The process dies before its first, second, ... change to the directory."""
    program = [sys.executable, "-c", KILLED_AT_EVERY_STEP, str(tmp_path)]
    result = subprocess.run(program, capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) >= 10


@pytest.mark.parametrize("name", ["algorithm.safetensors", "agent.safetensors", "state.json", "DONE"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damage_is_found_and_named(tmp_path, name, damage):
    path = checkpoint.save(tmp_path, make(4), keep=3)
    data = bytearray((path / name).read_bytes())
    if damage == "remove":
        (path / name).unlink()
    else:
        data[len(data) // 2] ^= 1
        (path / name).write_bytes(data if damage == "flip" else data[:-5])
    with pytest.raises(CheckpointError, match="step_00000004"):
        checkpoint.load(path)


def test_a_checkpoint_of_another_format_is_refused(tmp_path):
    path = checkpoint.save(tmp_path, make(4), keep=3)
    state = json.loads((path / "state.json").read_bytes())
    data = json.dumps({**state, "format": 99}).encode()
    (path / "state.json").write_bytes(data)
    digests = json.loads((path / "DONE").read_bytes())
    (path / "DONE").write_text(json.dumps({**digests, "state.json": checkpoint._digest(data)}))
    for load in (checkpoint.load, checkpoint.load_agent):
        with pytest.raises(CheckpointError, match="format 99, not 1"):
            load(path)


@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
def test_training_goes_on_as_if_nothing_had_happened(tmp_path, algorithm):
    """The target copy falls due after the checkpoint, the optimiser has moments, the generator has run."""
    settings = LearnerSettings(algorithm=algorithm, target_update_episodes=4)
    batches = [
        decode_batch([encode_episode(make_episode(length=2 + s, seq=8 * s + i)) for i in range(1, 4)], SPEC)
        for s in range(6)
    ]

    agent = AGENT.model_copy(update={"action_choice": ALGORITHMS[algorithm].action_choice})

    def build(seed):
        return build_algorithm(
            SPEC, agent, settings, exploration=ExplorationSettings(), device=CPU, seed=seed
        )

    original = build(seed=1)
    for batch in batches[:3]:
        original.train_step(batch)
    saved = make(
        3,
        settings=settings,
        algorithm=original.state_dict(),
        weights=pack_weights(original.agent, session="learner-1", version=3),
    )
    path = checkpoint.save(tmp_path, saved, keep=1)
    resumed = build(seed=2)
    resumed.load_state_dict(checkpoint.load(path).algorithm)
    spec, agent_settings, weights = checkpoint.load_agent(path)
    player = AgentNetwork(spec, agent_settings)
    load_weights(player, weights)
    for name, value in original.agent.state_dict().items():
        torch.testing.assert_close(player.state_dict()[name], value, rtol=0, atol=0)

    for batch in batches[3:]:
        original.train_step(batch)
        resumed.train_step(batch)
    expected, actual = original.state_dict(), resumed.state_dict()
    assert expected.keys() == actual.keys()
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=0, atol=0, msg=name)
