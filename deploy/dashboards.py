"""Grafana's dashboards: `make dashboards` writes grafana/dashboards/*.json from grafana/panels.yml."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

PANELS = Path(__file__).parent / "grafana" / "panels.yml"
DIRECTORY = PANELS.parent / "dashboards"
DATASOURCE = {"type": "prometheus", "uid": "prometheus"}
COLUMNS = 24
WIDTH, HEIGHT = 8, 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One graph: a title, what it tells, the unit of its axis, and PromQL by legend."""

    title: str
    description: str
    unit: str
    """Grafana's name: short, percentunit, s, bytes, Bps, ops, none."""
    queries: dict[str, str]
    """Legend, in which {{label}} is replaced, and expression."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """One dashboard."""

    uid: str
    title: str
    panels: tuple[Panel, ...]


def read_pages(path: Path = PANELS) -> list[Page]:
    """The dashboards of panels.yml."""
    pages = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [
        Page(uid=uid, title=page["title"], panels=tuple(Panel(**panel) for panel in page["panels"]))
        for uid, page in pages.items()
    ]


def dashboard(page: Page) -> dict[str, Any]:
    """A page in Grafana's JSON model."""
    return {
        "uid": f"vdfd-{page.uid}",
        "title": page.title,
        "tags": ["vdfd"],
        "schemaVersion": 39,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": []},
        "annotations": {"list": []},
        "links": [
            {
                "title": "vdfd",
                "type": "dashboards",
                "tags": ["vdfd"],
                "asDropdown": True,
                "icon": "external link",
                "includeVars": False,
                "keepTime": True,
                "targetBlank": False,
                "tooltip": "",
                "url": "",
            }
        ],
        "panels": [graph(panel, number) for number, panel in enumerate(page.panels)],
    }


def graph(panel: Panel, number: int) -> dict[str, Any]:
    """A panel in its place: three to a row."""
    per_row = COLUMNS // WIDTH
    place = {"x": WIDTH * (number % per_row), "y": HEIGHT * (number // per_row), "w": WIDTH, "h": HEIGHT}
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "custom": {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 5, "showPoints": "auto"},
            },
            "overrides": [],
        },
        "options": {
            "legend": {
                "displayMode": "list",
                "placement": "bottom",
                "showLegend": True,
                "calcs": ["lastNotNull"],
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {"refId": chr(ord("A") + index), "expr": expr, "legendFormat": legend, "datasource": DATASOURCE}
            for index, (legend, expr) in enumerate(panel.queries.items())
        ],
    }


def render(page: Page) -> str:
    """The file's text."""
    return json.dumps(dashboard(page), indent=2) + "\n"


def main() -> None:
    """Writes every page."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for page in read_pages():
        (DIRECTORY / f"{page.uid}.json").write_text(render(page), encoding="utf-8")


if __name__ == "__main__":
    main()
