"""Bytes as what somebody sends between two ends of DTLS: from the right address, in the middle of their handshake."""

from __future__ import annotations

from rustpbx.media.dtls import Datagram, Failed, Secured
from rustpbx.media.dtls.tables import DtlsState
from tests.kit.peers_dtls import ALICE, BOB, DELAY, Couple

OVER = {DtlsState.SECURE, DtlsState.FAILED, DtlsState.CLOSED}


def disturb(data: bytes) -> None:
    """The first byte says whom it meets, and when; each datagram has its size before it, in two bytes.

    Nothing is raised; both ends come to an end in time; keys are those of the other end, or there are none.
    """
    if not data:
        return
    whom, other = (ALICE, BOB) if data[0] & 1 else (BOB, ALICE)
    couple = Couple().start().run(until=(data[0] >> 1) % 8 * DELAY + DELAY / 2)
    at = 1
    while at < len(data):
        size = int.from_bytes(data[at : at + 2])
        couple.give(whom, Datagram(data[at + 2 : at + 2 + size], other))
        at += 2 + size
    couple.run()
    assert {couple.alice.state, couple.bob.state} <= OVER
    firsts = [facts[0] for facts in couple.facts.values()]
    alice, bob = firsts
    if isinstance(alice, Secured) and isinstance(bob, Secured):
        assert (alice.keys.send, alice.keys.receive) == (bob.keys.receive, bob.keys.send)
    assert all(isinstance(fact, Secured | Failed) for fact in firsts)
