"""Two runs of one seed in lockstep train the same weights."""

import hashlib

import pytest

from tests.system.launcher import TINY, Launcher

pytestmark = pytest.mark.timeout(300)


def _weights(run_dir) -> dict[str, str]:
    """Checkpoint -> hash of networks, targets, optimiser and random state."""
    arguments = ("--run-dir", run_dir, "--algo", "vdfd", "--deterministic", "--steps", 500)
    keep = ("learner.keep_checkpoints=100", "replay.evaluation_interval=100000")
    tiny = (setting for setting in TINY if "actor.copies" not in setting and "lead_episodes" not in setting)
    with Launcher(*arguments, *tiny, *keep) as run:
        assert run.wait_for_end() == 0, run.output
    states = (run_dir / "checkpoints").glob("step_*/algorithm.safetensors")
    return {state.parent.name: hashlib.sha256(state.read_bytes()).hexdigest() for state in states}


def test_one_seed_gives_one_result(tmp_path):
    first, again = _weights(tmp_path / "first"), _weights(tmp_path / "again")
    assert len(first) >= 2 and len(set(first.values())) == len(first), "training changes the weights"
    assert first == again
