"""What Prometheus sees of the learner; counters since the process started."""

import re
from collections.abc import Iterator, Mapping

from common.metrics import Figure, counter, gauge
from learner.learner import LearnerStats
from learner.recorder import RecorderStats
from learner.replay_reader import ReaderStats
from learner.weights_publisher import PublisherStats

STEP = gauge("vdfd_learner_step", "Learner steps of the run, those before a restart included.")
STEPS = counter("vdfd_learner_steps_total", "Learner steps of this process.")
TIME = counter(
    "vdfd_learner_part_seconds_total",
    "Time per part of the loop; what a GPU still has to do shows in the part that waits for it.",
    "part",
)
DATA_WAIT = counter("vdfd_learner_data_wait_seconds_total", "Time that training waited for batches.")
LIMITER_WAIT = counter(
    "vdfd_learner_limiter_wait_seconds_total",
    "The part of the data wait in which the rate limiter let no batch go: actors are too few.",
)
DECODE = counter("vdfd_learner_decode_seconds_total", "Time spent unpacking batches, beside training.")
RECEIVED_BYTES = counter("vdfd_learner_received_bytes_total", "Bytes of the batches received.")
STREAMS = counter("vdfd_learner_sample_streams_total", "Streams opened to the replay service.")
PUBLISHED = counter("vdfd_learner_weights_published_total", "Weights that the service has acknowledged.")
PUBLISHED_VERSION = gauge(
    "vdfd_learner_published_version", "Learner step of the newest acknowledged weights."
)
CHECKPOINTS = counter("vdfd_learner_checkpoints_total", "Checkpoints written.")
CHECKPOINT_STEP = gauge(
    "vdfd_learner_checkpoint_step", "Learner step of the newest checkpoint of this process."
)
NOT_FINITE = counter(
    "vdfd_learner_not_finite_total",
    "Records of the run with a loss or gradient that was not finite, over all restarts.",
)
LOSS = gauge(
    "vdfd_learner_loss", "Mean since the record before: total, td, kl_ac, rec_ac and others.", "loss"
)
GRADIENT = gauge("vdfd_learner_gradient_norm", "Norm before clipping, mean.", "group")
Q = gauge("vdfd_learner_q", "Mean joint action value: of the actions taken, and the target.", "value")
WORLD_MODEL = gauge(
    "vdfd_world_model_ratio",
    "Health of the imagination k steps ahead; explained: share of the variance, copy: had nothing changed.",
    "figure",
    "k",
)
MIXER_INPUT = gauge(
    "vdfd_mixer_input_ratio",
    "Share in the mixer's input gradient: of the state, and of each branch.",
    "input",
)
GPU_MEMORY = gauge("vdfd_learner_gpu_memory_bytes", "GPU memory in use; 0 on a CPU.")
GPU_MEMORY_PEAK = gauge("vdfd_learner_gpu_memory_peak_bytes", "Its highest value so far.")
DISK_FREE = gauge("vdfd_learner_disk_free_bytes", "Room left where the run directory is.")
DISK_SIZE = gauge("vdfd_learner_disk_size_bytes", "Size of that disk.")

BY_PREFIX = {"loss": LOSS, "grad_norm": GRADIENT, "q": Q, "mixer_input": MIXER_INPUT}
AT_K = re.compile(r"(.+)_k(\d+)")


def learner_figures(
    learner: LearnerStats, reader: ReaderStats, publisher: PublisherStats, recorder: RecorderStats
) -> Iterator[Figure]:
    """The learner's figures."""
    yield STEP(learner.step)
    yield STEPS(learner.steps)
    for part, seconds in learner.part_s.items():
        yield TIME(seconds, part)
    yield DATA_WAIT(reader.wait_s)
    yield LIMITER_WAIT(reader.limiter_wait_s)
    yield DECODE(reader.decode_s)
    yield RECEIVED_BYTES(reader.received_bytes)
    yield STREAMS(reader.streams)
    yield PUBLISHED(publisher.published)
    yield PUBLISHED_VERSION(publisher.version)
    yield CHECKPOINTS(learner.checkpoints)
    yield CHECKPOINT_STEP(learner.checkpoint_step)
    yield NOT_FINITE(recorder.not_finite)
    yield from recorded_figures(learner.newest)
    yield GPU_MEMORY(learner.gpu_bytes)
    yield GPU_MEMORY_PEAK(learner.gpu_peak_bytes)
    yield DISK_FREE(recorder.disk_free_bytes)
    yield DISK_SIZE(recorder.disk_size_bytes)


def recorded_figures(newest: Mapping[str, float]) -> Iterator[Figure]:
    """What the algorithm has recorded: "loss/td" is the metric of losses with the label td."""
    for name, value in newest.items():
        prefix, _, rest = name.partition("/")
        if prefix in BY_PREFIX:
            yield BY_PREFIX[prefix](value, rest)
        elif prefix == "world_model" and (at_k := AT_K.fullmatch(rest)):
            yield WORLD_MODEL(value, *at_k.groups())
