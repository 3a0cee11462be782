"""Results of runs: read from run directories and from the CSV that holds them, written as that CSV."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import BadInputError
from deploy.config import Sources, load_config
from deploy.run_dir import RunDir
from learner.metrics_log import read_records

COLUMNS = ("env", "map", "algorithm", "seed", "env_steps", "test_win_rate", "test_return")


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One evaluation: greedy test episodes with the weights of that moment."""

    env_steps: int
    win_rate: float
    mean_return: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """The evaluations of one run, by ascending env_steps."""

    env: str
    map: str
    algorithm: str
    """The name of its preset, because ablations share their algorithm's."""
    seed: int
    points: tuple[Point, ...]

    @property
    def task(self) -> tuple[str, str]:
        """Environment and map."""
        return self.env, self.map


def collect(paths: Sequence[Path], *, unfinished: bool) -> tuple[list[RunResult], list[str]]:
    """The runs under `paths`, and what was left out.

    A path is a run directory, a directory with some in it, or a CSV file. A run that has not ended is left
    out unless `unfinished`; one without any evaluation always is. Raises BadInputError if a path holds no
    run at all, or if two runs are of the same name and seed.
    """
    results: list[RunResult] = []
    left_out: list[str] = []
    for path in paths:
        if path.is_file():
            results += read_csv(path)
            continue
        for run_dir in find_run_dirs(path):
            if not (unfinished or run_dir.summary.exists()):
                left_out.append(f"{run_dir.root}: not finished")
            elif points := _points(run_dir):
                results.append(_result(run_dir, points))
            else:
                left_out.append(f"{run_dir.root}: no evaluation yet")
    _check_distinct(results)
    return sorted(results, key=lambda run: (run.env, run.map, run.algorithm, run.seed)), left_out


def find_run_dirs(path: Path) -> list[RunDir]:
    """The run directory that `path` is, or those that lie in it."""
    candidates = [path] if (path / "config.yaml").is_file() else sorted(path.glob("*/"))
    found = [RunDir(root) for root in candidates if (root / "config.yaml").is_file()]
    if not found:
        raise BadInputError(f"{path} is no run directory, has none in it, and is no CSV file.")
    return found


def write_csv(path: Path, results: Iterable[RunResult]) -> None:
    """One line per evaluation."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for run in results:
            for point in run.points:
                figures = (point.env_steps, round(point.win_rate, 6), round(point.mean_return, 6))
                writer.writerow((run.env, run.map, run.algorithm, run.seed, *figures))


def read_csv(path: Path) -> list[RunResult]:
    """What `write_csv` has written; BadInputError if a file is something else."""
    points: dict[tuple[str, str, str, int], list[Point]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        try:
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise ValueError(f"other columns than {','.join(COLUMNS)}")
            for row in reader:
                key = (row["env"], row["map"], row["algorithm"], int(row["seed"]))
                points.setdefault(key, []).append(_point_of_row(row))
        except (TypeError, ValueError, csv.Error) as error:
            raise BadInputError(f"{path}, line {reader.line_num}: {error}.") from error
    return [
        RunResult(env=env, map=map_name, algorithm=algorithm, seed=seed, points=_ordered(found))
        for (env, map_name, algorithm, seed), found in points.items()
    ]


def _point_of_row(row: dict[str, str]) -> Point:
    return Point(
        env_steps=int(row["env_steps"]),
        win_rate=float(row["test_win_rate"]),
        mean_return=float(row["test_return"]),
    )


def _result(run_dir: RunDir, points: tuple[Point, ...]) -> RunResult:
    config = load_config(Sources(file=run_dir.config))
    return RunResult(
        env=config.env.name,
        map=config.env.map,
        algorithm=config.run.preset,
        seed=config.run.seed,
        points=points,
    )


def _points(run_dir: RunDir) -> tuple[Point, ...]:
    summary = run_dir.read_summary()
    return _ordered(_logged_points(run_dir) if summary is None else _summary_points(summary))


def _summary_points(summary: Mapping[str, Any]) -> Iterator[Point]:
    for entry in summary["evaluations"]:
        yield Point(
            env_steps=entry["env_steps"], win_rate=entry["win_rate"], mean_return=entry["mean_return"]
        )


def _logged_points(run_dir: RunDir) -> Iterator[Point]:
    for record in read_records(run_dir.metrics):
        if "test/win_rate" in record:
            yield Point(
                env_steps=record["env_steps"],
                win_rate=record["test/win_rate"],
                mean_return=record["test/return"],
            )


def _ordered(points: Iterable[Point]) -> tuple[Point, ...]:
    return tuple(sorted(points, key=lambda point: point.env_steps))


def _check_distinct(results: Iterable[RunResult]) -> None:
    seen: set[tuple[str, str, str, int]] = set()
    for run in results:
        name = (run.env, run.map, run.algorithm, run.seed)
        if name in seen:
            raise BadInputError(
                f"Two runs are {run.algorithm} on {run.env} {run.map} with seed {run.seed}: "
                "give one of them, or name one otherwise in its config.yaml (run.preset)."
            )
        seen.add(name)
