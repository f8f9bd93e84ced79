"""What a service counts, in the form that Prometheus reads."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from attfm.errors import MissingExtraError

if TYPE_CHECKING:
    from prometheus_client import Counter, Histogram

    from attfm.serve.http.loaded_run import LoadedRun

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
MEDIA_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
_OF_FIELDS = (
    ("attfm_values", "counter", "Values of a field in rows that were scored.", "values"),
    ("attfm_unknown_values", "counter", "Those of them that training did not know.", "unknown"),
    ("attfm_missing_values", "counter", "Those of them that were missing.", "missing"),
    ("attfm_drift_psi", "gauge", "Population stability index of the last rows against training.", "psi"),
    ("attfm_drift_psi_by_chance", "gauge", "What the index would be on average without any drift.", "by_chance"),
)  # fmt: skip


class Monitoring:
    """The counts of one service, each service's its own."""

    def __init__(self) -> None:
        try:
            import prometheus_client as prometheus
        except ImportError:
            raise MissingExtraError("prometheus-client is not installed: run 'pip install \"attfm[serve]\"'.") from None
        self._registry = prometheus.CollectorRegistry()
        self._run: Callable[[], LoadedRun] | None = None
        prometheus.ProcessCollector(registry=self._registry)
        prometheus.PlatformCollector(registry=self._registry)
        self._prometheus = prometheus
        self._requests: Counter = prometheus.Counter(
            "attfm_requests", "Requests that were answered.", ["path", "status"], registry=self._registry
        )
        self._seconds: Histogram = prometheus.Histogram(
            "attfm_request_seconds", "Time from a request's head to its answer.", ["path"], buckets=SECONDS,
            registry=self._registry,
        )  # fmt: skip
        self.rows: Counter = prometheus.Counter("attfm_rows", "Rows in answers.", registry=self._registry)
        self.batch_rows: Histogram = prometheus.Histogram(
            "attfm_batch_rows", "Single rows that were scored together.", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
            registry=self._registry,
        )  # fmt: skip
        self.reloads: Counter = prometheus.Counter(
            "attfm_reloads", "Run folders that were loaded while serving.", ["outcome"], registry=self._registry
        )
        self._children: dict[tuple[str, int], tuple[Any, Any]] = {}

    def answered(self, path: str, status: int, seconds: float, rows: int, *, count: int = 1) -> None:
        """Count a request; path : one of the service's own, or "other"; 0 seconds : `count` were refused unread."""
        children = self._children.get((path, status))
        if children is None:
            children = self._requests.labels(path, str(status)), self._seconds.labels(path)
            self._children[path, status] = children
        children[0].inc(count)
        if seconds:
            children[1].observe(seconds)
        if rows:
            self.rows.inc(rows)

    def watch(self, name: str, about: str, value: Callable[[], float]) -> None:
        """Report a value that is asked for when it is read."""
        self._prometheus.Gauge(name, about, registry=self._registry).set_function(value)

    def watch_run(self, run: "Callable[[], LoadedRun]") -> None:
        """Report the fields of the run that is served at the time."""
        self._run = run
        self._registry.register(self)

    def collect(self) -> Iterator[Any]:
        """Yield the metrics of the fields, and which run is served, as prometheus_client asks for them."""
        if self._run is None:
            return
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

        run = self._run()
        yield InfoMetricFamily(
            "attfm_run", "The run that is served.", {"version": run.version, "task": run.model.task.name}
        )
        drifts = run.drift.fields()
        for name, kind, about, attribute in _OF_FIELDS:
            family = (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(name, about, labels=["field"])
            for drift in drifts:
                value = getattr(drift, attribute)
                if value is not None:
                    family.add_metric([drift.field], value)
            yield family

    def text(self) -> bytes:
        """Return everything, as GET /metrics gives it."""
        text: bytes = self._prometheus.generate_latest(self._registry)
        return text
