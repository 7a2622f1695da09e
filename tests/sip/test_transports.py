"""Calls by every transport: what Via and Contact say, which connection is used, and what happens when it dies."""

from __future__ import annotations

import pytest
import trio

from rustpbx.sip.events import ByeReceived, HangUp
from rustpbx.sip.hop import Transport
from rustpbx.sip.shell.tls import Tls
from tests.kit.certificates import make_tls
from tests.kit.stacks import ALICE, BOB, read, talk, two_stacks

TARGETS = {
    Transport.UDP: f"sip:bob@{BOB}",
    Transport.TCP: f"sip:bob@{BOB};transport=tcp",
    Transport.TLS: f"sip:bob@{BOB};transport=tls",
    Transport.WS: f"sip:bob@{BOB}:5080;transport=ws",
    Transport.WSS: f"sips:bob@{BOB}:5081;transport=ws",
}
CONTACTS = {
    Transport.UDP: f"sip:bob@{BOB}:5060",
    Transport.TCP: f"sip:bob@{BOB}:5060;transport=tcp",
    Transport.TLS: f"sip:bob@{BOB}:5061;transport=tls",
    Transport.WS: f"sip:bob@{BOB}:5080;transport=ws",
    Transport.WSS: f"sips:bob@{BOB}:5081;transport=ws",
}


@pytest.fixture(scope="module")
def both_tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tls, Tls]:
    """Alice's and Bob's, who trust the same authority."""
    folder = tmp_path_factory.mktemp("tls")
    return make_tls(folder / "alice", ALICE, "alice.test"), make_tls(folder / "bob", BOB, "bob.test")


@pytest.mark.parametrize("transport", list(Transport))
async def test_a_call_by_each_transport(transport: Transport, both_tls: tuple[Tls, Tls]) -> None:
    """18.1.1, 8.1.1.8: Via and Contact name the transport; the call has one connection, and nothing is resent."""
    async with two_stacks(tls=both_tls) as (alice, bob, wire):
        leg = await talk(alice, bob, TARGETS[transport])
        invite, answer = read(bob.last("INVITE")), read(alice.last("200 INVITE"))
        assert (invite.via.transport, str(answer.contacts[0].uri)) == (transport, CONTACTS[transport])
        bob.stack.wish(HangUp(leg))
        await alice.until(ByeReceived)
        await trio.sleep(40)
        assert alice.titles == ["> INVITE", "< 100 INVITE", "< 200 INVITE", "> ACK", "< BYE", "> 200 BYE"]
        assert {one.peer.transport for one in alice.messages} == {transport}
        opened = alice.stack.counters["connections_opened"] + bob.stack.counters["connections_opened"]
        assert (opened, len(wire.transcript) > 0) == (int(transport.reliable), not transport.reliable)
