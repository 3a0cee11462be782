"""A replay service in a process of its own, for tests that kill it: prints its address, then serves."""

import asyncio
import sys
from pathlib import Path

from common.lifecycle import StopSignal
from common.settings import RpcSettings
from replay.server import serve
from replay.settings import ReplaySettings
from tests.replay.running import BATCH_SIZE, NO_END

if __name__ == "__main__":
    stop = StopSignal()
    stop.install()
    asyncio.run(
        serve(
            ReplaySettings.model_validate_json(sys.argv[2]),
            RpcSettings(address="127.0.0.1:0"),
            seed=1,
            total_env_steps=int(sys.argv[3]) if len(sys.argv) > 3 else NO_END,
            batch_size=BATCH_SIZE,
            data_dir=Path(sys.argv[1]),
            stop=stop,
            on_ready=lambda address: print(address, flush=True),
        )
    )
