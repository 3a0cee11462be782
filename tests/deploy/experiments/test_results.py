"""Results are read from what runs leave, and kept in a CSV from which the figures can be drawn again."""

import json

import pytest

from common.errors import BadInputError
from deploy.config import Sources, load_config, save_config
from deploy.experiments.results import Point, collect, read_csv, write_csv
from tests.deploy.experiments.results import run


@pytest.fixture
def trained(tmp_path):
    def make(name, *, preset="vdfd-no-ac", seed=1, finished=True, evaluations=2):
        root = tmp_path / "runs" / name
        root.mkdir(parents=True)
        save_config(
            load_config(Sources(preset=preset, overrides=(f"run.seed={seed}",))), root / "config.yaml"
        )
        points = [(10, 0.25, 5.0), (20, 0.5, 10.0)][:evaluations]
        with (root / "metrics.jsonl").open("w") as file:
            for steps, rate, mean_return in points:
                record = {"env_steps": steps, "test/win_rate": rate, "test/return": mean_return}
                file.write(
                    json.dumps(record) + "\n" + json.dumps({"env_steps": steps, "loss/td": 1.0}) + "\n"
                )
        if finished:
            entries = [{"env_steps": s, "win_rate": w, "mean_return": r} for s, w, r in points]
            (root / "summary.json").write_text(json.dumps({"evaluations": entries}))
        return root

    return make


POINTS = (
    Point(env_steps=10, win_rate=0.25, mean_return=5.0),
    Point(env_steps=20, win_rate=0.5, mean_return=10.0),
)


def test_a_run_has_the_name_of_its_preset(trained):
    (found,), _ = collect([trained("one")], unfinished=False)
    assert (found.env, found.map, found.algorithm, found.seed) == ("smax", "3m", "vdfd-no-ac", 1)
    assert found.points == POINTS


def test_what_goes_on_is_taken_only_when_asked_for(trained, tmp_path):
    trained("done")
    trained("going", seed=2, finished=False)
    trained("begun", seed=3, finished=False, evaluations=0)
    results, left_out = collect([tmp_path / "runs"], unfinished=False)
    assert [result.seed for result in results] == [1]
    assert len(left_out) == 2
    results, left_out = collect([tmp_path / "runs"], unfinished=True)
    assert [(result.seed, result.points) for result in results] == [(1, POINTS), (2, POINTS)]
    assert [reason.rpartition(": ")[2] for reason in left_out] == ["no evaluation yet"]


def test_a_run_counts_once(trained, tmp_path):
    trained("one")
    with pytest.raises(BadInputError, match="Two runs are vdfd-no-ac on smax 3m with seed 1"):
        collect([trained("same")], unfinished=False)[0] and collect([tmp_path / "runs"], unfinished=False)


def test_a_broken_summary_is_named_with_what_to_do(trained):
    root = trained("one")
    (root / "summary.json").write_text("")
    with pytest.raises(BadInputError, match=r"summary\.json cannot be read .* remove it"):
        collect([root], unfinished=False)


def test_a_place_without_runs_is_named(tmp_path):
    with pytest.raises(BadInputError, match=f"{tmp_path} is no run directory"):
        collect([tmp_path], unfinished=True)


def test_the_csv_holds_all(tmp_path):
    runs = [run("qmix", 2, (0.125, 0.25)), run("vdfd", 1, (1 / 3,), map_name="2s3z")]
    path = tmp_path / "curves.csv"
    write_csv(path, runs)
    assert path.read_text().splitlines()[:2] == [
        "env,map,algorithm,seed,env_steps,test_win_rate,test_return",
        "smax,3m,qmix,2,10,0.125,2.5",
    ]
    again = tmp_path / "again.csv"
    write_csv(again, read_csv(path))
    assert again.read_text() == path.read_text()
    assert read_csv(path)[0] == runs[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "other columns"),
        ("env,map,algorithm,seed,env_steps,test_win_rate,test_return\ns,3m,q,1,x,0,0\n", "line 2"),
    ],
)
def test_another_csv_is_refused(tmp_path, text, said):
    path = tmp_path / "other.csv"
    path.write_text(text)
    with pytest.raises(BadInputError, match=said):
        collect([path], unfinished=False)
