"""A process's figures for Prometheus, on a port of their own. The only file that imports prometheus_client.

Nothing is counted here. Every part turns the stats() of its components into Figures (actor/metrics.py,
replay/metrics.py, learner/metrics.py) at the moment it is asked, so a figure cannot differ from the stats.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate

from prometheus_client import start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry

from common.errors import FatalError
from common.histogram import HistogramStats
from common.settings import MetricsSettings


class Kind(StrEnum):
    """What a metric's values mean."""

    COUNTER = "counter"
    """Only rises, from the start of the process on; its name ends with _total."""
    GAUGE = "gauge"
    """A value of this moment."""
    HISTOGRAM = "histogram"
    """Values counted in buckets."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A name that Prometheus knows, in base units, and what it means."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()

    def __call__(self, value: "float | HistogramStats", *labels: str) -> "Figure":
        """This metric's value, for these values of its labels."""
        if len(labels) != len(self.labels) or isinstance(value, HistogramStats) != (
            self.kind is Kind.HISTOGRAM
        ):
            raise ValueError(f"{self.name} is a {self.kind} with the labels {self.labels}, not {labels}")
        return Figure(metric=self, value=value, labels=labels)


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One value of one metric."""

    metric: Metric
    value: float | HistogramStats
    labels: tuple[str, ...]


def counter(name: str, help_: str, *labels: str) -> Metric:
    """A metric that only rises."""
    return Metric(name=name, kind=Kind.COUNTER, help=help_, labels=labels)


def gauge(name: str, help_: str, *labels: str) -> Metric:
    """A metric of the moment."""
    return Metric(name=name, kind=Kind.GAUGE, help=help_, labels=labels)


def histogram(name: str, help_: str, *labels: str) -> Metric:
    """A metric in buckets."""
    return Metric(name=name, kind=Kind.HISTOGRAM, help=help_, labels=labels)


@contextlib.contextmanager
def serving_metrics(
    settings: MetricsSettings, collect: Callable[[], Iterable[Figure]]
) -> Iterator[int | None]:
    """Answers Prometheus in threads of its own while the context is open; each answer calls `collect`.

    Gives the port, None if the settings have none. Raises FatalError if the address cannot be listened on.
    """
    if not settings.serve:
        yield None
        return
    registry = CollectorRegistry(auto_describe=False)
    for standard in (ProcessCollector, PlatformCollector, GCCollector):
        standard(registry=registry)
    registry.register(_FigureCollector(collect))
    try:
        server, thread = start_http_server(settings.port, settings.host, registry=registry)
    except OSError as error:
        raise FatalError(
            f"Metrics cannot be served on {settings.host}:{settings.port} ({error.strerror}): "
            "choose another metrics.port, or metrics.serve=false."
        ) from error
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _FigureCollector(Collector):
    def __init__(self, collect: Callable[[], Iterable[Figure]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Family]:
        families: dict[str, Family] = {}
        for figure in self._collect():
            family = families.setdefault(figure.metric.name, _family(figure.metric))
            _add(family, figure)
        return families.values()


def _family(metric: Metric) -> Family:
    if metric.kind is Kind.COUNTER:
        return CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
    if metric.kind is Kind.GAUGE:
        return GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    return HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)


def _add(family: Family, figure: Figure) -> None:
    value = figure.value
    if isinstance(value, HistogramStats):
        assert isinstance(family, HistogramMetricFamily)
        bounds = (*map(str, value.bounds), "+Inf")
        buckets = list(zip(bounds, accumulate(value.counts), strict=True))
        family.add_metric(figure.labels, buckets=buckets, sum_value=value.total)
    else:
        assert isinstance(family, CounterMetricFamily | GaugeMetricFamily)
        family.add_metric(figure.labels, value)
