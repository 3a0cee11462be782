"""What Prometheus is told: names, values, and that no metric is forgotten or undocumented."""

import asyncio
import math
import re
import socket
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

import actor.metrics
import learner.metrics
import replay.metrics
from actor.evaluation_points import EvaluatorStats
from actor.play_log import PlayLog
from actor.replay_writer import WriterStats
from actor.rollout import RolloutStats
from actor.weights_client import WeightsStats
from common.errors import FatalError
from common.histogram import Histogram
from common.metrics import Metric, counter, gauge, histogram, serving_metrics
from common.settings import MetricsSettings
from learner.learner import LearnerStats
from learner.recorder import Recorder
from learner.replay_reader import ReaderStats
from learner.weights_publisher import PublisherStats
from replay.cache import EpisodeCache
from replay.memory_storage import MemoryStorage
from replay.redis_link import RedisLink
from replay.redis_server import redis_server
from replay.redis_storage import RedisStorage
from replay.stats import InsertRecorder, SampleRecorder
from tests.episodes import SPEC, make_episode
from tests.replay.conftest import RULES, RUN
from tests.replay.groups import group

MODULES = (actor.metrics, learner.metrics, replay.metrics)
METRICS = {
    value.name: value for module in MODULES for value in vars(module).values() if isinstance(value, Metric)
}
DOCUMENTATION = Path(__file__).parents[2] / "docs" / "operations.md"
_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
ANY_PORT = MetricsSettings(serve=True, port=0)


def scrape(port):
    """Samples by name, and by name and labels."""
    with _DIRECTLY.open(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


def values(figures):
    return {(figure.metric.name, *figure.labels): figure.value for figure in figures}


def test_figures_reach_prometheus_with_their_kind_and_labels():
    waits = Histogram((0.1, 1.0))
    for seconds in (0.1, 0.5, 0.5, 7.0):
        waits.observe(seconds)
    figures = [
        counter("vdfd_x_total", "x")(3),
        gauge("vdfd_y_bytes", "y", "part")(-2.5, "a"),
        gauge("vdfd_y_bytes", "y", "part")(math.nan, "b"),
        histogram("vdfd_z_seconds", "z")(waits.stats()),
    ]
    with serving_metrics(ANY_PORT, lambda: figures) as port:
        seen = scrape(port)
    assert seen["vdfd_x_total",] == 3
    assert seen["vdfd_y_bytes", "a"] == -2.5
    assert math.isnan(seen["vdfd_y_bytes", "b"])
    buckets = [seen["vdfd_z_seconds_bucket", bound] for bound in ("0.1", "1.0", "+Inf")]
    assert (buckets, seen["vdfd_z_seconds_count",], seen["vdfd_z_seconds_sum",]) == ([1, 3, 4], 4, 8.1)
    assert seen["process_start_time_seconds",] > 0


def test_off_means_no_port():
    with serving_metrics(MetricsSettings(serve=False), lambda: 1 / 0) as port:
        assert port is None


def test_a_taken_port_is_one_sentence():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = MetricsSettings(serve=True, port=port)
        sentence = rf"127.0.0.1:{port} .*metrics.port"
        with pytest.raises(FatalError, match=sentence), serving_metrics(settings, list):
            pass


def test_names_keep_the_conventions():
    for metric in METRICS.values():
        assert re.fullmatch(r"vdfd_[a-z0-9]+(_[a-z0-9]+)+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert not re.search(r"_(ms|us|kb|mb|percent)(_|$)", metric.name), metric.name
        assert metric.help.endswith(".") and "{" not in metric.help


def test_every_metric_is_documented_and_nothing_else():
    documented = set(re.findall(r"(?m)^\| `(vdfd_[a-z0-9_]+)", DOCUMENTATION.read_text()))
    assert documented == set(METRICS)


def test_a_figure_of_the_wrong_kind_is_refused():
    with pytest.raises(ValueError, match="vdfd_z_seconds is a histogram"):
        histogram("vdfd_z_seconds", "z")(1.0)
    with pytest.raises(ValueError, match="labels"):
        gauge("vdfd_y_bytes", "y", "part")(1.0)


def named(module):
    return {metric.name for metric in vars(module).values() if isinstance(metric, Metric)}


def test_an_actor_and_an_evaluator_tell_all_that_they_have():
    play = PlayLog()
    for won, reward in ((True, 2.0), (False, 1.0)):
        rewards = np.array([reward], np.float32)
        play.add(make_episode(SPEC, length=1, won=won, episode_return=float(rewards.sum())))
    rollout = RolloutStats(env_steps=7, episodes=2, voided=1, policy_s=0.5, environment_s=1.5)
    writer = WriterStats(
        stored=2,
        duplicates=3,
        invalid=4,
        sent_bytes=5,
        streams=6,
        held=7,
        held_bytes=8,
        wait_s=0.5,
        pack_s=0.25,
    )
    weights = WeightsStats(fetched=1, fetched_bytes=2, version=30, newest_version=40, age_s=0.25)
    told = values(actor.metrics.actor_figures(rollout, play.stats(), writer, weights))
    assert told["vdfd_actor_episodes_total",] == 2
    assert told["vdfd_actor_wins_total",] == 1
    assert told["vdfd_actor_return",] == 1.5
    assert told["vdfd_actor_environment_failures_total",] == 1
    assert told["vdfd_actor_weights_lag_versions",] == 40  # nothing has been loaded yet
    evaluator = EvaluatorStats(claimed=2, reported=1, episodes=32, waited_s=9.0)
    told |= values(actor.metrics.evaluator_figures(evaluator))
    assert {name for name, *_ in told} == named(actor.metrics)


def test_the_learner_tells_all_that_it_has(tmp_path):
    recorder = Recorder(tmp_path, title="a run")
    newest = {"loss/td": 0.5, "grad_norm/value": 2.0, "q/taken": 1.0, "world_model/h_explained_copy_k2": 0.7}
    newest |= {"mixer_input/ac": 0.25}
    recorder.record(learner_step=1, env_steps=1, figures=newest | {"loss/td": math.nan})
    recorder.close()
    recorder = Recorder(tmp_path, title="the run after a restart")
    loop = LearnerStats(
        step=60,
        steps=10,
        part_s={"train": 3.0},
        newest=newest | {"learner/steps_per_s": 3.0},
        checkpoints=2,
        checkpoint_step=50,
        gpu_bytes=0,
        gpu_peak_bytes=0,
    )
    reader = ReaderStats(batches=1, received_bytes=2, wait_s=3.0, limiter_wait_s=2.0, decode_s=1.0, streams=4)
    publisher = PublisherStats(published=1, superseded=0, version=60)
    told = values(learner.metrics.learner_figures(loop, reader, publisher, recorder.stats()))
    recorder.close()
    assert told["vdfd_learner_not_finite_total",] == 1  # a learner that died of it does not forget it
    assert told["vdfd_learner_loss", "td"] == 0.5
    assert told["vdfd_world_model_ratio", "h_explained_copy", "2"] == 0.7
    assert told["vdfd_mixer_input_ratio", "ac"] == 0.25
    assert told["vdfd_learner_part_seconds_total", "train"] == 3.0
    assert told["vdfd_learner_disk_free_bytes",] > 0
    assert {name for name, *_ in told} == named(learner.metrics)


async def test_the_replay_service_tells_the_run_and_its_own_part(tmp_path):
    async with redis_server(tmp_path) as server:
        link = RedisLink(server.url, prefix="metrics", timeout_s=5.0)
        await link.connect(10.0)
        storage, inserts, samples = RedisStorage(link, RULES), InsertRecorder(), SampleRecorder()
        await storage.open_run(RUN)
        caches = {"default": EpisodeCache(10**6)}
        await storage.commit(group(1, 2, 3), again=False)
        await storage.table("default").open_stream(0)
        metrics = replay.metrics.ReplayMetrics(storage, caches, inserts, samples)
        with serving_metrics(ANY_PORT, metrics.collect) as port:
            seen = await asyncio.to_thread(scrape, port)
            assert seen["vdfd_run_episodes_total",] == 3
            assert seen["vdfd_run_window_episodes",] == 3
            assert seen["vdfd_replay_storage_reachable",] == 1
            assert seen["vdfd_replay_redis_writes_to_disk",] == 1
            assert seen["vdfd_replay_redis_memory_bytes",] > 0
            assert seen["vdfd_replay_redis_latency_seconds_count",] > 0
            await link.close()
            await server.stop()
            seen = await asyncio.to_thread(scrape, port)
        assert seen["vdfd_replay_storage_reachable",] == 0
        assert ("vdfd_run_episodes_total",) not in seen  # unknown is not zero
        assert ("vdfd_replay_inserts_total",) in seen


async def test_the_replay_service_tells_all_that_it_has():
    storage = MemoryStorage(RULES)
    await storage.open_run(RUN)
    caches = {"default": EpisodeCache(1)}
    metrics = replay.metrics.ReplayMetrics(storage, caches, InsertRecorder(), SampleRecorder())
    told = values(await asyncio.to_thread(lambda: list(metrics.collect())))
    assert {name for name, *_ in told} == {
        name for name in named(replay.metrics) if not name.startswith("vdfd_evaluation_") or "points" in name
    }
