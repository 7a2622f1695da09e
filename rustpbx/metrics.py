"""What the server counts, for Prometheus: the body of `/metrics`, in its text format.

Every label's values are few and known from the code: no number, address or text of a call becomes one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client import Counter as Count
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rustpbx.media.plane.plane import Plane
from rustpbx.session.events import ErrorEvent, Event, Metrics
from rustpbx.session.shell.registry import Registry
from rustpbx.session.tables import Call
from rustpbx.sip.shell.stack import Stack
from rustpbx.speech.registry import BUILT_IN, LOCAL

OTHER = "other"
"""The label of providers beyond those we know, and `MOST_PROVIDERS` of the program's own."""
MOST_PROVIDERS = 20

_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
"""Between an answer that seems immediate and one that nobody waits for."""

_NOW = frozenset(
    {"transactions_running", "transactions_waiting_ack", "pending", "dialogs", "calls", "sources", "sources_failing"}
)
"""Those of the SIP counters that fall again."""


class SpeechMetrics:
    """How fast the speech services are, and how often they fail: read from the events that calls tell."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("service", "provider")
        self._first = Histogram(
            "rustpbx_speech_first_result_seconds",
            "From the begin of an utterance to its first words (asr), from the command to the first audio (tts).",
            labels,
            registry=registry,
            buckets=_SECONDS,
        )
        self._whole = Histogram(
            "rustpbx_speech_completed_seconds",
            "From the begin of an utterance to its final words (asr), from the command to the last audio (tts).",
            labels,
            registry=registry,
            buckets=_SECONDS,
        )
        self._errors = Count("rustpbx_speech_errors", "Errors of speech services.", labels, registry=registry)
        self._known = {*BUILT_IN, LOCAL}
        self._room = MOST_PROVIDERS

    def told(self, event: Event) -> None:
        """Take an event of any call; most say nothing of speech services."""
        match event:
            case Metrics(key=key, duration=milliseconds):
                what, service, provider = _split(key)
                measured = {"ttfb": self._first, "completed": self._whole}.get(what)
                if measured is not None and service and not event.data.get("cached"):
                    self._meet(provider)
                    measured.labels(service, self._label(provider)).observe(milliseconds / 1000)
            case ErrorEvent(sender=sender):
                service, _, provider = sender.partition(".")
                if service in ("asr", "tts") and provider:
                    self._errors.labels(service, self._label(provider)).inc()
            case _:
                pass

    def _meet(self, provider: str) -> None:
        """A service that works is there: what agents merely name is none."""
        if provider not in self._known and self._room:
            self._room -= 1
            self._known.add(provider)

    def _label(self, provider: str) -> str:
        return provider if provider in self._known else OTHER


def _split(key: str) -> tuple[str, str, str]:
    """`ttfb.asr.aliyun` in its three parts; empty ones for a key of another kind."""
    parts = key.split(".", 2)
    return (parts[0], parts[1], parts[2]) if len(parts) == 3 and parts[1] in ("asr", "tts") else ("", "", "")


class ServerMetrics(Collector):
    """All metrics of one server. `http` are the counters of its HTTP side.

    The numbers are read when they are asked for; only the speech services' are kept here, by `speech`.
    """

    def __init__(self) -> None:
        self.http: Counter[str] = Counter()
        self._sources: tuple[Registry, Plane, Stack | None] | None = None
        self._registry = CollectorRegistry()
        self.speech = SpeechMetrics(self._registry)
        self._registry.register(self)

    def watch(self, registry: Registry, plane: Plane, stack: Stack | None) -> None:
        """Read these from now on."""
        self._sources = (registry, plane, stack)

    def text(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Read everything, as Prometheus' client library asks for it."""
        yield _labelled("rustpbx_http_answers", "HTTP answers by status.", "status", _prefixed(self.http, "answered_"))
        if self._sources is not None:
            registry, plane, stack = self._sources
            yield from _calls(registry)
            yield from _clock(plane)
            yield from _rtp(plane)
            if stack is not None:
                told = {name: count for name, count in stack.counters.items() if name not in _NOW}
                yield _labelled("rustpbx_sip_events", "What the SIP side met, by name.", "event", told)
            yield _labelled("rustpbx_media_events", "What the media plane met, by name.", "event", plane.counters)


def _calls(registry: Registry) -> Iterator[Metric]:
    health = registry.health()
    states = Counter(call.core.state for call in registry.calls.values())
    yield _info(health.version)
    yield GaugeMetricFamily("rustpbx_draining", "1 while no new calls are taken.", int(health.status != "running"))
    up = GaugeMetricFamily("rustpbx_calls", "Calls that are up, by their state.", labels=("state",))
    for state in Call:
        up.add_metric((state.name.lower(),), states[state])
    yield up
    yield CounterMetricFamily("rustpbx_calls_started", "Calls since the start.", health.total)
    yield CounterMetricFamily("rustpbx_calls_failed", "Of those, the ones that failed.", health.failed)
    yield GaugeMetricFamily("rustpbx_calls_pending", "Incoming calls that nobody has answered.", health.pending)
    yield _labelled("rustpbx_refused", "Requests that were not served, by the reason.", "reason", health.refused)


def _info(version: str) -> Metric:
    family = GaugeMetricFamily("rustpbx_info", "The version that runs.", labels=("version",))
    family.add_metric((version,), 1)
    return family


def _clock(plane: Plane) -> Iterator[Metric]:
    late, clock = plane.lateness, plane.clock
    lateness = {"0.5": late.p50, "0.99": late.p99, "1": late.worst}
    yield _quantiles("rustpbx_tick_lateness_seconds", "How late the ticks of the last minute began.", lateness)
    yield CounterMetricFamily("rustpbx_ticks", "Ticks of the media clock.", clock.ticks)
    yield CounterMetricFamily("rustpbx_ticks_skipped", "Ticks that could not be made up.", clock.skipped)
    yield CounterMetricFamily("rustpbx_ticks_slow", "Ticks that took more than half their time.", clock.slow)
    yield CounterMetricFamily("rustpbx_ticks_failed", "Ticks that an error of ours ended.", clock.failed)
    yield CounterMetricFamily("rustpbx_frames_due", "Frames of 20 ms that were to be sent.", plane.frames_due)
    yield CounterMetricFamily("rustpbx_frames_sent", "Frames of 20 ms that were sent.", plane.frames_sent)


def _rtp(plane: Plane) -> Iterator[Metric]:
    traffic = plane.traffic()
    yield GaugeMetricFamily("rustpbx_legs", "Media legs that are open.", plane.legs)
    yield CounterMetricFamily("rustpbx_rtp_packets_sent", "RTP packets sent.", traffic.packets_sent)
    yield CounterMetricFamily("rustpbx_rtp_packets_received", "RTP packets received.", traffic.packets_received)
    yield CounterMetricFamily("rustpbx_rtp_packets_lost", "RTP packets that never came.", traffic.packets_lost)
    yield CounterMetricFamily("rustpbx_rtp_packets_dropped", "RTP packets of no use.", traffic.packets_dropped)
    jitter = {"0.5": traffic.jitter_p50, "1": traffic.jitter_worst}
    yield _quantiles("rustpbx_rtp_jitter_seconds", "Interarrival jitter of the open legs.", jitter)


def _labelled(name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=(label,))
    for key, count in sorted(counts.items()):
        family.add_metric((key,), count)
    return family


def _quantiles(name: str, text: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=("quantile",))
    for quantile, value in values.items():
        family.add_metric((quantile,), value)
    return family


def _prefixed(counters: Mapping[str, int], prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): count for name, count in counters.items() if name.startswith(prefix)}
