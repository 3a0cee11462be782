"""What Prometheus sees of an actor and of an evaluator; all of it since the process started."""

from collections.abc import Iterator

from actor.evaluation_points import EvaluatorStats
from actor.play_log import PlayStats
from actor.replay_writer import WriterStats
from actor.rollout import RolloutStats
from actor.weights_client import WeightsStats
from common.metrics import Figure, counter, gauge

ENV_STEPS = counter(
    "vdfd_actor_env_steps_total", "Environment steps played, those of dropped episodes included."
)
EPISODES = counter("vdfd_actor_episodes_total", "Episodes played to their end.")
WINS = counter("vdfd_actor_wins_total", "Episodes won.")
FAILURES = counter(
    "vdfd_actor_environment_failures_total", "Episodes dropped because the environment's client failed."
)
CLIENTS = counter("vdfd_actor_game_clients_total", "Game clients launched, failed and recycled.", "event")
RETURN = gauge("vdfd_actor_return", "Mean return of the last 64 episodes.")
EPSILON = gauge("vdfd_actor_epsilon_ratio", "Share of random actions.")
ENVIRONMENT_TIME = counter(
    "vdfd_actor_environment_seconds_total", "Time spent in environment steps and resets."
)
POLICY_TIME = counter("vdfd_actor_inference_seconds_total", "Time spent in choosing actions.")

ACKNOWLEDGED = counter("vdfd_actor_stored_episodes_total", "Episodes whose storage was acknowledged.")
DUPLICATES = counter("vdfd_actor_duplicate_episodes_total", "Episodes sent again that were stored already.")
INVALID = counter("vdfd_actor_invalid_episodes_total", "Episodes that the service refused.")
QUEUE_WAIT = counter(
    "vdfd_actor_queue_wait_seconds_total", "Time that play waited for the service; mostly the rate limiter."
)
PACK_TIME = counter("vdfd_actor_pack_seconds_total", "Time spent packing episodes, beside play.")
SENT_BYTES = counter("vdfd_actor_sent_bytes_total", "Bytes of the acknowledged episodes.")
STREAMS = counter("vdfd_actor_insert_streams_total", "Streams opened to the replay service.")
HELD = gauge("vdfd_actor_held_episodes", "Finished episodes that are not acknowledged yet.")
HELD_BYTES = gauge("vdfd_actor_held_bytes", "The same in bytes, unpacked.")

VERSION = gauge("vdfd_actor_weights_version", "Learner step of the weights that play.")
LAG = gauge("vdfd_actor_weights_lag_versions", "Newest published version less the one that plays.")
AGE = gauge("vdfd_actor_weights_age_seconds", "Time since newer weights came.")
FETCHED = counter("vdfd_actor_weights_fetched_total", "Times that newer weights came.")
FETCHED_BYTES = counter("vdfd_actor_weights_fetched_bytes_total", "Bytes of weights that came.")

CLAIMED = counter("vdfd_evaluator_claimed_total", "Evaluations begun.")
REPORTED = counter("vdfd_evaluator_reported_total", "Evaluations reported.")
TEST_EPISODES = counter("vdfd_evaluator_episodes_total", "Greedy episodes of the reported evaluations.")
IDLE = counter("vdfd_evaluator_idle_seconds_total", "Time without an evaluation to play.")


def actor_figures(
    rollout: RolloutStats, play: PlayStats, writer: WriterStats, weights: WeightsStats
) -> Iterator[Figure]:
    """An actor's figures."""
    yield ENV_STEPS(rollout.env_steps)
    yield EPISODES(play.episodes)
    yield WINS(play.wins)
    yield FAILURES(rollout.voided)
    yield CLIENTS(rollout.environment.launched, "launched")
    yield CLIENTS(rollout.environment.failed, "failed")
    yield CLIENTS(rollout.environment.recycled, "recycled")
    yield RETURN(play.recent_return)
    yield EPSILON(play.epsilon)
    yield ENVIRONMENT_TIME(rollout.environment_s)
    yield POLICY_TIME(rollout.policy_s)
    yield ACKNOWLEDGED(writer.stored)
    yield DUPLICATES(writer.duplicates)
    yield INVALID(writer.invalid)
    yield QUEUE_WAIT(writer.wait_s)
    yield PACK_TIME(writer.pack_s)
    yield SENT_BYTES(writer.sent_bytes)
    yield STREAMS(writer.streams)
    yield HELD(writer.held)
    yield HELD_BYTES(writer.held_bytes)
    yield VERSION(play.version)
    yield LAG(max(weights.newest_version - play.version, 0))
    yield AGE(weights.age_s)
    yield FETCHED(weights.fetched)
    yield FETCHED_BYTES(weights.fetched_bytes)


def evaluator_figures(stats: EvaluatorStats) -> Iterator[Figure]:
    """An evaluator's figures; its results are the replay service's."""
    yield CLAIMED(stats.claimed)
    yield REPORTED(stats.reported)
    yield TEST_EPISODES(stats.episodes)
    yield IDLE(stats.waited_s)
