"""Asks a running Prometheus for everything that dashboards and alerts ask for, and says what has no data.

    python check_queries.py PROMETHEUS_URL DEPLOY_FOLDER

Alerts that do not fire have no value: what they compare is asked for. Exit code 1: something is wrong.
"""

import json
import math
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import yaml

COMPARISON = re.compile(r"(?:==|!=|<=|>=|<|>)|\b(?:and|or|unless)\b")
TIMEOUT_S = 10.0
DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""A proxy that the environment names does not know the cluster's names."""


def dashboard_queries(folder: Path) -> Iterator[tuple[str, str]]:
    """Where every expression of a dashboard stands, and the expression."""
    for file in sorted(folder.glob("*.json")):
        for panel in json.loads(file.read_text(encoding="utf-8"))["panels"]:
            for target in panel["targets"]:
                yield f"{file.stem} / {panel['title']} / {target['refId']}", target["expr"]


def alert_queries(rules: Path) -> Iterator[tuple[str, str]]:
    """Where every operand of an alert's comparisons stands, and the operand."""
    for group in yaml.safe_load(rules.read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            for operand in operands(rule["expr"]):
                yield f"alert {rule['alert']}", operand


def operands(expr: str) -> list[str]:
    """What the comparisons outside all parentheses compare; numbers are left out."""
    parts, depth, start = [], 0, 0
    for match in re.finditer(rf"[({{]|[)}}]|\"[^\"]*\"|{COMPARISON.pattern}", expr):
        token = match[0]
        if token in "({":
            depth += 1
        elif token in ")}":
            depth -= 1
        elif depth == 0 and not token.startswith('"'):
            parts.append(expr[start : match.start()])
            start = match.end()
    parts.append(expr[start:])
    return [part.strip() for part in parts if not re.fullmatch(r"\s*-?[0-9.]+\s*", part)]


def ask(prometheus: str, expr: str) -> str:
    """OK, NAN (a value that is none), EMPTY (no data) or ERR with Prometheus's sentence."""
    url = f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': expr})}"
    try:
        with DIRECTLY.open(url, timeout=TIMEOUT_S) as answer:
            result = json.load(answer)["data"]["result"]
    except urllib.error.HTTPError as error:
        return f"ERR {json.load(error).get('error', error.reason)}"
    if not result:
        return "EMPTY"
    return "OK" if any(math.isfinite(float(sample["value"][1])) for sample in result) else "NAN"


def main(prometheus: str, deploy: Path) -> int:
    """Prints everything that is not OK, and a count; returns the exit code."""
    queries = [
        *dashboard_queries(deploy / "grafana" / "dashboards"),
        *alert_queries(deploy / "prometheus" / "alerts.yml"),
    ]
    counts: dict[str, int] = {}
    for place, expr in queries:
        answer = ask(prometheus, expr)
        kind = answer.split()[0]
        counts[kind] = counts.get(kind, 0) + 1
        if kind != "OK":
            print(f"{answer}\t{place}\t{expr}")
    print(f"{len(queries)} expressions: {', '.join(f'{n} {kind}' for kind, n in sorted(counts.items()))}")
    return 0 if counts.keys() == {"OK"} else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1].rstrip("/"), Path(sys.argv[2])))
