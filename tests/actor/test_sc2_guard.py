"""Clients, folders and ports that outlive nobody. The client here is any program; it needs no smac."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from actor import sc2_guard
from actor.sc2_folder import PREFIX, ClientFolder, remove_abandoned
from actor.sc2_port import PortReservation
from common.errors import FatalError

# A client with a child of its own, as a shell script that starts the game would have; prints both numbers.
CLIENT = ("sh", "-c", "sleep 600 & echo $$ $!; wait")
END_S = 20


def start_guard(folder, *command):
    return subprocess.Popen(
        (sys.executable, "-I", "-S", sc2_guard.__file__, str(folder), *command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def start_python(code):
    command = (sys.executable, "-c", textwrap.dedent(code))
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "client"
    path.mkdir()
    (path / "file").touch()
    return path


@pytest.fixture
def guard(folder):
    with start_guard(folder, *CLIENT) as process:
        yield process
        process.kill()


def clients_of(guard):
    """The client and its child, once they run."""
    return [psutil.Process(int(pid)) for pid in guard.stdout.readline().split()]


def assert_gone(processes):
    _, alive = psutil.wait_procs(processes, timeout=END_S)
    assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []


def test_closing_its_input_ends_the_client_and_all_its_children(guard, folder):
    clients = clients_of(guard)
    guard.stdin.close()
    assert guard.wait(END_S) == 128 + signal.SIGKILL
    assert_gone(clients)
    assert not folder.exists()


def test_sigterm_does_the_same(guard, folder):
    clients = clients_of(guard)
    guard.terminate()
    guard.wait(END_S)
    assert_gone(clients)
    assert not folder.exists()


def test_a_killed_guard_takes_its_client_along(folder):
    with start_guard(folder, "sh", "-c", "echo $$; exec sleep 600") as guard:
        clients = clients_of(guard)
        guard.kill()
        assert_gone(clients)


def test_a_killed_owner_leaves_nothing(folder):
    with start_python(
        f"""
        import os, signal
        from tests.actor.test_sc2_guard import CLIENT, start_guard
        guard = start_guard({str(folder)!r}, *CLIENT)
        print(guard.pid, guard.stdout.readline(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    ) as owner:
        printed, _ = owner.communicate()
    assert owner.returncode == -signal.SIGKILL
    assert_gone([process for process in psutil.process_iter() if str(process.pid) in printed.split()])
    assert not folder.exists()


def test_a_client_that_ends_by_itself_tells_its_exit_code(folder):
    with start_guard(folder, "sh", "-c", "sleep 600 & exit 7") as guard:
        assert guard.wait(END_S) == 7
        assert guard.stdout.read() == ""  # its child is gone too, or this would wait for it
    assert not folder.exists()


def test_folders_in_use_stay_and_abandoned_ones_go(tmp_path):
    mine = ClientFolder(tmp_path)
    with start_python(
        f"""
        import os, pathlib, sys
        from actor.sc2_folder import ClientFolder
        print(ClientFolder(pathlib.Path({str(tmp_path)!r})).path, flush=True)
        sys.stdin.read()
        os._exit(1)
        """
    ) as other:
        path = other.stdout.readline().strip()
        assert remove_abandoned(tmp_path) == []
        other.stdin.close()
        other.wait(END_S)
        (tmp_path / path / "left").touch()
    assert [str(gone) for gone in remove_abandoned(tmp_path)] == [path]
    assert list(tmp_path.iterdir()) == [mine.path]
    mine.remove()
    mine.remove()  # harmless
    assert list(tmp_path.iterdir()) == []


def test_the_maker_of_a_folder_removes_abandoned_ones(tmp_path):
    left = tmp_path / f"{PREFIX}left"
    left.mkdir()
    (left / "lock").touch()
    folder = ClientFolder(tmp_path)
    assert list(tmp_path.iterdir()) == [folder.path]
    folder.remove()


def test_a_folder_without_a_lock_may_be_being_made(tmp_path):
    young, old = tmp_path / f"{PREFIX}young", tmp_path / f"{PREFIX}old"
    for path in (young, old):
        path.mkdir()
    hour_ago = time.time() - 3600
    os.utime(old, (hour_ago, hour_ago))
    assert remove_abandoned(tmp_path) == [old]


def test_no_port_is_reserved_twice():
    ports = range(21_000, 21_032)
    taken = [PortReservation(ports) for _ in ports]
    assert {reservation.port for reservation in taken} == set(ports)
    with pytest.raises(FatalError, match="No port from 21000 to 21031 is free"):
        PortReservation(ports)
    taken[5].close()
    taken[5].close()  # harmless
    again = PortReservation(ports)
    assert again.port == taken[5].port
    for reservation in (*taken, again):
        reservation.close()


def test_processes_that_reserve_at_once_get_different_ports():
    code = """
        import sys
        from actor.sc2_port import PortReservation
        reserved = [PortReservation(range(22000, 22032)) for _ in range(8)]
        print(*(reservation.port for reservation in reserved), flush=True)
        sys.stdin.read()
        """
    processes = [start_python(code) for _ in range(4)]
    ports = [port for process in processes for port in process.stdout.readline().split()]
    for process in processes:
        process.communicate()
    assert len(ports) == len(set(ports)) == 32


def test_a_port_in_use_is_not_given_out():
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(FatalError):
        PortReservation([server.getsockname()[1]])
