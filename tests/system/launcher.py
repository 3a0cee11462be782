"""`vdfd train` as a child process whose output tells a test when to act."""

import re
import signal
import subprocess
import sys

import psutil

# A run of seconds: short episodes, small networks, figures printed as often as possible.
TINY = (
    "actor.copies=4",
    "agent.hidden_size=8",
    "env.options.episode_limit=12",
    "learner.batch_size=4",
    "learner.checkpoint_every_steps=20",
    "learner.health_every_steps=50",
    "learner.log_every_steps=10",
    "learner.mixer.embed_size=4",
    "learner.mixer.hypernet_size=4",
    "replay.evaluation_episodes=2",
    "replay.evaluation_interval=500",
    "replay.evaluation_lease_s=5",
    "replay.insert_lead_episodes=8",
    "replay.samples_per_insert=4",
    "supervisor.log_interval_s=0.05",
    "supervisor.status_interval_s=0.05",
)
_PROGRESS = re.compile(r"\d (\w+): ([\d,]+) of [\d,]+ steps .*samples per insert ([\d.]+)")


class Launcher:
    """A running `vdfd train` and what it has printed so far."""

    def __init__(self, *arguments):
        command = [sys.executable, "-m", "deploy.cli", "train", *map(str, arguments)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.lines = []
        self.env_steps = []
        """Of every line of progress."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.communicate()

    @property
    def output(self):
        return "".join(self.lines)

    def wait_for_line(self, text):
        while text not in self._next_line():
            pass

    def wait_for_steps(self, env_steps):
        while not self.env_steps or self.env_steps[-1] < env_steps:
            self._next_line()

    def wait_for_end(self):
        """The exit code."""
        for line in self._process.stdout:
            self._take(line)
        return self._process.wait()

    def send(self, number):
        self._process.send_signal(number)

    def child(self, role):
        """The present process of a role ("learner"), or of an actor ("actor-0")."""
        (found,) = [process for process in self.children() if role in process.cmdline()]
        return found

    def children(self):
        return [p for p in psutil.Process(self._process.pid).children() if "deploy.cli" in p.cmdline()]

    def kill_child(self, role):
        self.child(role).send_signal(signal.SIGKILL)
        self.wait_for_line(f"{role} ended (killed by SIGKILL)")

    def _next_line(self):
        line = self._process.stdout.readline()
        assert line, f"the run ended with {self._process.wait()}:\n{self.output[-3000:]}"
        return self._take(line)

    def _take(self, line):
        self.lines.append(line)
        if found := _PROGRESS.search(line):
            self.env_steps.append(int(found[2].replace(",", "")))
        return line
