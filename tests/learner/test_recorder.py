"""Every record and every evaluation is written once, whatever ends the process."""

import json
import math

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common import rpc
from common.codec import evaluation_to_proto
from common.errors import FatalError
from common.lifecycle import StopSignal
from common.types import Evaluation
from learner.recorder import Recorder
from learner.run_monitor import RunMonitor
from tests.learner.replay_double import ReplayDouble, serving

PNG = b"\x89PNG\r\n\x1a\n"


def evaluation(point, wins=8):
    return Evaluation(
        env_steps=point,
        weights_version=point // 10,
        episodes=32,
        wins=wins,
        mean_return=7.5,
        mean_length=21.0,
    )


@pytest.fixture
def open_recorder(tmp_path):
    recorders = []

    def opened():
        recorders.append(Recorder(tmp_path, title="synthetic"))
        return recorders[-1]

    yield opened
    for recorder in recorders:
        recorder.close()


def records(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_records_are_lines_of_json_and_tensorboard_scalars(tmp_path, open_recorder):
    recorder = open_recorder()
    recorder.record(learner_step=50, env_steps=900, figures={"loss/td": 0.5, "loss/rec": math.nan})
    recorder.record(learner_step=100, env_steps=1900, figures={"loss/td": 0.25, "loss/rec": math.inf})
    first, second = records(tmp_path)
    assert first.pop("time") <= second.pop("time")
    assert first == {"learner_step": 50, "env_steps": 900, "loss/td": 0.5, "loss/rec": None}
    assert second == {"learner_step": 100, "env_steps": 1900, "loss/td": 0.25, "loss/rec": None}
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("loss/td")
    assert [(event.step, event.value) for event in events] == [(50, 0.5), (100, 0.25)]


def test_losses_and_gradients_that_are_not_finite_are_counted_over_restarts(open_recorder):
    for count, broken in enumerate(("loss/td", "grad_norm/value", "q/taken"), start=1):
        recorder = open_recorder()
        figures = {"loss/td": 0.5, "grad_norm/value": 1.0, broken: math.nan}
        recorder.record(learner_step=count, env_steps=count, figures=figures)
        assert recorder.stats().not_finite == min(count, 2)
        recorder.close()


@pytest.mark.parametrize("cut", [0, 1, 30])
def test_a_restart_appends_and_removes_only_a_line_cut_short(tmp_path, open_recorder, cut):
    first = open_recorder()
    for step in (50, 100):
        first.record(learner_step=step, env_steps=step, figures={"loss/td": 1.0})
    first.close()
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[: -cut or None])
    open_recorder().record(learner_step=60, env_steps=60, figures={"loss/td": 2.0})
    steps = [record["learner_step"] for record in records(tmp_path)]
    assert steps == ([50, 60] if cut else [50, 100, 60])


def test_a_damaged_line_is_named(tmp_path, open_recorder):
    (tmp_path / "metrics.jsonl").write_text('{"learner_step": 1}\n{"learner_\n')
    with pytest.raises(FatalError, match=r"line 2 of .*metrics\.jsonl is damaged"):
        open_recorder()


def test_an_evaluation_is_written_once_also_after_a_restart(tmp_path, open_recorder):
    first = open_recorder()
    assert first.record_evaluation(evaluation(20_000))
    assert first.record_evaluation(evaluation(10_000, wins=0))
    assert not first.record_evaluation(evaluation(20_000))
    first.close()
    (tmp_path / "win_rate.png").unlink()
    second = open_recorder()
    assert (tmp_path / "win_rate.png").read_bytes().startswith(PNG)
    assert not second.record_evaluation(evaluation(10_000, wins=0))
    assert second.record_evaluation(evaluation(30_000, wins=32))
    expected = [evaluation(10_000, wins=0), evaluation(20_000), evaluation(30_000, wins=32)]
    assert second.evaluations == expected
    written = [
        (r["env_steps"], r["test/win_rate"], r["test/return"], r["test/length"]) for r in records(tmp_path)
    ]
    assert written == [(20_000, 0.25, 7.5, 21.0), (10_000, 0.0, 7.5, 21.0), (30_000, 1.0, 7.5, 21.0)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "metrics.jsonl",
        "tensorboard",
        "win_rate.png",
    ]


def test_the_monitor_waits_for_what_is_due_and_records_it_once(tmp_path, open_recorder):
    recorder, stop, double = open_recorder(), StopSignal(), ReplayDouble()
    double.evaluations = [evaluation_to_proto(evaluation(10_000))]
    double.status.evaluations_pending = 1
    double.status.counters.env_steps = 20_000
    with serving(double) as settings, rpc.channel(settings) as channel:
        monitor = RunMonitor(channel, settings, recorder)
        try:
            double.wait_for(lambda: double.looks >= 2)  # both before the report
            with double.changed:
                double.evaluations.append(evaluation_to_proto(evaluation(20_000)))
                double.status.evaluations_pending = 0
            assert monitor.wait_until_evaluated(stop)
            assert monitor.status.counters.env_steps == 20_000
        finally:
            monitor.close()
            monitor.close()
    assert recorder.evaluations == [evaluation(10_000), evaluation(20_000)]
    assert len(records(tmp_path)) == 2


def test_the_monitor_stops_waiting_when_told_to(open_recorder):
    stop, double = StopSignal(), ReplayDouble()
    double.status.evaluations_pending = 1
    with serving(double) as settings, rpc.channel(settings) as channel:
        monitor = RunMonitor(channel, settings, open_recorder())
        stop.set()
        assert not monitor.wait_until_evaluated(stop)
        monitor.close()


def test_the_monitor_outlives_a_service_that_is_away(open_recorder):
    double, stop = ReplayDouble(), StopSignal()
    with serving(double) as settings:
        pass
    with rpc.channel(settings) as channel:
        monitor = RunMonitor(channel, settings, open_recorder())
        with serving(double, settings.address):
            assert monitor.wait_until_evaluated(stop)
        monitor.close()


def test_what_ends_the_monitor_is_raised_where_it_is_asked(open_recorder):
    recorder, double = open_recorder(), ReplayDouble()
    double.evaluations = [evaluation_to_proto(evaluation(10_000, wins=33))]  # more than were played
    with serving(double) as settings, rpc.channel(settings) as channel:
        monitor = RunMonitor(channel, settings, recorder)
        with pytest.raises(ValueError, match="33 successes of 32"):
            monitor.wait_until_evaluated(StopSignal())
        monitor.close()
