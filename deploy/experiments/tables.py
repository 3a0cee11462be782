"""The tables of an experiment in Markdown: last values, areas under the curve, differences of areas."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from deploy.experiments import statistics
from deploy.experiments.results import RunResult
from deploy.experiments.statistics import Estimate

Task = tuple[str, str]
Groups = Mapping[tuple[Task, str], Sequence[RunResult]]
"""Runs with different seeds, by task and algorithm."""

_INTRODUCTION = f"""\
Of the evaluations that all runs of a map have: last value is the mean Test Win Rate of the last
{statistics.LAST_POINTS}, of several runs the interquartile mean; area is the area under the Test Win Rate
over its width, from the first to the last, of several runs the mean. In brackets: 95 % intervals,
bootstrapped over seeds (within each map).
"""


def markdown_tables(groups: Groups, algorithms: Sequence[str]) -> str:
    """All tables. A line over all maps is given for algorithms that have runs on every map."""
    tasks = sorted({task for task, _ in groups})
    steps = {task: statistics.common_steps(_runs(groups, task)) for task in tasks}
    complete = [name for name in algorithms if all((task, name) in groups for task in tasks)]
    parts = ["# Results", _INTRODUCTION, _values_table(groups, algorithms, complete, steps)]
    parts += ["## Differences of areas", _differences_table(groups, algorithms, complete, steps)]
    return "\n".join(parts)


def _values_table(
    groups: Groups, algorithms: Sequence[str], complete: Sequence[str], steps: Mapping[Task, Sequence[int]]
) -> str:
    rows = [
        (_title(task), name, str(len(runs)), *_values([runs], [steps[task]]), _range(steps[task]))
        for task in steps
        for name in algorithms
        if (runs := groups.get((task, name)))
    ]
    if len(steps) > 1:
        for name in complete:
            all_runs = [groups[task, name] for task in steps]
            number = str(sum(map(len, all_runs)))
            rows.append(("all maps", name, number, *_values(all_runs, list(steps.values())), ""))
    return _table(("map", "algorithm", "runs", "last value", "area", "of steps"), rows)


def _differences_table(
    groups: Groups, algorithms: Sequence[str], complete: Sequence[str], steps: Mapping[Task, Sequence[int]]
) -> str:
    rows = []
    for task in steps:
        here = [name for name in algorithms if (task, name) in groups]
        rows += list(_difference_rows(groups, _title(task), here, {task: steps[task]}))
    if len(steps) > 1:
        rows += list(_difference_rows(groups, "all maps", complete, steps))
    return _table(("map", "difference", "of areas"), rows)


def _difference_rows(
    groups: Groups, title: str, names: Sequence[str], steps: Mapping[Task, Sequence[int]]
) -> Iterator[tuple[str, ...]]:
    if any(len(common) < 2 for common in steps.values()):
        return
    areas = {
        name: [_each(statistics.area, groups[task, name], steps[task]) for task in steps] for name in names
    }
    for one, other in itertools.combinations(names, 2):
        found = statistics.difference(areas[one], areas[other])
        yield title, f"{one} - {other}", _text(found, signed=True)


def _values(runs: Sequence[Sequence[RunResult]], steps: Sequence[Sequence[int]]) -> tuple[str, str]:
    if not all(steps):
        return "--", "--"
    last = [_each(statistics.last_value, group, common) for group, common in zip(runs, steps, strict=True)]
    value = _text(statistics.interquartile_mean(last))
    if any(len(common) < 2 for common in steps):
        return value, "--"
    areas = [_each(statistics.area, group, common) for group, common in zip(runs, steps, strict=True)]
    return value, _text(statistics.mean(areas))


def _each(
    figure: Callable[[RunResult, Sequence[int]], float], runs: Sequence[RunResult], steps: Sequence[int]
) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    return np.array([figure(run, steps) for run in runs])


def _runs(groups: Groups, task: Task) -> list[RunResult]:
    return [run for (there, _), runs in groups.items() if there == task for run in runs]


def _title(task: Task) -> str:
    return " ".join(task)


def _range(steps: Sequence[int]) -> str:
    return f"{steps[0]:,} to {steps[-1]:,}" if steps else "none in common"


def _text(estimate: Estimate, *, signed: bool = False) -> str:
    form = "+.3f" if signed else ".3f"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:{form}}"
    return f"{estimate.value:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
