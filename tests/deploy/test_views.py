"""The screen, the log lines and the summary say what the snapshot holds."""

import io

import pytest
from rich.console import Console

from deploy.config import Sources, load_config
from deploy.formatting import duration, sparkline
from deploy.log_view import log_lines
from deploy.summary import summarise
from deploy.view import LiveView, LogView, open_view
from tests.deploy.snapshots import EMPTY, SNAPSHOT


def screen(snapshot):
    output = io.StringIO()
    view = LiveView(Console(file=output, width=110, force_terminal=True, color_system=None))
    view.show(snapshot)
    view.close()
    view.close()
    return output.getvalue()


def log(*snapshots, interval_s=1000.0, event=None):
    output = io.StringIO()
    view = LogView(Console(file=output, width=40), interval_s=interval_s)
    for snapshot in snapshots:
        view.show(snapshot)
    if event:
        view.note(event)
    view.close()
    return output.getvalue().splitlines()


EVERYWHERE = (
    "90,000 of 150,000",
    "60%",
    "1:02:05 gone, 2:30 left",
    "17.2",
    "17.1",
    "31.98",
    "11.5 steps",
    "3,998",
    "td",
    "0.0625",
    "kl_ac",
    "▃▅▅▆",
    "0.75",
    "0.62",
    "actor-0",
    "restarting",
    "3",
)


def test_the_screen_shows_everything():
    text = screen(SNAPSHOT)
    for part in (*EVERYWHERE, "runs/example", "4711", "87 %", "700 MiB", "2:05", "killed by SIGKILL"):
        assert part in text
    assert all(len(line) <= 110 for line in text.splitlines() if "\x1b" not in line)


def test_the_log_shows_the_same():
    text = "\n".join(log_lines(SNAPSHOT))
    for part in EVERYWHERE:
        assert part in text


def test_a_run_that_has_just_begun_can_be_shown():
    assert "no evaluation yet" in screen(EMPTY)
    assert "-- left" in "\n".join(log_lines(EMPTY))


def test_the_log_waits_for_its_interval_but_not_with_events_and_phases():
    lines = log(EMPTY, EMPTY, SNAPSHOT, SNAPSHOT, event="actor-0 ended")
    once = [*log_lines(EMPTY), *log_lines(SNAPSHOT), "actor-0 ended"]
    assert [line.split(" ", 1)[1] for line in lines] == once


def test_the_view_fits_the_output(capsys):
    assert isinstance(open_view(log_interval_s=1.0), LogView)


def test_derived_figures():
    assert SNAPSHOT.samples_per_insert == 127_936 / 4_000
    assert SNAPSHOT.time_left_s == 150.0
    assert SNAPSHOT.win_rate_last3 == pytest.approx((16 + 20 + 24) / 96)
    assert (EMPTY.samples_per_insert, EMPTY.progress, EMPTY.time_left_s) == (0.0, 0.0, None)


def test_the_summary_has_what_people_and_scripts_ask_for():
    config = load_config(Sources(preset="qmix", overrides=("run.seed=7",)))
    summary = summarise(config, SNAPSHOT)
    assert {name: summary[name] for name in summary if name != "evaluations"} == {
        "preset": "qmix",
        "algorithm": "qmix",
        "env": "smax",
        "map": "3m",
        "seed": 7,
        "env_steps": 90_000,
        "episodes": 4_000,
        "learner_steps": 3_998,
        "samples_per_insert": 31.984,
        "test_win_rate_last3": pytest.approx(0.625),
        "wall_s": 3725.0,
        "restarts": 3,
    }
    assert [point["win_rate"] for point in summary["evaluations"]] == [0.25, 0.5, 0.625, 0.75]


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "--"), (0.4, "0:00"), (59.6, "1:00"), (3599, "59:59"), (7265, "2:01:05")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_a_curve_stays_within_its_levels():
    assert sparkline([-1, 0, 0.5, 1, 2]) == "▁▁▅██"
