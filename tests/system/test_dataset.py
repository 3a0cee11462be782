"""`vdfd train --dataset`: learns from episodes that others have played, and from nothing else."""

import dataclasses
import json

import pytest

from common.errors import EXIT_BAD_INPUT
from deploy.run_dir import RunDir
from tests.deploy.dataset.made import rows, write
from tests.episodes import SPEC
from tests.system.launcher import TINY, Launcher

pytestmark = pytest.mark.timeout(300)
PLAYED = dataclasses.replace(SPEC, env="smax", map="2s3z")


def test_every_episode_is_trained_on_as_often_as_the_ratio_says(tmp_path):
    made = write(tmp_path / "set", rows(40, spec=PLAYED), spec=PLAYED)
    run = tmp_path / "run"
    arguments = ("--run-dir", run, "--algo", "qmix", "--dataset", tmp_path / "set")
    with Launcher(*arguments, *TINY) as training:
        training.wait_for_line("learner running")
        assert {name for name in ("actor", "evaluator") if _runs(training, name)} == set()
        training.kill_child("learner")
        assert training.wait_for_end() == 0, training.output
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["episodes"], summary["env_steps"]) == (40, made.env_steps)
    assert summary["samples_per_insert"] == 4.0
    assert summary["learner_steps"] == 40 * 4 // 4
    assert sorted(path.stem for path in RunDir(run).logs.glob("*.log")) == [
        "cluster",
        "import",
        "learner",
        "replay",
    ]
    with Launcher("--run-dir", tmp_path / "other", "--dataset", tmp_path / "set", "--map", "3m") as refused:
        assert refused.wait_for_end() == EXIT_BAD_INPUT
    assert "is of smax 2s3z, not of smax 3m" in refused.output


def _runs(training, role):
    return any(role in process.cmdline() for process in training.children())
