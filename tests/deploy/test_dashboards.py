"""Dashboards and alerts: what they ask for exists, is explained, and is what the sources say."""

import json
import re

import promql_parser
import pytest
import yaml

from deploy.check_queries import alert_queries, dashboard_queries, operands
from deploy.dashboards import DIRECTORY, dashboard, read_pages, render
from tests.deploy.test_metrics import DOCUMENTATION, METRICS

RULES = DIRECTORY.parents[1] / "prometheus" / "alerts.yml"
ALERTS = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
STANDARD = {"up", "process_start_time_seconds", "process_resident_memory_bytes", "process_cpu_seconds_total"}
SERIES = {
    name
    for metric in METRICS.values()
    for name in (
        [f"{metric.name}_{part}" for part in ("bucket", "sum", "count")]
        if metric.kind == "histogram"
        else [metric.name]
    )
}
EXPRESSIONS = [*dashboard_queries(DIRECTORY), *alert_queries(RULES)]


def test_files_are_what_the_panels_make():
    assert {file.name for file in DIRECTORY.iterdir()} == {f"{page.uid}.json" for page in read_pages()}
    for page in read_pages():
        assert (DIRECTORY / f"{page.uid}.json").read_text() == render(page), "run make dashboards"


@pytest.mark.parametrize("place, expr", EXPRESSIONS, ids=[place for place, _ in EXPRESSIONS])
def test_expressions_are_promql_about_metrics_that_exist(place, expr):
    promql_parser.parse(expr)
    without_labels = re.sub(r"\{[^}]*\}|\bby \([^)]*\)", "", expr)
    asked = set(re.findall(r"\b(?:vdfd|process|up)\w*\b", without_labels))
    assert asked and asked <= SERIES | STANDARD
    for metric in asked & set(METRICS):
        counter = METRICS[metric].kind == "counter"
        assert not re.search(rf"\b(rate|increase)\({metric}\b", expr) or counter, f"{metric} is no counter"


def test_every_panel_has_a_unit_a_description_and_a_place_of_its_own():
    for page in read_pages():
        panels = dashboard(page)["panels"]
        places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
        assert len(places) == len(panels)
        for panel in panels:
            assert panel["description"].endswith(".") and panel["fieldConfig"]["defaults"]["unit"]
            assert panel["targets"] and all(target["legendFormat"] for target in panel["targets"])
        json.dumps(panels)


def test_most_metrics_are_shown():
    text = " ".join(expr for _, expr in EXPRESSIONS)
    unseen = {name for name in METRICS if name not in text}
    assert len(unseen) < 0.2 * len(METRICS), sorted(unseen)


@pytest.mark.parametrize("rule", ALERTS, ids=[rule["alert"] for rule in ALERTS])
def test_every_alert_says_what_to_do_and_is_tested(rule):
    assert rule["annotations"]["summary"].endswith(".") and rule["annotations"]["runbook"].endswith(".")
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert f"| {rule['alert']} |" in DOCUMENTATION.read_text()
    assert f"alertname: {rule['alert']}\n" in (RULES.parent / "alerts_test.yml").read_text()


def test_operands_are_what_stands_outside_parentheses():
    assert operands("max(a > 0) / b > 0.5 and max(c) == 0") == ["max(a > 0) / b", "max(c)"]
    assert operands('up{job!="x"} == 0') == ['up{job!="x"}']
