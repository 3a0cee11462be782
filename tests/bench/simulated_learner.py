"""A learner that waits instead of computing; all else of it is real. A process for tests.bench.game_pace.

It reads and unpacks batches, "trains" for a fixed time without a processor, as if a GPU did it, and publishes
weights of the real size every ten steps.

    python -m tests.bench.simulated_learner ADDRESS METRICS_PORT STEP_MS
"""

import sys
import threading

from common import rpc
from common.agent import AgentNetwork, pack_weights
from common.lifecycle import StopSignal
from common.metrics import serving_metrics
from common.settings import AgentSettings, MetricsSettings, RpcSettings
from learner import metrics
from learner.replay_reader import ReplayReader
from learner.settings import LearnerSettings
from learner.startup import wait_for_spec
from learner.weights_publisher import WeightsPublisher


def main(address: str, metrics_port: int, step_ms: float) -> None:
    settings, rpc_settings, stop = LearnerSettings(), RpcSettings(address=address), StopSignal()
    stop.install()
    steps, training = 0, threading.Event()
    with rpc.channel(rpc_settings) as channel:
        spec = wait_for_spec(channel, rpc_settings, stop)
        if spec is None:
            return
        network = AgentNetwork(spec, AgentSettings())
        publisher = WeightsPublisher(channel, rpc_settings)
        reader = ReplayReader(
            channel,
            rpc_settings,
            spec,
            batch_size=settings.batch_size,
            prefetch_batches=settings.prefetch_batches,
        )
        stop.call_when_set(reader.close)

        def collect():
            stats = reader.stats()
            yield metrics.STEPS(steps)
            yield metrics.DATA_WAIT(stats.wait_s)
            yield metrics.LIMITER_WAIT(stats.limiter_wait_s)
            yield metrics.DECODE(stats.decode_s)
            yield metrics.RECEIVED_BYTES(stats.received_bytes)

        with serving_metrics(MetricsSettings(serve=True, port=metrics_port), collect):
            for _ in reader:
                training.wait(step_ms / 1e3)  # nobody sets it
                steps += 1
                if steps % settings.publish_every_steps == 0:
                    publisher.publish(pack_weights(network, session="simulated", version=steps))
        publisher.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
