"""Metrics for Prometheus: counters that the server keeps anyway, read when somebody asks for them."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Protocol, TypeAlias

import msgspec
from msgspec import Meta
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from .. import __version__
from .._core import FLUSH_BOUNDS, PING_BOUNDS, has_epoll
from ..access.keys import Keys
from ..answers import Answer
from ..manager import ConnectionManager
from ..server import Server
from ..supervised import supervision
from .app import Web, WebRequest
from .port import with_own_port

if TYPE_CHECKING:
    from ..hooks.listener import Hooks
    from ..hooks.posting import Figures

__all__ = ["Metrics", "MetricsSettings", "add_to"]

LAG_EVERY = 0.1  # seconds between two looks at how late the loop is
LAG_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
REQUEST_BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# Of those that a peer chooses, any other is "other": strangers must not make up labels.
KNOWN_CODES = {*range(1000, 1004), *range(1005, 1015), 4001, 4400, 4401, 4403, 4404, 4409, 4413, 4429, 4500, 4503}

Samples: TypeAlias = Iterable[tuple[tuple[str, ...], float]]
# Of a report: name, meaning, type, and samples with name, labels and value.
Family: TypeAlias = tuple[str, str, str, list[tuple[str, dict[str, str], float]]]


class MetricsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section ``[metrics]``."""

    path: Annotated[Annotated[str, Meta(pattern="^/")], Meta(description="where the metrics are")] = "/metrics"
    listen: Annotated[
        str, Meta(description="host:port of a port of its own, where no key is needed; by default the server's port")
    ] = ""
    public: Annotated[
        bool, Meta(description="whether anybody may read them; otherwise a key of `[[api.keys]]` for `read` is needed")
    ] = False


def add_to(
    web: Web, server: Server, settings: MetricsSettings, *, keys: Keys | None = None, hooks: Hooks | None = None
) -> Metrics:
    """Serve a server's metrics by ``web``; returns them, so that they can watch further ones.

    Unless they are public or have a port of their own, nobody may read them without ``keys``. On the server's port they
    are answered while it is full, too.
    """
    metrics = Metrics(server, None if settings.public or settings.listen else keys or Keys(()), hooks)
    metrics.watch(web)
    if settings.listen:
        target, _ = with_own_port(web, "metrics", settings.listen)
        metrics.watch(target)
    else:
        target = web
        server.spared.add(settings.path)
    target.add("GET", settings.path, metrics.answer)
    web.run_with(metrics.watching_the_loop())
    if (link := supervision()) is not None:
        link.report(metrics.report)
    return metrics


class Webhooks(Protocol):
    """What is posted to a backend beside `Hooks`."""

    @property
    def figures(self) -> Figures:
        """What happened so far."""

    @property
    def pending(self) -> int:
        """How many events wait."""


class Metrics:
    """What a server has counted, as families of prometheus-client; without ``keys`` anybody may read it."""

    def __init__(self, server: Server, keys: Keys | None = None, hooks: Hooks | None = None) -> None:
        self._server = server
        self._keys = keys
        self._hooks = hooks
        #: Those of Pusher's protocol, if there are any.
        self.webhooks: Webhooks | None = None
        self._requests: Counter[tuple[str, str]] = Counter()
        self._request_seconds = Durations(REQUEST_BOUNDS)
        self._lag = Durations(LAG_BOUNDS)
        self._process = ProcessCollector(registry=None)

    def watch(self, web: Web) -> None:
        """Count what a web application answers."""
        web.observe(self._observe)

    def _observe(self, method: str, route: str, status: int, seconds: float) -> None:
        self._requests[route, str(status)] += 1
        self._request_seconds.add(seconds)

    # -- how late the loop is

    @contextlib.asynccontextmanager
    async def watching_the_loop(self) -> AsyncIterator[None]:
        """Look now and then how late a timer is, by which everything else on the loop is late, too."""
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle | None = None

        def look(due: float | None = None) -> None:
            nonlocal timer
            now = time.perf_counter()
            if due is not None:
                self._lag.add(max(now - due, 0.0))
            timer = loop.call_later(LAG_EVERY, look, now + LAG_EVERY)

        look()
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()

    # -- a scrape

    async def answer(self, request: WebRequest) -> Answer:
        """Returns all metrics in the format that is asked for; raises Reject without a key for that."""
        if self._keys is not None:
            self._keys.check(request.headers, "read", request.peer)
        encode, kind = choose_encoder(request.headers.get("accept", ""))
        link = supervision()
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Scrape(await self._all() if link is None else of_workers(await link.reports())))
        return Answer(200, encode(registry), {"Content-Type": kind, "Cache-Control": "no-store"})

    async def _all(self) -> list[Metric]:
        # It lists the open descriptors, which takes 50 ms where there are 20,000.
        process = await asyncio.to_thread(lambda: list(self._process.collect()))
        return [*self.collect(), *process]

    async def report(self) -> list[Family]:
        """Returns all families in a form that JSON can say, for another worker that is asked for all workers'."""
        return [
            (
                family.name,
                family.documentation,
                family.type,
                [(name, labels, value) for name, labels, value, *_ in family.samples],
            )
            for family in await self._all()
        ]

    def collect(self) -> Iterator[Metric]:
        """Yields all families but those of the process. To be called on the loop's thread."""
        yield from self._of_server()
        yield from self._of_endpoints()
        yield from self._of_web()
        if self._hooks is not None:
            yield from _of_hooks(self._hooks)
        if self.webhooks is not None:
            yield from _of_webhooks(self.webhooks)

    def _of_server(self) -> Iterator[Metric]:
        stats = self._server.stats
        engine = "epoll" if has_epoll and self._server.options.ssl is None else "transport"
        versions = ((__version__, "{}.{}.{}".format(*sys.version_info), engine), 1.0)
        yield gauge("build_info", "What is running.", ["version", "python", "engine"], [versions])
        yield gauge("draining", "1 from the beginning of a stop, otherwise 0.", [], [((), not self._server.is_ready)])
        yield gauge("backlog_bytes", "Bytes that wait to be sent.", [], [((), stats.get("backlog_bytes", 0))])
        yield gauge("arena_bytes", "Memory that holds what is sent.", [], [((), stats.get("arena_bytes", 0))])
        yield counter("received_bytes", "Bytes that came.", [], [((), stats.get("received_bytes", 0))])
        yield counter("sent_bytes", "Bytes that went out.", [], [((), stats.get("sent_bytes", 0))])
        yield from _of_cluster(stats.get("cluster", {}))
        counted = stats.get("handshakes", {})
        handshakes = [((path, str(status)), number) for (path, status), number in counted.items()]
        yield counter("handshakes", "Handshakes that were answered.", ["endpoint", "status"], handshakes)
        flushes = Durations(FLUSH_BOUNDS, stats.get("flushes"), stats.get("flush_seconds", 0.0))
        yield histogram("flush_seconds", "Time to write what a tick had queued.", [], [((), flushes)])
        pings = Durations(PING_BOUNDS, stats.get("pings"), stats.get("ping_seconds", 0.0))
        yield histogram("ping_seconds", "Time until a pong came, of one ping at a time.", [], [((), pings)])
        yield histogram("loop_lag_seconds", "How late the event loop was.", [], [((), self._lag)])

    def _of_endpoints(self) -> Iterator[Metric]:
        found = [Seen(manager) for manager in self._server.endpoints.values()]

        def by_endpoint(count: Callable[[Seen], float]) -> Samples:
            return [((seen.path,), count(seen)) for seen in found]

        for name, meaning in GAUGES.items():
            yield gauge(name, meaning, ["endpoint"], by_endpoint(lambda seen, name=name: seen.stats[name]))  # type: ignore[misc]
        for name, (source, meaning) in COUNTERS.items():
            yield counter(name, meaning, ["endpoint"], by_endpoint(lambda seen, source=source: seen.stats[source]))  # type: ignore[misc]
        received, dropped, closed, errors = (Counter[tuple[str, ...]]() for _ in range(4))
        for seen in found:
            binary = seen.stats["binary_received"]
            received[seen.path, "text"] = seen.stats["messages_received"] - binary
            received[seen.path, "binary"] = binary
            for policy in ("oldest", "newest"):
                dropped[seen.path, f"drop_{policy}"] = seen.stats[f"dropped_{policy}"]
            for (code, by), number in seen.manager.life.closes.items():
                closed[seen.path, str(code) if code in KNOWN_CODES else "other", by] += number
            for name, number in seen.manager.life.errors.items():
                errors[seen.path, name] = number
        yield counter("messages_received", "Messages that came.", ["endpoint", "type"], received.items())
        dropping = "Messages that were not sent to slow readers."
        yield counter("messages_dropped", dropping, ["endpoint", "policy"], dropped.items())
        closing = "Connections that ended: closed by the peer or the server, or lost without a word."
        yield counter("connections_closed", closing, ["endpoint", "code", "by"], closed.items())
        yield counter("handler_errors", "Exceptions of handlers.", ["endpoint", "handler"], errors.items())

    def _of_web(self) -> Iterator[Metric]:
        requests = "Requests over HTTP that fastws answered."
        yield counter("api_requests", requests, ["route", "status"], self._requests.items())
        yield histogram("api_request_seconds", "Time to answer them.", [], [((), self._request_seconds)])


GAUGES = {
    "connections": "Connections that are open.",
    "channels": "Channels that have a subscriber.",
    "users": "Users who are connected.",
    "subscriptions": "Subscribers of all channels, added up.",
}
# Name without "_total", where `ConnectionManager.stats` has it, and what it means.
COUNTERS = {
    "broadcasts": ("broadcasts", "Messages to a channel that had subscribers."),
    "deliveries": ("deliveries", "Messages queued, one for each recipient."),
    "compressed": ("compressed", "Times that a message was compressed: once for each size of window."),
    "compressed_before_bytes": ("compressed_before_bytes", "Bytes of these messages before."),
    "compressed_after_bytes": ("compressed_after_bytes", "Bytes that were left of them."),
    "expanded": ("expanded", "Compressed messages that came."),
    "expanded_bytes": ("expanded_bytes", "Bytes that were expanded of them."),
    "throttled": ("throttled", "Times that a peer was not read because it sent too fast."),
    "slow_readers_closed": ("closed_slow", "Connections closed with 1013 for more than max_backlog."),
    "unfinished_closed": ("closed_unfinished", "Connections closed with 1013 because of max_inbound."),
}
# The same of `Node.stats`, in `Server.stats["cluster"]`.
CLUSTER_GAUGES = {
    "nodes": ("nodes", "Servers that are one with this, itself included; 0 without logs and backplane."),
    "backplane_connected": ("connected", "1 if the store of logs and of the other nodes answers, otherwise 0."),
    "logs_followed": ("followed", "Logs that are followed here."),
    "log_bytes": ("log_bytes", "Memory for recent messages of logs, about."),
}
CLUSTER_COUNTERS = {
    "backplane_lost": ("lost", "Messages for other nodes that the store did not take."),
    "appends_failed": ("failed", "Messages to logs of which nobody knows whether they are stored."),
    "gaps_repaired": ("repaired", "Gaps in logs that were filled before anybody noticed."),
    "gaps_told": ("gaps", "Gaps in logs that could not be filled, and were told."),
}


class Seen:
    """An endpoint at the time of a scrape."""

    def __init__(self, manager: ConnectionManager) -> None:
        self.manager = manager
        self.path = manager.path
        self.stats = manager.stats


class Scrape:
    """Families that were collected, for a registry."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        """Returns them."""
        return self._families


class Durations:
    """How many took up to each bound, and in the last place how many took longer; and the sum of their seconds."""

    def __init__(self, bounds: tuple[float, ...], counts: list[int] | None = None, total: float = 0.0) -> None:
        self.bounds = bounds
        self.counts = counts or [0] * (len(bounds) + 1)
        self.total = total

    def add(self, seconds: float) -> None:
        """One more."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    @property
    def buckets(self) -> list[tuple[str, float]]:
        """As Prometheus has them: each with all that are in the ones below."""
        return list(zip([*map(str, self.bounds), "+Inf"], map(float, accumulate(self.counts)), strict=True))


def _of_cluster(stats: Mapping[str, float]) -> Iterator[Metric]:
    for name, (source, meaning) in CLUSTER_GAUGES.items():
        yield gauge(name, meaning, [], [((), stats.get(source, 0))])
    for name, (source, meaning) in CLUSTER_COUNTERS.items():
        yield counter(name, meaning, [], [((), stats.get(source, 0))])


def _of_hooks(hooks: Hooks) -> Iterator[Metric]:
    from ..hooks.posting import BUCKETS

    figures = hooks.figures
    yield gauge("hook_pending", "Asks and events that wait for the backend.", [], [((), hooks.pending)])
    reachable = "1 if the backend answered the last request, otherwise 0."
    yield gauge("hook_reachable", reachable, [], [((), figures.is_reachable)])
    yield counter("hook_requests", "Requests to the backend.", ["event", "result"], figures.requests.items())
    dropped = "Events that the backend never took."
    yield counter("hook_events_dropped", dropped, [], [((), figures.dropped)])
    seconds = {
        event: Durations(BUCKETS, counts, figures.seconds_sum[event]) for event, counts in figures.seconds.items()
    }
    taken = [((event,), each) for event, each in seconds.items()]
    yield histogram("hook_seconds", "Time that the backend took.", ["event"], taken)


def _of_webhooks(webhooks: Webhooks) -> Iterator[Metric]:
    figures = webhooks.figures
    yield gauge("webhook_pending", "Events that wait to be posted.", [], [((), webhooks.pending)])
    requests = [((result,), number) for (_, result), number in figures.requests.items()]
    yield counter("webhook_requests", "Webhooks that were posted.", ["result"], requests)
    yield counter("webhook_events_dropped", "Events that were never taken.", [], [((), figures.dropped)])


# -- families


def of_workers(reports: Mapping[str, list[Family]]) -> list[Metric]:
    """Returns the families of several workers, each sample with a label more: whose it is.

    They are not added up, since a counter of one that is started anew begins at 0 again.
    """
    families: dict[str, Metric] = {}
    for worker, report in reports.items():
        for name, meaning, kind, samples in report:
            family = families.setdefault(name, Metric(name, meaning, kind))
            for sample, labels, value in samples:
                family.add_sample(sample, {**labels, "worker": worker}, value)
    return list(families.values())


def gauge(name: str, meaning: str, labels: list[str], samples: Samples) -> Metric:
    """Returns a gauge."""
    family = GaugeMetricFamily(f"fastws_{name}", meaning, labels=labels)
    for values, number in samples:
        family.add_metric(values, float(number))
    return family


def counter(name: str, meaning: str, labels: list[str], samples: Samples) -> Metric:
    """Returns a counter; "_total" is added to its name."""
    family = CounterMetricFamily(f"fastws_{name}", meaning, labels=labels)
    for values, number in samples:
        family.add_metric(values, float(number))
    return family


def histogram(
    name: str, meaning: str, labels: list[str], samples: Iterable[tuple[tuple[str, ...], Durations]]
) -> Metric:
    """Returns a histogram."""
    family = HistogramMetricFamily(f"fastws_{name}", meaning, labels=labels)
    for values, durations in samples:
        family.add_metric(values, durations.buckets, durations.total)
    return family
