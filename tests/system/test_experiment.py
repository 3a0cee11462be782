"""An experiment with real runs: killed half-way and started again it ends with every run once."""

import json
import re
import signal
import subprocess
import sys

import psutil
import pytest

from tests.system.launcher import TINY

pytestmark = pytest.mark.timeout(300)

PLAN = f"""
presets: [qmix]
maps: [lbf/5x5-2p-1f-coop]
seeds: [1, 2]
steps: 600
jobs: 2
overrides: {json.dumps([*TINY, "run.actors=1", "replay.evaluation_interval=300"])}
"""
NAME = "qmix-lbf-5x5-2p-1f-coop-seed"


@pytest.fixture
def start(tmp_path):
    (tmp_path / "plan.yaml").write_text(PLAN)
    started = []

    def begin():
        command = [sys.executable, "-m", "deploy.cli", "experiment", str(tmp_path / "plan.yaml")]
        command += ["--dir", str(tmp_path / "all")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def read_until(process, pattern):
    lines = []
    for line in process.stdout:
        lines.append(line)
        if re.search(pattern, line):
            return lines
    raise AssertionError(f"{pattern} was not printed:\n{''.join(lines)}")


def test_killed_half_way_it_ends_with_every_run_once(start, tmp_path):
    root = tmp_path / "all"
    occupied = root / f"{NAME}2"
    occupied.mkdir(parents=True)
    (occupied / "notes.txt").write_text("somebody's")

    first = start()
    read_until(first, rf"{NAME}1 [1-9]\d?%")
    other = start()
    assert other.wait() == 1
    assert "Another vdfd experiment is at work" in other.stdout.read()
    runs = psutil.Process(first.pid).children(recursive=True)
    first.send_signal(signal.SIGKILL)
    assert psutil.wait_procs(runs, timeout=60)[1] == []

    second = start()
    output = second.communicate()[0]
    assert second.returncode == 1, output
    assert f"{NAME}2 failed" in output and "exists already" in output
    assert (occupied / "notes.txt").read_text() == "somebody's"
    summary = json.loads((root / f"{NAME}1" / "summary.json").read_text())
    assert [point["env_steps"] for point in summary["evaluations"]] == [300, 600]
    begun = re.findall(r"^--- .*", (root / "logs" / f"{NAME}1.log").read_text(), re.MULTILINE)
    assert ["--resume" in line for line in begun] == [False, True]
    assert {path.name for path in root.iterdir() if path.is_dir()} == {"logs", f"{NAME}1", f"{NAME}2"}

    third = start()
    output = third.communicate()[0]
    assert "1 of 2 runs are done already" in output
    assert f"{NAME}1 begins" not in output and f"{NAME}1 goes on" not in output
