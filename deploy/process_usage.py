"""CPU and memory of processes and of what they started, from the operating system."""

from collections.abc import Iterator

import psutil


class ProcessUsage:
    """Looks at one process tree after another; CPU is measured between two looks."""

    def __init__(self) -> None:
        self._known: dict[int, psutil.Process] = {}

    def of(self, pid: int | None) -> tuple[float, int]:
        """(CPU in percent of one core, resident bytes) of a process with all its descendants."""
        cpu_percent, memory_bytes = 0.0, 0
        for process in self._tree(pid):
            try:
                with process.oneshot():
                    cpu_percent += process.cpu_percent(None)
                    memory_bytes += process.memory_info().rss
            except psutil.Error:
                self._known.pop(process.pid, None)  # it ended while it was looked at
        return cpu_percent, memory_bytes

    def _tree(self, pid: int | None) -> Iterator[psutil.Process]:
        if pid is None:
            return
        try:
            root = psutil.Process(pid)
            family = [root, *root.children(recursive=True)]
        except psutil.Error:
            return  # it ended a moment ago
        for process in family:
            # The object that was there at the last look knows the CPU time of then.
            known = self._known.get(process.pid)
            if known is None or known != process:
                known = self._known[process.pid] = process
            yield known
