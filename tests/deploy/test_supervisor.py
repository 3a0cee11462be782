"""The supervisor with real child processes: restarts, giving up, the order of stopping, nothing left behind.

Children tell what they do through a named pipe, so that tests wait for events and not for time. A pipe
that is at its end proves that every process that held it is gone.
"""

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from common.errors import EXIT_BAD_INPUT, FatalError
from deploy.settings import SupervisorSettings
from deploy.supervisor import ProcessSpec, State, Supervisor, child_environment

FAST = SupervisorSettings(restart_delay_s=0.01, restart_delay_max_s=0.02, max_failures=3)


class Pipe:
    """A named pipe that children write lines to."""

    def __init__(self, path):
        self.path = path
        os.mkfifo(path)
        self._reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        # Keeps the pipe from being at its end before the first child has opened it.
        self._writer = os.open(path, os.O_WRONLY)
        self.stream = None

    async def open(self):
        self.stream = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(self.stream)
        file = os.fdopen(self._reader, "rb", buffering=0)
        self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, file)
        return self

    async def line(self):
        return (await self.stream.readline()).decode().strip()

    async def end(self):
        os.close(self._writer)
        rest = await self.stream.read()
        return rest.decode().split()

    def close(self):
        self._transport.close()


@pytest.fixture
async def pipe(tmp_path):
    made = await Pipe(tmp_path / "pipe").open()
    yield made
    made.close()


@pytest.fixture
async def supervisor(tmp_path):
    made = Supervisor(FAST, tmp_path, lambda _event: None)
    yield made
    made.kill()
    await made.stop()


def shell(name, script, *, stop_order=0, stop_timeout_s=20.0, is_done=None):
    return ProcessSpec(
        name=name,
        command=("sh", "-c", script),
        stop_order=stop_order,
        stop_timeout_s=stop_timeout_s,
        is_done=is_done,
    )


def announcing(pipe, then):
    """A script that writes its pid, holding the pipe open, and goes on with `then`."""
    return f"exec 3>{pipe.path}; echo $$ >&3; {then}"


def waiting_for_term(pipe, name):
    trap = f"exec 3>{pipe.path}; trap 'echo {name} >&3; exit 0' TERM"
    return f"{trap}; {announcing(pipe, 'while :; do sleep 0.05; done')}"


async def outcome(supervisor, process):
    """Waits for the end of one process."""
    await asyncio.wait([supervisor.task_of(process)])
    supervisor.raise_if_given_up()


async def test_a_killed_process_is_started_again_and_counted(supervisor, pipe):
    process = supervisor.start(shell("actor", announcing(pipe, "exec sleep 1000")))
    pids = [int(await pipe.line())]
    for _ in range(2):
        os.kill(pids[-1], signal.SIGKILL)
        pids.append(int(await pipe.line()))
    assert len(set(pids)) == 3
    assert (process.restarts, process.pid) == (2, pids[-1])
    await supervisor.stop()
    assert process.state is State.STOPPED
    assert await pipe.end() == []


async def test_what_a_killed_process_started_dies_before_it_is_started_again(supervisor, pipe):
    once = f"if [ -e {pipe.path}.second ]; then exit 0; fi; touch {pipe.path}.second"
    script = f"{once}; exec 3>{pipe.path}; sleep 1000 & echo $$ >&3; wait"

    async def done():
        return True

    process = supervisor.start(shell("replay", script, is_done=done))
    os.kill(int(await pipe.line()), signal.SIGKILL)
    await outcome(supervisor, process)
    assert process.state is State.FINISHED
    # The sleep held the pipe: it ends only because it was killed with its parent.
    assert await pipe.end() == []


async def test_repeated_failure_is_given_up_with_the_end_of_the_log(supervisor):
    process = supervisor.start(shell("learner", "echo the disk is full; exit 3"))
    with pytest.raises(
        FatalError, match=r"learner failed 3 times in a row \(exit code 3\)(.|\n)*the disk is full"
    ):
        await outcome(supervisor, process)
    assert (process.state, process.restarts) == (State.FAILED, 2)


async def test_a_failure_after_a_healthy_life_begins_a_new_row(tmp_path, pipe):
    always_healthy = FAST.model_copy(update={"healthy_after_s": 1e-9, "max_failures": 2})
    supervisor = Supervisor(always_healthy, tmp_path, lambda _event: None)
    process = supervisor.start(shell("actor", announcing(pipe, "exit 1")))
    for _ in range(5):
        await pipe.line()
    await supervisor.stop()
    assert process.restarts >= 4


async def test_the_sentence_of_a_fatal_error_is_passed_on(supervisor):
    process = supervisor.start(shell("replay", "echo vdfd: Port 1 is taken.; exit 1"), must_not_fail=True)
    with pytest.raises(FatalError) as raised:
        await outcome(supervisor, process)
    assert str(raised.value) == "replay failed: Port 1 is taken."


async def test_bad_input_is_not_tried_again(supervisor):
    process = supervisor.start(shell("actor", "echo vdfd: no such map; exit 2"))
    with pytest.raises(FatalError, match="no such map") as raised:
        await outcome(supervisor, process)
    assert (process.restarts, raised.value.code) == (0, EXIT_BAD_INPUT)


async def test_exit_code_0_ends_a_process_only_when_its_work_is_done(supervisor):
    answers = iter([False, False, True])

    async def is_done():
        return next(answers)

    process = supervisor.start(shell("actor", "exit 0", is_done=is_done))
    assert not supervisor.all_finished()
    await outcome(supervisor, process)
    assert (process.state, process.restarts) == (State.FINISHED, 2)
    assert supervisor.all_finished()


async def test_processes_stop_in_their_order(supervisor, pipe):
    for order, name in ((2, "replay"), (0, "actor"), (1, "learner")):
        supervisor.start(shell(name, waiting_for_term(pipe, name), stop_order=order))
    for _ in range(3):
        await pipe.line()
    await supervisor.stop()
    await supervisor.stop()
    assert await pipe.end() == ["actor", "learner", "replay"]
    assert {process.state for process in supervisor.processes} == {State.STOPPED}


async def test_a_process_that_ignores_sigterm_is_killed(supervisor, pipe):
    deaf = f"trap '' TERM; {announcing(pipe, 'while :; do sleep 1000; done')}"
    process = supervisor.start(shell("actor", deaf, stop_timeout_s=0.1))
    await pipe.line()
    await supervisor.stop()
    assert process.state is State.STOPPED
    assert await pipe.end() == []


async def test_a_stop_during_the_pause_before_a_restart_ends_it(tmp_path):
    patient = FAST.model_copy(update={"restart_delay_s": 1000.0, "restart_delay_max_s": 1000.0})
    ended = asyncio.Event()
    supervisor = Supervisor(patient, tmp_path, lambda _event: ended.set())
    process = supervisor.start(shell("actor", "exit 1"))
    await ended.wait()
    await supervisor.stop()
    assert (process.state, process.restarts) == (State.STOPPED, 0)


LAUNCHER = """
import asyncio, sys
from pathlib import Path
from deploy.settings import SupervisorSettings
from deploy.supervisor import ProcessSpec, Supervisor

async def main():
    supervisor = Supervisor(SupervisorSettings(), Path(sys.argv[1]), print)
    for name in ("one", "two"):
        command = ("sh", "-c", sys.argv[2])
        supervisor.start(ProcessSpec(name=name, command=command, stop_order=0, stop_timeout_s=1))
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_no_child_outlives_a_killed_launcher(tmp_path, pipe):
    script = announcing(pipe, "exec sleep 1000")
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCHER, str(tmp_path), script])
    await pipe.line()
    await pipe.line()
    launcher.kill()
    launcher.wait()
    assert await pipe.end() == []


async def test_children_do_not_inherit_the_configuration(monkeypatch):
    monkeypatch.setenv("VDFD_ENV__MAP", "2s3z")
    monkeypatch.setenv("OTHER", "kept")
    environment = child_environment()
    assert "VDFD_ENV__MAP" not in environment
    assert environment["OTHER"] == "kept"
