"""The first signal asks a process to drain and wakes its waits; the second ends it."""

import signal
import subprocess
import sys
import threading

from common.lifecycle import EXIT_KILLED_TWICE, StopSignal

PROGRAM = """
import signal, threading
from common.lifecycle import StopSignal

stop, woken = StopSignal(), threading.Event()
stop.install()
stop.call_when_set(woken.set)
signal.raise_signal(signal.SIGTERM)
assert stop.wait(30) and stop.is_set() and woken.wait(30)
print("drained", flush=True)
signal.raise_signal(signal.SIGINT)
raise SystemExit("the second signal did not end the process")
"""


def test_the_first_signal_drains_and_the_second_ends():
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (EXIT_KILLED_TWICE, "drained\n", "")


def test_every_callback_is_called_once_whenever_it_came():
    stop, calls = StopSignal(), []
    stop.call_when_set(lambda: calls.append("early"))
    stop.set()
    stop.call_when_set(lambda: calls.append("late"))
    stop.set()
    assert calls == ["early", "late"]


def test_a_signal_ends_a_wait_of_the_main_thread():
    stop = StopSignal()
    previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        stop.install()
        main = threading.main_thread().ident
        threading.Thread(target=lambda: signal.pthread_kill(main, signal.SIGTERM)).start()
        assert stop.wait(30)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
