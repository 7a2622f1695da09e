"""`/metrics`: what Prometheus reads of a server, of its calls and of the services it uses."""

from __future__ import annotations

from ipaddress import ip_network

import attrs
import pytest
import trio
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from rustpbx.control.access import Access, RequestFacts
from rustpbx.media.events import LegStats
from rustpbx.media.plane.traffic import Ledger, Traffic
from rustpbx.metrics import MOST_PROVIDERS, ServerMetrics, SpeechMetrics
from rustpbx.outbound import open_client
from rustpbx.session.events import ErrorEvent, Metrics, Ping
from tests.kit.house import AGENT, House, open_house, server_config
from tests.test_calls import answered, over

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(text: str) -> Samples:
    """Every sample by its name and labels, as Prometheus' own parser reads it."""
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    result = {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in found}
    assert len(result) == len(found)  # a sample twice would fail the whole scrape
    return result


async def scrape(house: House, **headers: str) -> tuple[int, str]:
    """Status and text of `/metrics`, asked for over the network."""
    host, port = house.server.http
    async with open_client(house.wire.host(AGENT)) as client:
        reply = await client.get(f"http://{host}:{port}/metrics", headers=headers)
    return reply.status_code, reply.text


async def test_a_call_is_seen_in_the_metrics() -> None:
    """Before, during and after one call: its state, its packets, the clock's ticks, and the answers of HTTP."""
    config = server_config(tokens=("correct-horse-battery",), allow_anonymous=True)
    async with open_house(config) as house:
        token = {"authorization": "Bearer correct-horse-battery"}
        status, text = await scrape(house)
        assert (status, "need a token" in text) == (401, True)
        before = samples((await scrape(house, **token))[1])
        async with answered(house) as (_, agent):
            await trio.sleep(1)  # virtual: the length of the call
            during = samples((await scrape(house, **token))[1])
            await agent.send("hangup")
            await over(agent)
        after = samples((await scrape(house, **token))[1])
    states = [seen["rustpbx_calls", (("state", "talking"),)] for seen in (before, during, after)]
    assert states == [0, 1, 0]
    assert [seen["rustpbx_calls_started_total", ()] for seen in (before, during, after)] == [0, 1, 1]
    assert [seen["rustpbx_legs", ()] for seen in (before, during, after)] == [0, 1, 0]
    assert before["rustpbx_http_answers_total", (("status", "401"),)] == 1
    assert after["rustpbx_ticks_total", ()] > 0
    assert after["rustpbx_rtp_packets_sent_total", ()] > 0
    assert after["rustpbx_tick_lateness_seconds", (("quantile", "0.99"),)] == 0
    assert ("rustpbx_rtp_jitter_seconds", (("quantile", "1"),)) in after
    assert {("rustpbx_draining", ()), ("rustpbx_info", (("version", "0.1.0"),))} <= set(after)


async def test_a_refused_call_is_counted_by_its_reason() -> None:
    """A server that takes no more says how often it did not."""
    async with open_house(server_config(max_calls=1)) as house, answered(house):
        host, port = house.server.http
        async with open_client(house.wire.host(AGENT)) as client:
            upgrade = {"upgrade": "websocket", "connection": "upgrade", "sec-websocket-version": "13"}
            key = {"sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="}
            reply = await client.get(f"http://{host}:{port}/call/sip", headers=upgrade | key)
        assert reply.status_code == 503
        assert house.server.registry.health().refused == {"max_calls": 1}


def event(key: str, duration: int, **data: object) -> Metrics:
    """A measurement of a call."""
    return Metrics(timestamp=0, key=key, duration=duration, data=data)


def problem(sender: str) -> ErrorEvent:
    """An error of a call."""
    return ErrorEvent(track_id="t", timestamp=0, sender=sender, error="it failed")


def speech_samples(*events: Metrics | ErrorEvent | Ping) -> Samples:
    """What is counted of these events, the histograms' buckets and times of creation left out."""
    metrics = ServerMetrics()
    for one in events:
        metrics.speech.told(one)
    return {
        (name, labels): value
        for (name, labels), value in samples(metrics.text().decode()).items()
        if not name.endswith(("_bucket", "_created")) and name.startswith("rustpbx_speech")
    }


def labels(service: str, provider: str) -> tuple[tuple[str, str], ...]:
    """The labels of a speech service."""
    return (("provider", provider), ("service", service))


def test_speech_services_are_measured_by_provider() -> None:
    """First and whole results in seconds, errors by who failed; a cache is no service, other events say nothing."""
    found = speech_samples(
        event("ttfb.asr.aliyun", 250, index=1),
        event("ttfb.asr.aliyun", 350, index=2),
        event("completed.tts.deepgram", 1500, cached=False),
        event("completed.tts.deepgram", 0, cached=True),
        event("turn", 900),
        problem("tts.deepgram"),
        problem("invite"),
        Ping(timestamp=0, payload=""),
    )
    assert found == {
        ("rustpbx_speech_first_result_seconds_count", labels("asr", "aliyun")): 2,
        ("rustpbx_speech_first_result_seconds_sum", labels("asr", "aliyun")): pytest.approx(0.6),
        ("rustpbx_speech_completed_seconds_count", labels("tts", "deepgram")): 1,
        ("rustpbx_speech_completed_seconds_sum", labels("tts", "deepgram")): 1.5,
        ("rustpbx_speech_errors_total", labels("tts", "deepgram")): 1,
    }


def test_names_that_agents_invent_make_no_labels() -> None:
    """A provider that exists nowhere only fails, and counts as `other`; of working ones there are so many."""
    found = speech_samples(*(problem(f"asr.invented-{number}") for number in range(1000)))
    assert found == {("rustpbx_speech_errors_total", labels("asr", "other")): 1000}
    registry = CollectorRegistry()
    many = SpeechMetrics(registry)
    for number in range(1000):
        many.told(event(f"completed.asr.own-{number}", 10))
    counts = [s.labels["provider"] for f in registry.collect() for s in f.samples if s.name.endswith("_count")]
    assert len(counts) == MOST_PROVIDERS + 1
    assert "other" in counts


def test_traffic_outlives_its_legs_and_never_falls() -> None:
    """Counters that dip would look like a restart; a packet that comes late stays lost."""
    ledger = Ledger()
    one = LegStats(packets_sent=10, packets_received=8, packets_lost=2, packets_dropped=1, jitter=0.004)
    two = LegStats(packets_sent=5, packets_received=5, jitter=0.002)
    assert ledger.total([]) == Traffic()
    both = Traffic(
        packets_sent=15, packets_received=13, packets_lost=2, packets_dropped=1, jitter_p50=0.003, jitter_worst=0.004
    )
    assert ledger.total([one, two]) == both
    ledger.close(attrs.evolve(one, packets_received=9, packets_lost=1))
    after = attrs.evolve(both, packets_received=14, jitter_p50=0.002, jitter_worst=0.002)
    assert ledger.total([two]) == after


@pytest.mark.parametrize(
    ("headers", "allowed"), [({}, False), ({"authorization": "Bearer correct-horse"}, True)], ids=["bare", "token"]
)
def test_a_token_scrapes_whatever_the_list_of_administrators_says(headers: dict[str, str], allowed: bool) -> None:
    """The list names addresses for the routes that end calls; a scraper may show a token instead."""
    access = Access(tokens=("correct-horse",), ami_allows=(ip_network("10.1.1.1"),))
    facts = RequestFacts(method="GET", path="/metrics", peer="192.0.2.1", headers=headers)
    assert access.check(facts).allowed == allowed
    assert not access.check(attrs.evolve(facts, path="/call/lists")).allowed
