"""Whole runs with real processes: to the end, through kills of every part, through Ctrl-C and --resume."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

from tests.system.launcher import TINY, Launcher

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("VDFD_")]:
        monkeypatch.delenv(name)


def processes_of(run_dir):
    return [
        process.info["cmdline"]
        for process in psutil.process_iter(["cmdline"])
        if str(run_dir) in " ".join(process.info["cmdline"] or ())
    ]


def metrics(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_a_run_reaches_its_end_although_every_part_is_killed(tmp_path):
    run_dir, steps = tmp_path / "run", 3_000
    with Launcher("--run-dir", run_dir, "--algo", "vdfd", "--actors", 1, "--steps", steps, *TINY) as run:
        for part, at in (("learner", 300), ("actor-0", 700), ("replay", 1_100), ("evaluator", 1_500)):
            run.wait_for_steps(at)
            run.kill_child(part)
        assert run.wait_for_end() == 0, run.output
    assert run.env_steps == sorted(run.env_steps), "the step count went back"
    assert processes_of(run_dir) == []

    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["restarts"] == 4
    assert steps <= summary["env_steps"] < steps + 12
    assert summary["samples_per_insert"] == pytest.approx(4, rel=0.05)
    assert summary["learner_steps"] == pytest.approx(summary["episodes"], rel=0.05)
    assert [point["env_steps"] for point in summary["evaluations"]] == list(range(500, steps + 1, 500))
    for file in ("config.yaml", "win_rate.png", "world_model.png"):
        assert (run_dir / file).stat().st_size > 0, file
    for log in ("learner", "actor-0", "cluster"):
        assert (run_dir / "logs" / f"{log}.log").stat().st_size > 0, log
    assert list((run_dir / "tensorboard").iterdir())
    assert list((run_dir / "checkpoints").glob("step_*/DONE"))
    assert max(record["env_steps"] for record in metrics(run_dir)) >= steps

    command = [sys.executable, "-m", "deploy.cli", "evaluate", str(run_dir), "--episodes", "4"]
    played = subprocess.run(command, capture_output=True, text=True)
    assert played.returncode == 0, played.stderr
    assert "of 4), 95 % interval" in played.stdout


def test_a_stopped_run_goes_on_where_it_was(tmp_path):
    run_dir = tmp_path / "run"
    with Launcher("--run-dir", run_dir, "--algo", "qmix", "--actors", 1, "--steps", 100_000, *TINY) as run:
        run.wait_for_steps(400)
        run.send(signal.SIGINT)
        assert run.wait_for_end() == 130
    assert f"vdfd train --resume {run_dir}" in run.lines[-1]
    assert processes_of(run_dir) == []
    assert not (run_dir / "summary.json").exists()
    stopped_at = run.env_steps[-1]
    saved = max((run_dir / "checkpoints").glob("step_*/DONE")).parent
    elapsed = json.loads((run_dir / "elapsed.json").read_text())

    # Fewer steps than were planned would be refused; the plan is cut so that the test ends soon.
    config = (run_dir / "config.yaml").read_text()
    (run_dir / "config.yaml").write_text(config.replace("100000", str(stopped_at + 100)))
    with Launcher("--resume", run_dir, "--steps", stopped_at + 300) as again:
        assert again.wait_for_end() == 0, again.output
    assert again.env_steps[1] >= stopped_at - 50, "acknowledged episodes are missing"
    assert f"going on from {saved}" in (run_dir / "logs" / "learner.log").read_text()
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["env_steps"] >= stopped_at + 300
    assert summary["samples_per_insert"] == pytest.approx(4, rel=0.05)
    assert summary["wall_s"] > elapsed["wall_s"]


def test_a_second_ctrl_c_ends_at_once(tmp_path):
    run_dir = tmp_path / "run"
    with Launcher("--run-dir", run_dir, "--steps", 1_000, *TINY) as run:
        run.wait_for_line("evaluator running")
        children = run.children()
        # Nobody can end in order while the service does not answer.
        run.child("replay").send_signal(signal.SIGSTOP)
        run.send(signal.SIGINT)
        run.wait_for_line("another Ctrl-C ends at once")
        run.send(signal.SIGINT)
        assert run.wait_for_end() == 130
    assert "--resume" not in run.output
    psutil.wait_procs(children, timeout=60)
    assert processes_of(run_dir) == []
