"""The bench itself: that it runs, and that it judges as it says. What it measures is not judged here."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from bench import bridges, codecs, vad, webrtc
from bench.__main__ import VoidError, collect
from bench.judge import COMPARED, LARGE, MIDDLE, SMALL, Results, quickest
from bench.messages import Messages
from bench.report import section
from bench.run import Run, delays
from bench.signalling import Signalling
from bench.srtp import BLOCK
from rustpbx.media.codec.opus import OpusCoder
from rustpbx.media.plane.foresight import FEW

ROOT = Path(__file__).parents[1]

RUN = Run(
    calls=SMALL,
    cpu=10.0,
    sent=100.0,
    sent_by_count=100.0,
    lost=0,
    tick_late_p99=1.0,
    tick_late_max=2.0,
    jitter_p50=0.1,
    jitter_p99=2.0,
    jitter_max=4.0,
    heard=(120.0, 150.0),
    said=(10.0, 20.0),
    memory=100 * 1024,
    speech_facts=5,
    foreign=0.0,
    load_late=0.1,
)
SIGNALLING = Signalling(
    begun=100,
    answered=100,
    ended=100,
    failed=0,
    retransmitted=0,
    per_second=50.0,
    p50=2.0,
    p95=4.0,
    longest=9.0,
    cpu=3.0,
)


def results(further: float = 0.10, *, naive: float = 100.0, **large: float) -> Results:
    """A machine on which each further call costs so much, and a naive server costs so much at `COMPARED` calls."""

    def run(calls: int, **changes: float) -> Run:
        return attrs.evolve(RUN, calls=calls, cpu=5 + further * calls, memory=calls * 1024, **changes)  # type: ignore[arg-type]

    return Results(
        plane={SMALL: [run(SMALL)], COMPARED: [run(COMPARED)], MIDDLE: [run(MIDDLE)], LARGE: [run(LARGE, **large)]},
        naive=[attrs.evolve(RUN, calls=COMPARED, cpu=naive)],
        bare=0.05,
        embedded=SIGNALLING,
        websocket=SIGNALLING,
        busy=SIGNALLING,
        messages=Messages(parse=70.0, encode=20.0, sippy_parse=60.0, sippy_encode=40.0),
    )


def missed(measured: Results) -> list[str]:
    """The bars that were missed, by their first words."""
    return [verdict.asked.split(",")[0] for verdict in measured.verdicts() if not verdict.held]


def test_a_good_machine_holds_every_bar() -> None:
    """Cheap calls, all frames sent: nothing is missed, and the figures are those of the best runs."""
    measured = results()
    assert missed(measured) == []
    assert measured.further == pytest.approx(0.10)
    assert measured.memory == pytest.approx(1.0)
    assert measured.naive_ratio == pytest.approx(100 / 15)


def test_each_bar_can_be_missed() -> None:
    """A cost, a share, a jitter or a ratio beyond its bar is named, and only that."""
    assert missed(results(0.135)) == [f"each call beyond {SMALL}"]
    assert missed(results(jitter_p99=5.1)) == [f"send jitter p99 at {LARGE} calls"]
    assert missed(results(naive=44.0)) == [f"times cheaper per frame than the naive design at {COMPARED} calls"]
    assert missed(results(sent=99.8)) == [f"a call of {LARGE}"]
    slow = attrs.evolve(results(), embedded=attrs.evolve(SIGNALLING, p95=10.5))
    assert missed(slow) == ["INVITE to 200 p95"]


def test_void_measurements_are_repeated_until_enough_count() -> None:
    """Each kind gets as many counted runs as wanted, however many void ones come between; too few are an error."""
    void = attrs.evolve(RUN, load_late=100.0)
    unlucky = iter([void, RUN, void, void, RUN])
    assert collect({"a": lambda: RUN, "b": lambda: next(unlucky)}, 2) == {"a": [RUN, RUN], "b": [RUN, RUN]}
    with pytest.raises(VoidError, match="only 0 measurements of c count"):
        collect({"a": lambda: RUN, "c": lambda: void}, 2)


def test_the_quickest_signalling_counts_if_it_lost_nothing() -> None:
    """The shortest p95 counts, but never that of a run in which a call failed while another lost none."""
    hasty, sound = attrs.evolve(SIGNALLING, p95=1.0, ended=99), attrs.evolve(SIGNALLING, p95=3.0)
    assert quickest([SIGNALLING, hasty, sound]) == sound
    assert quickest([hasty]) == hasty


def test_a_server_that_sends_less_is_not_cheap() -> None:
    """The cheapest run counts only among those that sent their frames; without any there is no figure."""
    lazy, honest = attrs.evolve(RUN, cpu=1.0, sent=60.0), attrs.evolve(RUN, cpu=12.0)
    assert attrs.evolve(results(), plane={SMALL: [lazy, honest]}).best(SMALL) == honest
    assert attrs.evolve(results(), plane={SMALL: [lazy]}).further == math.inf


def test_a_busy_machine_and_a_late_load_are_void() -> None:
    """Such runs say why they do not count."""
    assert RUN.void is None
    assert attrs.evolve(RUN, foreign=12.4).void == "other programs used 12 % of the machine"
    assert attrs.evolve(RUN, load_late=7.0).void == "the phones were 7.0 ms late themselves"


def test_delays_belong_to_the_click_before() -> None:
    """A click that arrives is matched with the last one sent on its call; one that nobody sent is left out."""
    sent = [(1, 10.0), (1, 11.0), (2, 10.5)]
    assert delays(sent, [(1, 10.12), (2, 10.61), (1, 11.13), (3, 12.0), (2, 10.0)]) == pytest.approx((120.0, 130.0))
    assert delays([], []) == (0.0, 0.0)


def test_the_report_shows_what_was_not_held() -> None:
    """A size at which too few frames were sent has a row that says so."""
    text = section(results(sent=50.0))
    assert f"| {LARGE} | not held |" in text
    assert "MISSED" in text


@pytest.mark.interop("cc")
@pytest.mark.real_time
def test_it_runs() -> None:
    """`python -m bench --quick` compiles its load, measures each part for a moment and ends well."""
    ran = subprocess.run(
        [sys.executable, "-m", "bench", "--quick"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    lines = ran.stdout.splitlines()
    assert [line.split()[1] for line in lines[:3]] == ["calls"] * 3
    assert "calls went through" in lines[3]


async def test_the_bench_of_voice_activity_runs() -> None:
    """A moment of each part: every detector that can be had here is measured, and a ratio is what it says."""
    assert vad.Figures(rate=8000, together=20.0, alone=90.0).ratio == 4.5
    figures = vad.infer(8000, calls=3, rounds=2)
    assert min(figures.together, figures.alone) > 0
    costs = await vad.watch(calls=3, ticks=2 * BLOCK)
    assert list(costs)[:3] == ["none", "webrtc", "silero"]
    assert min(costs.values()) > 0


async def test_the_bench_of_bridges_runs() -> None:
    """A moment of it: each pair of codecs, with a bridge and without."""
    found = bridges.costs(pairs=2, ticks=2 * BLOCK)
    assert set(bridges.BARS) < set(found)
    assert all(min(pair) > 0 for pair in found.values())


@pytest.mark.parametrize("server", [[webrtc.OURS], [webrtc.THEIRS, "0"]], ids=["ours", "aiortc"])
def test_the_bench_of_browsers_runs(server: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two calls for a moment: they are connected, both hear each other, and both sides are measured."""
    monkeypatch.setattr(webrtc, "WARM_UP", 0.3)
    run = webrtc.measure("x", server, calls=2, seconds=0.5)
    assert (run.name, run.calls, len(run.handshakes)) == ("x", 2, 2)
    assert run.cpu > 0
    assert run.sent > 30
    assert str(run).startswith("x ")
    late = attrs.evolve(run, load_late=99.0, foreign=0.0)
    assert late.void == "the callers were 99.0 ms late themselves"


async def test_the_bench_of_codecs_runs() -> None:
    """Each coder is measured both ways, and a leg of each codec in the plane."""
    cost = codecs.coder_cost(OpusCoder, rounds=1)
    assert min(cost.speech, cost.silence, cost.decoding) > 0
    assert 30 < cost.size <= 60
    costs = await codecs.leg_costs(legs=2, ticks=2 * BLOCK)
    assert set(costs) == {"PCMU", "G722", "opus"}
    assert min(costs.values()) > 0


@pytest.mark.real_time
async def test_the_bench_of_encoding_ahead_runs() -> None:
    """Some legs more than a tick encodes by itself, with a thread and without."""
    assert min(await codecs.loop_costs(legs=FEW + 1, ticks=2 * BLOCK)) > 0
