"""Calls by every transport: what Via and Contact say, which connection is used, and what happens when it dies."""

from __future__ import annotations

import ssl
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing
import trustme

from rustpbx.errors import ConfigError
from rustpbx.shell.records import Srv
from rustpbx.sip.encoder import encode_message
from rustpbx.sip.events import (
    Answer,
    ByeReceived,
    CallAnswered,
    CallProgress,
    CallRefused,
    HangUp,
    IncomingCall,
    Ring,
)
from rustpbx.sip.hop import Transport
from rustpbx.sip.message import Request, Via
from rustpbx.sip.parser import parse_message
from rustpbx.sip.shell.tls import Tls
from rustpbx.testing.wire import open_wire
from tests.kit.certificates import make_files, make_tls
from tests.kit.peers_sip import ANSWER, LEG, OFFER, invite, request
from tests.kit.stacks import (
    ALICE,
    BOB,
    call_to,
    make_stack,
    open_stacks,
    options,
    raw_stream,
    read,
    talk,
    text_of,
    two_stacks,
)

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


@pytest.mark.rfc("3261", "18.1.1", "8.1.1.8")
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


async def test_a_call_over_ipv6_by_tcp() -> None:
    """IPv6 works on a connection as it does in datagrams: Via and Contact carry brackets, the peer is its address."""
    alice_host, bob_host = "2001:db8::1", "2001:db8::2"
    async with open_wire(seed=3) as wire:
        alice, bob = make_stack(wire, alice_host), make_stack(wire, bob_host)
        async with open_stacks(alice, bob):
            alice.stack.wish(call_to(f"sip:bob@[{bob_host}];transport=tcp", host=alice_host))
            incoming = await bob.until(IncomingCall)
            assert isinstance(incoming, IncomingCall)
            bob.stack.wish(Answer(incoming.leg, ANSWER))
            await alice.until(CallAnswered)
            invite = read(bob.last("INVITE"))
            assert str(invite.contacts[0].uri) == f"sip:alice@[{alice_host}]:5060;transport=tcp"
            assert (invite.via.host, incoming.source[0]) == (alice_host, alice_host)


@pytest.mark.rfc("3261", "18.2.2")
async def test_responses_use_the_connection_of_the_request_and_not_the_via() -> None:
    """A client whose Via leads nowhere is answered where it is; nothing else is opened."""
    async with two_stacks() as (_, bob, wire), raw_stream(wire, ALICE, (BOB, 5060)) as raw:
        await raw.send(text_of(options(via="10.9.9.9:5999")))
        assert (await raw.message()).status == 200  # type: ignore[union-attr]  # a response
        assert bob.stack.counters["connections_opened"] == 0


@pytest.mark.rfc("3261", "18.2.2")
async def test_a_response_whose_connection_is_gone_opens_one_to_the_via() -> None:
    """The caller's connection breaks while the phone rings: the answer still arrives, by another one."""
    async with two_stacks() as (alice, bob, wire):
        alice.stack.wish(call_to(TARGETS[Transport.TCP]))
        incoming = await bob.until(IncomingCall)
        bob.stack.wish(Ring(incoming.leg))
        await alice.until(CallProgress)
        wire.reset(ALICE, BOB)
        await trio.testing.wait_all_tasks_blocked()
        bob.stack.wish(Answer(incoming.leg, ANSWER))
        await alice.until(CallAnswered)
        assert (bob.stack.counters["connections_opened"], alice.stack.counters["connections_accepted"]) == (1, 1)


@pytest.mark.parametrize("lost", ["before", "unnoticed"])
async def test_a_bye_after_the_connection_died_goes_by_a_new_one(lost: str) -> None:
    """Whether the end of the connection was seen or shows itself only now, the BYE arrives and is answered, once."""
    async with two_stacks() as (alice, bob, wire):
        await talk(alice, bob, TARGETS[Transport.TCP])
        if lost == "before":
            wire.reset(ALICE, BOB)
            await trio.testing.wait_all_tasks_blocked()
            alice.stack.wish(HangUp(LEG))
        else:
            alice.stack.wish(HangUp(LEG))
            wire.reset(ALICE, BOB)
        await bob.until(ByeReceived)
        await alice.stack.flush()
        assert alice.titles[-1] == "< 200 BYE"
        assert (bob.titles.count("< BYE"), alice.stack.counters["connections_opened"]) == (1, 2)


async def test_a_request_is_not_sent_a_third_time() -> None:
    """A peer that closes each connection with our request unread: two tries, then 503."""
    async with open_wire(seed=3) as wire, trio.open_nursery() as nursery:
        alice = make_stack(wire, ALICE)
        listener = await wire.host(BOB).listen(BOB, 5060)
        await nursery.start(alice.stack.run)
        alice.stack.wish(call_to(TARGETS[Transport.TCP]))
        for _ in range(2):
            stream = await listener.accept()
            await stream.receive_some()
            stream.reset()
        assert await alice.until(CallRefused) == CallRefused(LEG, 503, "the connection is gone: connection reset")
        assert (alice.stack.counters["resent"], len(listener.accepted)) == (1, 2)
        nursery.cancel_scope.cancel()


@pytest.mark.rfc("3261", "18.4")
async def test_a_refused_connection_is_503_at_once() -> None:
    """18.4: nobody listens there; no timer has to run out."""
    async with two_stacks() as (alice, _, _wire):
        alice.stack.wish(call_to(f"sip:bob@{BOB}:5999;transport=tcp"))
        refused = await alice.until(CallRefused)
        assert isinstance(refused, CallRefused)
        assert (refused.status, trio.current_time() < 1.0) == (503, True)
        assert alice.stack.counters["connections_failed"] == 1


@pytest.mark.rfc("3261", "18.1.1")
async def test_calls_to_one_peer_share_a_connection() -> None:
    """18.1.1: reuse by transport and address; the far end's requests in the calls use it too."""
    async with two_stacks() as (alice, bob, _):
        first = await talk(alice, bob, TARGETS[Transport.TCP], "one")
        await talk(alice, bob, TARGETS[Transport.TCP], "two")
        bob.stack.wish(HangUp(first))
        assert await alice.until(ByeReceived) == ByeReceived("one")
        opened = [side.stack.counters["connections_opened"] for side in (alice, bob)]
        assert opened == [1, 0]


@pytest.mark.rfc("5923", "8.1")
@pytest.mark.parametrize(("alias", "opened"), [(";alias", 0), ("", 1)])
async def test_alias_lets_our_own_calls_use_the_peers_connection(alias: str, opened: int) -> None:
    """A request to the sent-by of a peer that said `alias` goes by its connection; without it, by one of our own."""
    async with two_stacks() as (alice, bob, wire), raw_stream(wire, ALICE, (BOB, 5060)) as raw:
        await raw.send(text_of(options(via=f"{ALICE}:5060", params=alias)))
        await raw.message()
        bob.stack.wish(call_to(f"sip:alice@{ALICE};transport=tcp", host=BOB))
        if alias:
            assert (await raw.message()).cseq.method == "INVITE"
        else:
            await alice.until(IncomingCall)
        assert bob.stack.counters["connections_opened"] == opened


async def test_our_requests_offer_their_connection() -> None:
    """RFC 5923 on both sides: with `alias` in our Via, the peer's own call to us opens nothing."""
    async with two_stacks() as (alice, bob, _):
        await talk(alice, bob, TARGETS[Transport.TCP])
        assert "alias" in read(bob.last("INVITE")).via.params
        bob.stack.wish(call_to(f"sip:alice@{ALICE};transport=tcp", "back", host=BOB))
        await alice.until(IncomingCall)
        assert bob.stack.counters["connections_opened"] == 0


async def test_without_a_tcp_port_the_contact_is_udp() -> None:
    """Who cannot be connected to says so: the peer's BYE comes by UDP although the call began by TCP."""
    async with two_stacks(ports={}) as (alice, bob, _):
        leg = await talk(alice, bob, TARGETS[Transport.TCP])
        assert str(read(bob.last("INVITE")).contacts[0].uri) == f"sip:alice@{ALICE}:5060"
        bob.stack.wish(HangUp(leg))
        await alice.until(ByeReceived)
        assert alice.last("BYE").peer.transport is Transport.UDP


# -- the size of a request ------------------------------------------------------------------------------------------

LONG = OFFER + b"a=x-padding:" + b"x" * 1400 + b"\r\n"


@pytest.mark.rfc("3261", "18.1.1")
@pytest.mark.parametrize(
    ("callee", "mtu", "transport"),
    [
        (f"sip:bob@{BOB}", 1300, Transport.TCP),
        (f"sip:bob@{BOB}", 0, Transport.UDP),
        (f"sip:bob@{BOB}", 9000, Transport.UDP),
        (f"sip:bob@{BOB};transport=udp", 1300, Transport.UDP),
    ],
)
async def test_a_long_request_goes_by_tcp(callee: str, mtu: int, transport: Transport) -> None:
    """Where the peer's address leaves the transport to us, and unless that is switched off; Via says so."""
    async with two_stacks(mtu=mtu) as (alice, bob, _):
        alice.stack.wish(call_to(callee, body=LONG))
        await bob.until(IncomingCall)
        assert (bob.last("INVITE").peer.transport, read(bob.last("INVITE")).via.transport) == (transport, transport)


@pytest.mark.rfc("3261", "18.1.1")
async def test_a_long_request_goes_by_udp_where_tcp_is_refused() -> None:
    """The same request, after one round trip; the next one goes by UDP at once."""
    async with two_stacks(bob_ports={}) as (alice, bob, _):
        for leg in ("one", "two"):
            alice.stack.wish(call_to(f"sip:bob@{BOB}", leg, body=LONG))
            await bob.until(IncomingCall)
        assert bob.titles.count("< INVITE") == 2
        assert {one.peer.transport for one in bob.messages} == {Transport.UDP}
        assert alice.stack.counters["connections_failed"] == 1


# -- names and certificates -----------------------------------------------------------------------------------------


async def test_the_certificate_must_be_for_the_domain_that_was_asked_for(both_tls: tuple[Tls, Tls]) -> None:
    """RFC 5922 4: not for the host that DNS named; who shows another name gets no request at all."""
    async with two_stacks(tls=both_tls) as (alice, bob, wire):
        wire.names.update({"bob.test": (BOB,), "evil.test": (BOB,)})
        await talk(alice, bob, "sips:bob@bob.test:5061")
        alice.stack.wish(call_to("sips:bob@evil.test:5061", "other"))
        refused = await alice.until(CallRefused)
        assert isinstance(refused, CallRefused)
        assert refused.status == 503
        assert "evil.test" in refused.reason
        assert "certificate" in refused.reason
        assert bob.titles.count("< INVITE") == 1


async def test_one_address_and_two_domains_are_two_connections(tmp_path: Path) -> None:
    """What was proven for one name proves nothing for the other: the connection is not shared."""
    tls = make_tls(tmp_path / "a", ALICE), make_tls(tmp_path / "b", "one.test", "two.test")
    async with two_stacks(tls=tls) as (alice, bob, wire):
        wire.names.update({"one.test": (BOB,), "two.test": (BOB,)})
        for leg, name in (("1", "one.test"), ("2", "two.test"), ("3", "ONE.test")):
            await talk(alice, bob, f"sips:bob@{name}:5061", leg)
        assert alice.stack.counters["connections_opened"] == 2


@pytest.mark.parametrize(("verify", "status"), [(True, 503), (False, 200)])
async def test_a_stranger_among_authorities(verify: bool, status: int, tmp_path: Path) -> None:
    """A certificate that nobody we trust has issued ends the call, unless verification is switched off."""
    stranger = make_tls(tmp_path / "b", BOB, ca=trustme.CA())
    tls = make_tls(tmp_path / "a", ALICE, verify=verify), stranger
    async with two_stacks(tls=tls) as (alice, bob, _):
        if status == 200:
            await talk(alice, bob, TARGETS[Transport.TLS])
            return
        alice.stack.wish(call_to(TARGETS[Transport.TLS]))
        refused = await alice.until(CallRefused)
        assert isinstance(refused, CallRefused)
        assert (refused.status, refused.reason.startswith("certificate refused")) == (503, True)


@pytest.mark.parametrize(("key", "problem"), [("certificate", "cannot be read"), ("ca", "cannot be read")])
async def test_a_file_that_is_not_there_is_named_by_its_key(key: str, problem: str, tmp_path: Path) -> None:
    """Nobody has to guess which of five files is meant."""
    files = attrs.evolve(make_files(tmp_path, BOB), **{key: str(tmp_path / "missing.pem")})  # type: ignore[arg-type] # by name
    with pytest.raises(ConfigError, match=problem) as caught:
        Tls(files).ready(server=True)
    assert caught.value.path == f"ua.ssl_{key}"


async def test_a_file_that_is_no_certificate_is_named_too(tmp_path: Path) -> None:
    """A key in the place of the certificate, say."""
    files = make_files(tmp_path, BOB)
    with pytest.raises(ConfigError, match="not a usable PEM file") as caught:
        Tls(attrs.evolve(files, certificate=files.private_key)).ready(server=True)
    assert caught.value.path == "ua.ssl_certificate"


async def test_old_tls_and_unasked_alpn_are_not_spoken(tmp_path: Path) -> None:
    """At least TLS 1.2, and no application protocol unless one is configured."""
    tls = make_tls(tmp_path / "b", BOB)
    assert (tls.server.minimum_version, tls.client.minimum_version) == (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2)
    asked = make_tls(tmp_path / "c", BOB, alpn=("sip",))
    async with two_stacks(tls=(tls, asked)) as (_, _bob, wire):
        for alpn, chosen in (([], None), (["sip"], "sip")):
            stream = await wire.host(ALICE).connect(BOB, 5061)
            client = ssl.create_default_context(cafile=str(tmp_path / "b" / "ca.pem"))
            if alpn:
                client.set_alpn_protocols(alpn)
            secured = trio.SSLStream(stream, client, server_hostname=BOB, https_compatible=True)
            await secured.do_handshake()
            assert secured.selected_alpn_protocol() == chosen
            await trio.aclose_forcefully(secured)


async def test_srv_names_the_host_and_the_certificate_must_name_the_domain(tmp_path: Path) -> None:
    """RFC 5922 4, RFC 3263: the server of another name may serve a domain only with a certificate for the domain."""
    for served, status in (("example.test", 200), ("host.test", 503)):
        tls = make_tls(tmp_path / f"a-{served}", ALICE), make_tls(tmp_path / f"b-{served}", served)
        async with two_stacks(tls=tls) as (alice, bob, wire):
            wire.zone.add("_sips._tcp.example.test", Srv(0, 0, 5061, "host.test"))
            wire.names["host.test"] = (BOB,)
            if status == 200:
                await talk(alice, bob, "sips:bob@example.test")
            else:
                alice.stack.wish(call_to("sips:bob@example.test"))
                refused = await alice.until(CallRefused)
                assert isinstance(refused, CallRefused)
                assert (refused.status, "example.test" in refused.reason) == (503, True)


@pytest.mark.parametrize("shows", [True, False])
async def test_a_server_that_wants_a_client_certificate_gets_ours_and_hears_the_name(
    shows: bool, tmp_path: Path
) -> None:
    """Mutual TLS, and SNI: the name that we ask for is in the handshake, which fails without a certificate of ours."""
    client = make_files(tmp_path, "alice.test")
    files = attrs.evolve(client, certificate=None, private_key=None)
    if shows:
        files = attrs.evolve(files, client_certificate=client.certificate, client_key=client.private_key)
    theirs = make_tls(tmp_path / "bob", "bob.test")
    theirs.server.verify_mode = ssl.CERT_REQUIRED
    theirs.server.load_verify_locations(client.ca)
    asked_for: list[str | None] = []
    theirs.server.sni_callback = lambda _, name, __: asked_for.append(name)
    async with open_wire(seed=3) as wire:
        wire.names["bob.test"] = (BOB,)
        alice = make_stack(wire, ALICE, ports={}, tls=Tls(files))
        bob = make_stack(wire, BOB, tls=theirs)
        async with open_stacks(alice, bob):
            if shows:
                await talk(alice, bob, "sips:bob@bob.test:5061")
            else:
                alice.stack.wish(call_to("sips:bob@bob.test:5061"))
                assert isinstance(await alice.until(CallRefused), CallRefused)
    assert set(asked_for) == {"bob.test"}


@pytest.mark.parametrize("shows", [None, "one", "a stranger's"])
async def test_a_server_for_certified_clients_only(shows: str | None, tmp_path: Path) -> None:
    """`tls_clients = "certified"`: who shows no certificate, or one that no authority of ours issued, gets nothing."""
    stranger = trustme.CA() if shows == "a stranger's" else None
    client = make_files(tmp_path, "alice.test", ca=stranger)
    files = client if shows else attrs.evolve(client, certificate=None, private_key=None)
    async with open_wire(seed=3) as wire:
        wire.names["bob.test"] = (BOB,)
        alice = make_stack(wire, ALICE, ports={}, tls=Tls(files))
        bob = make_stack(wire, BOB, tls=make_tls(tmp_path / "bob", "bob.test", certified_clients=True))
        async with open_stacks(alice, bob):
            if shows == "one":
                await talk(alice, bob, "sips:bob@bob.test:5061")
            else:
                alice.stack.wish(call_to("sips:bob@bob.test:5061"))
                assert isinstance(await alice.until(CallRefused), CallRefused)
                assert bob.titles == []


# -- another way in the middle of a call ----------------------------------------------------------------------------


@pytest.mark.rfc("3261", "12.2.1.1")
async def test_a_record_route_moves_the_call_to_another_transport() -> None:
    """An edge that takes the call by UDP and wants the rest by TCP gets the BYE by TCP, with a Via that says so."""
    async with two_stacks() as (_, bob, wire):
        edge = await wire.host(ALICE).open_datagrams(ALICE, 5070)
        listener = await wire.host(ALICE).listen(ALICE, 5070)
        asked = invite(record_routes=(f"sip:{ALICE}:5070;transport=tcp;lr",), via=Via("UDP", ALICE, 5070))
        await edge.send(encode_message(asked), (BOB, 5060))
        incoming = await bob.until(IncomingCall)
        bob.stack.wish(Answer(incoming.leg, ANSWER))
        bob.stack.wish(HangUp(incoming.leg))
        answered = [parse_message((await edge.receive())[0]) for _ in range(2)][-1]
        ack = request("ACK", to_tag=answered.to.tag, branch="z9hG4bKack", via=Via("UDP", ALICE, 5070))
        await edge.send(encode_message(ack), (BOB, 5060))
        bye = parse_message(await (await listener.accept()).receive_some())
        assert isinstance(bye, Request)
        assert (bye.method, bye.via.transport, [str(route.uri) for route in bye.routes]) == (
            "BYE",
            "TCP",
            [f"sip:{ALICE}:5070;transport=tcp;lr"],
        )
