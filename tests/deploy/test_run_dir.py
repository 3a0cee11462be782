"""The run directory, and the small readers of what is in it."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import BadInputError, FatalError
from deploy.address import claim_address, split_address
from deploy.metrics_tail import MetricsTail
from deploy.process_usage import ProcessUsage
from deploy.rate import Rate
from deploy.run_dir import Elapsed, RunDir


def test_a_new_run_does_not_touch_what_is_there(tmp_path):
    (tmp_path / "precious").write_text("")
    with pytest.raises(BadInputError, match=f"--resume {tmp_path}"):
        RunDir.create(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_a_new_run_may_use_an_empty_directory(tmp_path):
    assert RunDir.create(tmp_path).root == tmp_path
    assert RunDir.create(tmp_path / "a" / "b").root.is_dir()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(BadInputError, match="cannot be made"):
        RunDir.create(file / "run")


def test_only_a_run_can_be_gone_on_with(tmp_path):
    with pytest.raises(BadInputError, match=r"no config\.yaml"):
        RunDir.existing(tmp_path)


def test_elapsed_time_outlives_the_launcher(tmp_path):
    files = RunDir(tmp_path)
    assert files.elapsed() == Elapsed(wall_s=0.0, restarts=0)
    files.save_elapsed(Elapsed(wall_s=12.5, restarts=3))
    assert RunDir(tmp_path).elapsed() == Elapsed(wall_s=12.5, restarts=3)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_broken_file_is_named_with_what_to_do(tmp_path, content):
    (tmp_path / "elapsed.json").write_bytes(content)
    with pytest.raises(BadInputError, match=r"elapsed\.json cannot be read .* remove it"):
        RunDir(tmp_path).elapsed()


HOLDER = """
import sys
from pathlib import Path
from deploy.run_dir import RunDir
with RunDir(Path(sys.argv[1])).locked():
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_run_has_one_launcher_and_its_lock_dies_with_it(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(FatalError, match=str(tmp_path)), RunDir(tmp_path).locked():
            pass
        holder.send_signal(signal.SIGKILL)
    with RunDir(tmp_path).locked():
        pass


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_metrics_are_followed_line_by_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    tail = MetricsTail(path)
    tail.refresh()
    assert (tail.learner_step, tail.losses) == (0, {})
    append(
        path, json.dumps({"learner_step": 50, "loss/td": 0.5, "loss/kl_ac": None, "learner/steps": 3}) + "\n"
    )
    append(path, '{"learner_step": 100, "loss/td"')
    tail.refresh()
    assert (tail.learner_step, tail.losses) == (50, {"td": 0.5})
    append(path, ": 0.25}\n" + json.dumps({"learner_step": 90, "test/win_rate": 0.5}) + "\n")
    tail.refresh()
    assert (tail.learner_step, tail.losses) == (100, {"td": 0.25})


def test_a_rate_is_that_of_its_window():
    rate = Rate(window_s=10.0)
    assert rate.per_s == 0.0
    for second in range(100):
        rate.note(second, 2 * second if second < 50 else 100 + 7 * (second - 50))
    assert rate.per_s == pytest.approx(7.0)


def test_a_rate_survives_a_counter_that_begins_anew():
    rate = Rate()
    for now_s, value in ((0, 100), (1, 200), (2, 5), (3, 8)):
        rate.note(now_s, value)
    assert rate.per_s == pytest.approx(3.0)


def test_usage_counts_what_a_process_started():
    parent = (
        "import subprocess, sys; child = subprocess.Popen(['sleep', '1000']); print(child.pid, flush=True); "
    )
    parent += "sys.stdin.read(); child.kill(); child.wait()"
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        child = int(process.stdout.readline())
        _, both = ProcessUsage().of(process.pid)
        _, alone = ProcessUsage().of(child)
    assert both > alone > 0
    assert ProcessUsage().of(process.pid) == (0.0, 0)
    assert ProcessUsage().of(None) == (0.0, 0)


def test_a_chosen_port_is_free_and_not_one_of_outgoing_connections():
    host, port = split_address(claim_address("127.0.0.1:0"))
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert 20_000 <= port < first
    with socket.socket() as server:
        server.bind((host, port))


def test_a_taken_port_is_refused_before_anything_starts():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(FatalError, match=f"{address}.*--address"):
            claim_address(address)


@pytest.mark.parametrize("address", ["localhost", ":50051", "host:", "host:http", "host:70000", "host:-1"])
def test_an_address_is_host_and_port(address):
    with pytest.raises(ValueError, match=r"rpc\.address"):
        split_address(address)
