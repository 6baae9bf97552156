"""What the server counts, in the form that Prometheus reads. Its labels are the models that are served."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_MILLISECONDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
_SECONDS = (0.001, 0.01, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)


class ServingMetrics:
    """Counters of one server.

    Args:
        models: The base and all adapters.
    """

    def __init__(self, models: list[str]) -> None:
        self._registry = registry = CollectorRegistry()
        self._switches = Counter("neuroada_switches", "Switches to a model's weights", ["model"], registry=registry)
        self._failures = Counter("neuroada_switch_failures", "Switches that failed", registry=registry)
        self._milliseconds = Histogram(
            "neuroada_switch_milliseconds",
            "Time of a switch, with the reset of the prefix cache, and without the wait for running requests",
            buckets=_MILLISECONDS,
            registry=registry,
        )
        self._waiting = Gauge(
            "neuroada_requests_waiting", "Requests that wait for their model's turn", ["model"], registry=registry
        )
        self._running = Gauge(
            "neuroada_requests_running", "Requests that vLLM answers now", ["model"], registry=registry
        )
        self._waited = Histogram(
            "neuroada_wait_seconds", "Time from a request's arrival to its turn", buckets=_SECONDS, registry=registry
        )
        self._current = Gauge(
            "neuroada_current_model", "1 for the model whose weights are in place", ["model"], registry=registry
        )
        self._requests = Counter(
            "neuroada_requests", "Requests that were answered", ["model", "status"], registry=registry
        )
        self._models = models
        for name in models:
            for metric in (self._switches, self._waiting, self._running, self._current):
                metric.labels(name)

    def switched(self, model: str, milliseconds: float) -> None:
        """The weights are this model's now."""
        self._switches.labels(model).inc()
        self._milliseconds.observe(milliseconds)

    def switch_failed(self) -> None:
        """A switch went wrong."""
        self._failures.inc()

    def is_current(self, model: str | None) -> None:
        """Whose weights are in place; None if that is unknown."""
        for name in self._models:
            self._current.labels(name).set(name == model)

    def waiting(self, model: str, number: int) -> None:
        """So many requests wait for this model."""
        self._waiting.labels(model).set(number)

    def waited(self, seconds: float) -> None:
        """A request has got its turn."""
        self._waited.observe(seconds)

    def running(self, model: str, change: int) -> None:
        """A request has begun or ended."""
        self._running.labels(model).inc(change)

    def answered(self, model: str, status: int) -> None:
        """A request has got its status."""
        self._requests.labels(model, str(status)).inc()

    def text(self) -> str:
        """All of them."""
        return generate_latest(self._registry).decode()
