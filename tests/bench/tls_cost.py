"""What TLS and tokens cost: episodes inserted per second over a stream, in the clear and encrypted in turns.

python -m tests.bench.tls_cost [SECONDS_PER_ROUND [ROUNDS]]
"""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.deploy.made_secrets import make_secrets, rpc_settings
from tests.replay.running import message, serving

GROUP = 8
LENGTH = 60
IN_FLIGHT = 4


async def rate(seconds: float, **settings) -> tuple[float, float]:
    """Episodes and megabytes per second; the service keeps everything in memory and holds nothing back."""
    async with serving(insert_lead_episodes=10**9, window_episodes=64, **settings) as client:
        await client.register()
        stream, stored, size, seq = client.inserting(), 0, 0, 0
        # Packed before the clock runs.
        groups = [[message(n + 1, length=LENGTH) for n in range(GROUP)] for _ in range(64)]
        payload = sum(len(episode.payload) for episode in groups[0])
        began = time.monotonic()
        sent = 0
        while time.monotonic() - began < seconds:
            episodes = groups[sent % len(groups)]
            for episode in episodes:
                seq += 1
                episode.meta.seq = seq
            await stream.send(*episodes)
            sent += 1
            if sent > IN_FLIGHT:
                await stream.receive()
                stored += GROUP
                size += payload
        elapsed = time.monotonic() - began
        for _ in range(min(sent, IN_FLIGHT)):
            await stream.receive()
        await stream.end()
        return stored / elapsed, size / elapsed / 1e6


async def main(seconds: float, rounds: int) -> None:
    """Prints the medians and their ratio."""
    with tempfile.TemporaryDirectory() as directory:
        secrets = make_secrets(Path(directory) / "secrets")
        encrypted = {
            "rpc_settings": rpc_settings(secrets, "replay", token=False),
            "client_settings": rpc_settings(secrets, "actor"),
            "tokens_file": str(secrets / "replay" / "tokens"),
        }
        results: dict[str, list[tuple[float, float]]] = {"clear": [], "TLS": []}
        for _ in range(rounds):
            results["clear"].append(await rate(seconds))
            results["TLS"].append(await rate(seconds, **encrypted))
    medians = {name: statistics.median(episodes for episodes, _ in taken) for name, taken in results.items()}
    for name, taken in results.items():
        traffic = statistics.median(megabytes for _, megabytes in taken)
        print(f"{name:6} {medians[name]:8.0f} episodes/s {traffic:7.1f} MB/s")
    print(f"TLS costs {100 * (1 - medians['TLS'] / medians['clear']):.1f} % of the inserts per second")


if __name__ == "__main__":
    arguments = [float(argument) for argument in sys.argv[1:]]
    asyncio.run(main(arguments[0] if arguments else 5.0, int(arguments[1]) if len(arguments) > 1 else 5))
