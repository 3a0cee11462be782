"""How long torch's threads stay awake when they have nothing to do."""

import os
from collections.abc import MutableMapping


def let_idle_threads_sleep(environment: MutableMapping[str, str] = os.environ) -> None:
    """To be called before torch is loaded.

    By default they look for their next task for several milliseconds, and whoever else has work for that core
    (learner/shares.py) waits. Now they sleep after half a millisecond. At once would be slower, since most
    operations follow each other closely. Whoever sets the variable in the environment has their way.
    """
    environment.setdefault("GOMP_SPINCOUNT", "20000")
