"""RTP ports: even, at random, rested."""

from __future__ import annotations

import random

import pytest

from rustpbx.errors import OverloadedError
from rustpbx.media.plane.pool import PortPool
from tests.media.plane_rig import Rig


def test_ports_are_even_and_each_is_given_once() -> None:
    """Every even port whose RTCP neighbour is in the range, in random order, then none."""
    pool = PortPool(12001, 12009, 30, random.Random(3))
    taken = [pool.take(0) for _ in range(pool.free)]
    assert sorted(taken) == [12002, 12004, 12006, 12008]
    assert taken != sorted(taken)
    with pytest.raises(OverloadedError):
        pool.take(0)


def test_a_port_rests_before_it_is_used_again() -> None:
    """Given back at 10 s with a quarantine of 30 s, it is there again at 40 s and not before."""
    pool = PortPool(12000, 12001, 30, random.Random(3))
    port = pool.take(0)
    pool.rest(port, 10)
    with pytest.raises(OverloadedError):
        pool.take(39.9)
    assert pool.take(40) == port


async def test_a_closed_leg_gives_its_ports_back_after_the_rest() -> None:
    """Both sockets are closed at once, the port number is used again only after the quarantine."""
    rig = Rig(first_port=12000, last_port=12001, quarantine=30.0)
    assert rig.open() == 12000
    assert rig.ports.opened == {12000, 12001}
    rig.plane.close_leg("a")
    assert rig.ports.opened == set()
    with pytest.raises(OverloadedError):
        rig.open("b")
    rig.clock.time += 30
    assert rig.open("b") == 12000


async def test_ports_that_others_hold_are_passed_over() -> None:
    """A port in use, or one whose neighbour is, costs a try; what was opened of it is closed again."""
    rig = Rig(first_port=12000, last_port=12005)
    rig.ports.taken = {12000, 12003}
    assert rig.open() == 12004
    assert rig.ports.opened == {12004, 12005}
    with pytest.raises(OverloadedError):
        rig.open("b")


async def test_slots_are_bounded_and_come_back() -> None:
    """With all slots in use a leg is refused and takes no port; a closed leg makes room."""
    rig = Rig(max_calls=2)
    rig.open("a")
    rig.open("b")
    with pytest.raises(OverloadedError):
        rig.open("c")
    rig.plane.close_leg("a")
    rig.open("c")
    assert rig.plane.legs == 2
    assert len(rig.ports.opened) == 4
