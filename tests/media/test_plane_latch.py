"""Whom a leg believes."""

from __future__ import annotations

from rustpbx.media.plane.latch import CANDIDATES, ENOUGH, LEARN_FOR, Latch
from tests.media.plane_rig import PHONE, STRANGER

OTHER = ("198.51.100.3", 9000)


def test_the_signalled_address_is_believed_at_once_and_for_good() -> None:
    """One packet from the address in SDP, and nobody else gets in."""
    latch = Latch(PHONE, now=0)
    assert latch.offer(PHONE, 1, 100, 0.1)
    assert not any(latch.offer(STRANGER, 9, sequence, 0.2) for sequence in range(100))
    assert latch.address == PHONE


def test_a_translated_address_is_learned_after_a_run() -> None:
    """Behind NAT: the fifth packet in sequence makes a stranger the peer, the ones before are dropped."""
    latch = Latch(PHONE, now=0)
    verdicts = [latch.offer(STRANGER, 9, 65533 + step & 0xFFFF, 1.0) for step in range(ENOUGH + 1)]
    assert verdicts == [False] * (ENOUGH - 1) + [True, True]
    assert latch.send_to == STRANGER


def test_gaps_and_other_ssrcs_start_the_run_again() -> None:
    """Packets that are not one stream in sequence teach nothing."""
    latch = Latch(PHONE, now=0)
    assert not any(latch.offer(STRANGER, 9, 2 * step, 1.0) for step in range(50))
    assert not any(latch.offer(OTHER, step, step, 1.0) for step in range(50))
    assert latch.address is None


def test_nothing_is_learned_later() -> None:
    """After the first seconds only the signalled address can still be believed."""
    latch = Latch(PHONE, now=0)
    assert not any(latch.offer(STRANGER, 9, step, LEARN_FOR + 0.1) for step in range(50))
    assert latch.offer(PHONE, 1, 1, 60.0)


def test_a_learned_address_is_locked_but_for_the_signalled_one() -> None:
    """A second stranger never replaces the first; the signalled address does within the first seconds only."""
    early, late = Latch(PHONE, now=0), Latch(PHONE, now=0)
    for latch in (early, late):
        for step in range(ENOUGH):
            latch.offer(STRANGER, 9, step, 1.0)
        assert not any(latch.offer(OTHER, 8, step, 1.5) for step in range(50))
    assert early.offer(PHONE, 1, 1, 2.0)
    assert early.address == PHONE
    assert not late.offer(PHONE, 1, 1, LEARN_FOR + 1)
    assert late.address == STRANGER


def test_a_spray_of_sources_is_bounded() -> None:
    """Only a few strangers are watched at once, so a spray costs no memory; the signalled address still gets in."""
    latch = Latch(PHONE, now=0)
    for port in range(1000):
        latch.offer(("203.0.113.1", port), port, 0, 1.0)
    assert not any(latch.offer(("203.0.113.1", CANDIDATES), 5, step, 1.0) for step in range(50))
    assert latch.offer(PHONE, 1, 1, 1.1)
