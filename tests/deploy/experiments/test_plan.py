"""What an experiment file means, what is refused, and how far a run is by its directory."""

import json

import pytest

from common.errors import BadInputError
from deploy.config import save_config
from deploy.experiments.plan import Progress, load_plan
from deploy.experiments.progress import ProgressWatch

PLAN = """
presets: [qmix, vdfd-no-ac]
maps: [3m, lbf/5x5-2p-1f-coop]
seeds: [1, 2]
steps: 1000
overrides: [learner.gamma=0.5]
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    return path


@pytest.fixture
def plan(file, tmp_path):
    def load(text=PLAN):
        file.write_text(text)
        return load_plan(file, tmp_path / "runs")[1]

    return load


def begin(run):
    run.files.root.mkdir(parents=True)
    save_config(run.config, run.files.config)


def finish(run):
    run.files.summary.write_text(json.dumps({"env_steps": run.env_steps + 3}))


def test_every_preset_is_on_every_map_with_every_seed_the_seeds_slowest(plan):
    assert [run.name for run in plan()] == [
        f"{preset}-{place}-seed{seed}"
        for seed in (1, 2)
        for place in ("smax-3m", "lbf-5x5-2p-1f-coop")
        for preset in ("qmix", "vdfd-no-ac")
    ]


def test_a_run_is_what_the_file_says(plan):
    run = plan()[-1]
    assert (run.config.run.preset, run.config.learner.algorithm) == ("vdfd-no-ac", "vdfd")
    assert (run.config.env.name, run.config.env.map) == ("lbf", "5x5-2p-1f-coop")
    assert (run.config.run.seed, run.config.run.env_steps, run.config.learner.gamma) == (2, 1000, 0.5)
    assert {"learner.gamma=0.5", "run.seed=2", "env.name=lbf", "run.preset=vdfd-no-ac"} <= set(run.arguments)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("steps: 1000", "stpes: 1000", "there is no key stpes; there are: presets, maps"),
        ("seeds: [1, 2]", "", "seeds is missing"),
        ("seeds: [1, 2]", "seeds: []", "seeds: .*at least 1"),
        ("seeds: [1, 2]", "seeds: [1, 1]", "seeds has an entry twice"),
        ("maps: [3m,", "maps: [3m, smax/3m,", "maps has an entry twice"),
        ("[1, 2]", "[1, two]", r"seeds\.1"),
        ("qmix", "qmixx", '"qmixx": did you mean qmix'),
        ("3m", "3n", 'map "3n": did you mean 3m'),
        ("lbf/", "lbff/", 'environment "lbff"'),
        ("learner.gamma=0.5", "learner.gama=0.5", "nearest is learner.gamma"),
        (PLAN, "[1, 2", "is not YAML"),
    ],
)
def test_a_wrong_file_is_refused_and_nothing_is_made(plan, tmp_path, old, new, said):
    assert old in PLAN
    with pytest.raises(BadInputError, match=said):
        plan(PLAN.replace(old, new))
    assert not (tmp_path / "runs").exists()


def test_a_run_goes_from_new_to_started_to_done(plan):
    run = plan()[0]
    assert run.progress() is Progress.NEW
    begin(run)
    assert run.progress() is Progress.STARTED
    finish(run)
    assert run.progress() is Progress.DONE


def test_a_run_that_is_to_have_more_steps_than_it_had_goes_on(plan):
    run = plan()[0]
    begin(run)
    finish(run)
    more = plan(PLAN.replace("steps: 1000", "steps: 2000"))[0]
    assert more.progress() is Progress.STARTED


def test_what_was_begun_with_other_settings_is_never_gone_on_with(plan):
    begin(plan()[0])
    with pytest.raises(
        BadInputError, match=r"qmix-smax-3m-seed1 was begun with learner\.gamma = 0\.5.* 0\.75"
    ):
        plan(PLAN.replace("0.5", "0.75"))
    # How it is watched, and what else is trained, may change.
    plan(PLAN.replace("0.5]", "0.5, supervisor.log_interval_s=7]").replace("[1, 2]", "[1, 2, 3]"))


def test_what_a_launcher_leaves_that_died_early_is_told_from_what_people_keep(plan):
    run = plan()[0]
    assert not run.left_by_early_death()
    run.files.root.mkdir(parents=True)
    (run.files.root / ".lock").write_text("")
    run.files.logs.mkdir()
    assert run.left_by_early_death()
    (run.files.root / "notes.txt").write_text("mine")
    assert not run.left_by_early_death()


def note(run, env_steps):
    with run.files.metrics.open("a") as file:
        file.write(json.dumps({"env_steps": env_steps}) + "\n")


def test_time_left_is_that_of_the_steps_not_played_yet(plan, monkeypatch):
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    clock = [100.0]
    first, second = plan()[:2]
    for run in (first, second):
        begin(run)
    note(first, 400)  # before this start: no sign of its speed
    watch = ProgressWatch([first, second])
    assert watch.status(running=(), failed=()).left_s is None
    clock[0] = 150.0
    note(first, 900)
    with second.files.metrics.open("a") as file:
        file.write("x" * 10_000 + '\n{"env_steps": 0}\n{"env_steps"')
    status = watch.status(running=[first.name], failed=())
    assert (status.done, status.total, status.running) == (0, 2, ((first.name, 0.9),))
    assert status.left_s == pytest.approx((100 + 1000) / (500 / 50))
    finish(first)
    status = watch.status(running=(), failed=[second.name])
    assert (status.done, status.failed, status.left_s) == (1, 1, 0.0)
    assert status.lines()[0].startswith("1 of 2 runs done, 1 failed, 0 going on")
