"""Legs on which nothing arrives: told of after the time-out, and only if something should arrive."""

from __future__ import annotations

import pytest

from rustpbx.media.events import Direction, MediaSilent
from rustpbx.media.rtcp import ReceiverReport, build_rtcp
from tests.media.plane_rig import STRANGER, Rig, Stream, g711

TIMEOUT = 3.0
SECOND = 50
"""Ticks in one."""


def told(rig: Rig) -> list[MediaSilent]:
    """What was told of silence."""
    return [fact for fact in rig.told() if isinstance(fact, MediaSilent)]


async def test_a_silent_leg_is_told_of_once_each_time_out() -> None:
    """Not before it, soon after it, and again after as long; 0.5 s is how exact it is."""
    rig = Rig(media_timeout=TIMEOUT)
    rig.open()
    rig.tick(int(2.9 * SECOND))
    assert told(rig) == []
    rig.tick(int(1.2 * SECOND))
    assert told(rig) == [MediaSilent("a", TIMEOUT)]
    rig.tick(int(3.5 * SECOND))
    assert told(rig) == [MediaSilent("a", TIMEOUT)]


async def test_a_packet_now_and_then_is_enough() -> None:
    """RTP every two seconds; when it stops, the time counts from the last."""
    rig = Rig(media_timeout=TIMEOUT)
    port, stream = rig.open(), Stream()
    for _ in range(6):
        rig.ports.arrive(port, stream.packet())
        rig.tick()
        rig.ports.arrive(port, stream.packet())
        rig.tick(2 * SECOND - 1)
    assert told(rig) == []
    rig.tick(2 * SECOND)
    assert told(rig) == [MediaSilent("a", TIMEOUT)]


async def test_rtcp_alone_keeps_a_leg() -> None:
    """A muted phone that still reports is there."""
    rig = Rig(media_timeout=TIMEOUT)
    port = rig.open()
    for _ in range(6):
        rig.ports.arrive(port + 1, build_rtcp([ReceiverReport(ssrc=7)]), ("192.0.2.7", 4001))
        rig.tick(2 * SECOND)
    assert told(rig) == []


async def test_a_strangers_packets_keep_no_leg() -> None:
    """What is dropped is no sign of life."""
    rig = Rig(media_timeout=TIMEOUT)
    port, stream, stranger = rig.open(), Stream(), Stream(ssrc=1)
    for _ in range(SECOND // 2):
        rig.ports.arrive(port, stream.packet())
        rig.tick()
    for _ in range(4 * SECOND):
        rig.ports.arrive(port, stranger.packet(), STRANGER)
        rig.tick()
    assert told(rig) == [MediaSilent("a", TIMEOUT)]


@pytest.mark.parametrize("held", [Direction.SENDONLY, Direction.RECVONLY, Direction.INACTIVE])
async def test_a_hold_suspends_it(held: Direction) -> None:
    """However long the hold: the time counts anew from its end."""
    rig = Rig(media_timeout=TIMEOUT)
    rig.open()
    rig.tick(2 * SECOND)
    rig.plane.set_remote("a", g711(direction=held))
    rig.tick(20 * SECOND)
    rig.plane.set_remote("a", g711())
    rig.tick(int(2.9 * SECOND))
    assert told(rig) == []
    rig.tick(int(1.2 * SECOND))
    assert told(rig) == [MediaSilent("a", TIMEOUT)]


async def test_without_a_time_out_nobody_looks() -> None:
    """The default."""
    rig = Rig()
    rig.open()
    rig.tick(100 * SECOND)
    assert told(rig) == []


async def test_a_leg_may_have_a_limit_of_its_own() -> None:
    """It is told of after that, whatever the plane has; the others are as they were."""
    for general in (None, 20.0):
        rig = Rig(media_timeout=general)
        rig.open("a")
        rig.open("b")
        rig.plane.limit_silence("a", 2.0)
        rig.tick(3 * 50)
        assert rig.told("a") == [MediaSilent("a", 2.0)]
        assert rig.told("b") == []
