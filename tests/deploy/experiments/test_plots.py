"""`vdfd plot`: the files that it writes, and the page of a world model."""

import csv
import json
import sys

import numpy as np
import pytest

from common.errors import BadInputError
from deploy import cli
from deploy.experiments.figures import WIN_RATE, curve
from deploy.experiments.health_page import draw_health, verdict
from deploy.experiments.plot import plot_runs
from deploy.experiments.results import write_csv
from deploy.run_dir import RunDir
from tests.deploy.experiments.results import run

PNG = b"\x89PNG"


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.csv"
    rates = {1: (0.0, 0.5, 1.0), 2: (0.25, 0.5, 0.5), 3: (0.5, 0.5)}
    names, maps = ("vdfd", "qmix"), ("3m", "8m")
    write_csv(path, [run(n, s, rates[s], map_name=m) for m in maps for n in names for s in rates])
    return path


def test_everything_is_written_and_equal_data_give_equal_files(data, tmp_path):
    for out in ("one", "two"):
        plot_runs([data], tmp_path / out, algorithms=(), unfinished=False)
    files = {path.name for path in (tmp_path / "one").iterdir()}
    figures = {f"{stem}.{suffix}" for stem in ("win_rate", "return") for suffix in ("png", "svg", "csv")}
    assert files == figures | {"curves.csv", "tables.md"}
    assert (tmp_path / "one" / "win_rate.png").read_bytes().startswith(PNG)
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    drawn = (tmp_path / "one" / "win_rate.svg").read_text()
    assert all(text in drawn for text in ("smax 3m", "smax 8m", "vdfd", "qmix", "Test Win Rate"))


def test_the_data_behind_a_figure_are_mean_and_deviation_over_seeds(data, tmp_path):
    plot_runs([data], tmp_path / "out", algorithms=("qmix",), unfinished=False)
    with (tmp_path / "out" / "win_rate.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["algorithm"] for row in rows} == {"qmix"}
    # The third seed has two evaluations: without it the mean would jump at the third.
    assert [row["env_steps"] for row in rows] == ["10", "20"] * 2
    first, last = rows[:2]
    assert (float(first["mean"]), first["runs"]) == (0.25, "3")
    assert float(first["standard_deviation"]) == pytest.approx(np.std([0, 0.25, 0.5], ddof=1))
    assert (float(last["mean"]), last["runs"]) == (0.5, "3")


def test_one_run_alone_has_no_deviation():
    assert list(curve([run(rates=(0.5,))], WIN_RATE)) == [(10, 0.5, 0.0, 1)]


def test_a_name_that_no_run_has_is_refused_before_anything_is_written(data, tmp_path):
    with pytest.raises(BadInputError, match="No run is of vdn; there are runs of qmix, vdfd"):
        plot_runs([data], tmp_path / "out", algorithms=("vdfd", "vdn"), unfinished=False)
    assert not (tmp_path / "out").exists()


def test_the_command_draws_and_refuses(data, tmp_path, monkeypatch, capsys):
    def plot(*arguments):
        monkeypatch.setattr(sys, "argv", ["vdfd", "plot", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, *capsys.readouterr()

    code, output, _ = plot(data, "--out", tmp_path / "out", "--presets", "vdfd, qmix")
    assert code == 0
    assert "| smax 3m | vdfd | 3 |" in output
    for wrong in ((tmp_path, "--health"), (data, "--out", data), (tmp_path / "out" / "win_rate.png",)):
        code, _, error = plot(*wrong)
        assert code == 2
        assert error.startswith("vdfd: ") and error.count("\n") == 1


FIGURES = {
    **{f"world_model/h_explained_k{k}": 0.9 - 0.1 * k for k in (1, 2, 3)},
    **{f"world_model/h_explained_copy_k{k}": 1.05 - 0.2 * k for k in (1, 2, 3)},
    "world_model/z_explained_k1": None,
    "world_model/action_agreement_k1": 0.5,
}


@pytest.fixture
def run_dir(tmp_path):
    def make(*records):
        lines = [json.dumps({"env_steps": 10 * number, **record}) for number, record in enumerate(records)]
        (tmp_path / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
        return RunDir(tmp_path)

    return make


def test_the_page_is_drawn_of_what_was_logged(run_dir):
    files = run_dir({"loss/kl_ac": 1.0, "loss/rec_ac": None}, FIGURES, {"loss/kl_ac": 0.5}, FIGURES)
    assert draw_health(files, files.health, title="a run")
    assert files.health.read_bytes().startswith(PNG)


def test_a_run_without_a_world_model_has_no_page(run_dir):
    files = run_dir({"loss/td": 1.0})
    assert not draw_health(files, files.health, title="a run")
    assert not files.health.exists()


def test_the_verdict_is_about_copying_and_takes_the_newest_figures():
    worse = dict.fromkeys(FIGURES, 0.0)
    assert verdict([worse, FIGURES]).endswith("h at k = 2, 3; z nowhere.")
    assert verdict([FIGURES, worse]).endswith("h nowhere; z nowhere.")
