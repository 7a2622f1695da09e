"""Registrations and the connections they go by: what a NAT shows, what is lost, what is made anew."""

from __future__ import annotations

import itertools
from types import MappingProxyType

import attrs
import pytest

from rustpbx.sip.endpoint import EndpointConfig
from rustpbx.sip.events import Account, FlowLost, HangUp, IncomingCall, Received, Register, Ring, Send, SendInvite
from rustpbx.sip.hop import Transport, uri_hop
from rustpbx.sip.message import NameAddr, Request
from rustpbx.sip.parser import parse_message
from rustpbx.sip.registration import STEADY
from rustpbx.sip.uri import Uri, parse_uri
from rustpbx.testing.registrar import Registrar
from tests.kit.office import DESK, HOST, PBX, Office, by_tcp

NAT = "203.0.113.7"
LISTENING = EndpointConfig(port=5060, ports=MappingProxyType({Transport.TCP: 5060}))


def lose(office: Office) -> None:
    """The connection is gone; the next one has another number, and comes from another port."""
    hop = office.hop
    office.kept.remove(hop)
    office.flow += 1
    office.seen = (office.seen[0], office.seen[1] + 1)
    office.feed(FlowLost(hop, "closed"))


def contacts(office: Office) -> list[str]:
    """What the registrar knows."""
    return [str(uri) for uri in office.registrar.contacts("1001", office.now)]


@pytest.mark.rfc("5626", "4.5")
def test_a_connection_that_held_is_replaced_at_once() -> None:
    """Lost after an hour: registered again in the same moment, and told so."""
    office = Office(account=by_tcp(DESK), config=LISTENING)
    office.begin()
    office.advance(STEADY + 1)
    lose(office)
    office.settle()
    assert [(change.state, change.reason) for change in office.changes[1:]] == [
        ("registered", "OK"),
        ("registering", "closed"),
        ("registered", "OK"),
    ]
    assert office.kept == [office.hop]


@pytest.mark.rfc("5626", "4.5")
def test_a_connection_that_never_holds_is_not_made_again_and_again() -> None:
    """Behind a NAT the connection is the only way to us: pauses of 60, 120, 240 s at most, until one holds."""
    office = Office(account=by_tcp(DESK))
    office.seen = (NAT, 40000)
    office.begin()
    office.settle()
    for _ in range(5):
        assert office.state == "registered"
        lose(office)
        assert office.state == "failed"
        office.advance(4000, until=lambda: office.state == "registered")
    starts = [at for at, request in zip(office.times, office.sent, strict=True) if len(request.contacts) == 1]
    gaps = [later - earlier for earlier, later in itertools.pairwise(starts) if later - earlier > 1]
    assert all(30 * 2**n <= gap <= 60 * 2**n for n, gap in enumerate(gaps)), gaps
    assert len(gaps) == 5


def test_a_registrar_that_closes_each_connection_is_let_do_so() -> None:
    """It has our own port, and calls us there: nothing is failed, and nothing sent, until the refresh is due."""
    office = Office(account=by_tcp(DESK), config=LISTENING)
    office.begin()
    office.settle()
    lose(office)
    office.advance(2000)
    assert (office.state, len(office.sent)) == ("registered", 2)
    office.advance(1600)
    assert (office.state, len(office.sent)) == ("registered", 3)


def test_without_a_nat_a_connections_own_port_means_nothing() -> None:
    """The registrar sees the port that we connect from; our Contact stays where we listen."""
    office = Office(account=by_tcp(DESK), config=LISTENING)
    office.seen = (HOST, 40000)
    office.begin()
    office.settle()
    assert contacts(office) == [f"sip:1001@{HOST}:5060;transport=tcp"]


@pytest.mark.rfc("5626", "3.1")
def test_behind_a_nat_the_contact_names_the_connection() -> None:
    """That is the one way to us; when it is lost the new one takes its place, and the old Contact goes."""
    office = Office(account=by_tcp(DESK))
    office.seen = (NAT, 40000)
    office.begin()
    office.advance(STEADY + 1)
    assert contacts(office) == [f"sip:1001@{NAT}:40000;transport=tcp"]
    lose(office)
    office.settle()
    assert contacts(office) == [f"sip:1001@{NAT}:40001;transport=tcp"]


@pytest.mark.parametrize("account", [DESK, by_tcp(DESK)])
def test_a_nat_that_goes_away_is_forgotten(account: Account) -> None:
    """The registrar sees us as we are: the Contact is our own again."""
    office = Office(account=account, config=LISTENING)
    office.seen = (NAT, 40000)
    office.begin()
    office.settle()
    office.seen = (HOST, 5060)
    office.advance(3600)
    (contact,) = contacts(office)
    assert contact.startswith(f"sip:1001@{HOST}:5060")


def test_a_nat_that_moves_for_days_is_followed() -> None:
    """A new address with every refresh: each is believed, and nothing old is left at the registrar."""
    office = Office()
    office.begin()
    for port in range(40000, 40010):
        office.seen = (NAT, port)
        office.advance(3600)
        assert contacts(office) == [f"sip:1001@{NAT}:{port}"]


def test_a_registrar_that_shows_another_address_each_time_does_not_keep_us_busy() -> None:
    """After three in a row the last one is kept until the refresh."""
    office = Office()
    office.begin()
    for port in range(50000, 50020):
        office.seen = (NAT, port)
        if office.wire:
            office.deliver()
        if office.wire:
            office.deliver()
    assert (office.wire, office.state, len(office.sent)) == ([], "registered", 5)


def test_a_contact_that_could_not_be_taken_back_is_taken_back_later() -> None:
    """The REGISTER with the new address fails: the next one still names the old address."""
    office = Office()
    office.begin()
    office.deliver()
    office.deliver()
    office.seen = (NAT, 40000)
    office.deliver()
    office.deliver()
    office.registrar.status = 500
    office.settle()
    assert (office.state, contacts(office)) == ("failed", [f"sip:1001@{HOST}:5060"])
    office.registrar.status = None
    office.advance(61)
    assert (office.state, contacts(office)) == ("registered", [f"sip:1001@{NAT}:40000"])


def test_a_way_is_kept_open_until_the_last_account_has_left_it() -> None:
    """Two accounts at one registrar: one that ends does not close the other's."""
    office = Office(Registrar())
    other = attrs.evolve(DESK, name="other", aor=NameAddr(Uri("sip", "1002", None, PBX[0])))
    office.begin()
    office.feed(Register(account=other, local_host=HOST))
    office.settle()
    assert office.kept == [office.hop]
    office.stop()
    office.settle()
    assert office.kept == [office.hop]
    office.account = other
    office.stop()
    office.settle()
    assert office.kept == []


@pytest.mark.parametrize(
    ("callee", "hop"),
    [
        ("sip:200@office.test", "tcp:10.0.0.5:5070"),
        ("sip:200@OFFICE.test", "tcp:10.0.0.5:5070"),
        ("sip:200@10.0.0.9", "udp:10.0.0.9:5060"),
        ("sip:200@10.0.0.9:5080", "udp:10.0.0.9:5080"),
    ],
)
def test_the_accounts_own_domain_is_at_its_server(callee: str, hop: str) -> None:
    """Host, port and transport are those it registers with; who is elsewhere is called there."""
    server = parse_uri("sip:10.0.0.5:5070;transport=tcp")
    account = attrs.evolve(DESK, aor=NameAddr(parse_uri("sip:1001@office.test")), registrar=server)
    office = Office(Registrar(), account=account)
    office.begin()
    uri = parse_uri(callee)
    call = SendInvite(leg="a", caller=account.aor, callee=uri, body=b"", local_host=HOST)
    effects = office.endpoint.handle(call, 0.0)
    assert [str(effect.destination) for effect in effects if isinstance(effect, Send)] == [hop]
    assert str(uri_hop(office.endpoint.first_stop(account.aor.uri, uri))) == hop


@pytest.mark.rfc("3608", "6.1")
def test_a_service_route_goes_before_the_accounts_server() -> None:
    """What the registrar asks for is what its calls go through (RFC 3608 6.1)."""
    server = parse_uri("sip:10.0.0.5:5060;transport=udp")
    account = attrs.evolve(DESK, aor=NameAddr(parse_uri("sip:1001@office.test")), registrar=server)
    office = Office(Registrar(lines=(("Service-Route", "<sip:10.0.0.7;lr>"),)), account=account)
    office.begin()
    office.settle()
    call = SendInvite(leg="a", caller=account.aor, callee=parse_uri("sip:200@office.test"), body=b"", local_host=HOST)
    effects = office.endpoint.handle(call, 0.0)
    assert [str(effect.destination) for effect in effects if isinstance(effect, Send)] == ["udp:10.0.0.7:5060"]


@pytest.mark.rfc("3327", "5.1")
@pytest.mark.rfc("5626", "4.2")
def test_a_device_says_which_one_it_is() -> None:
    """Its instance, its flow and its q are in the Contact, and that it knows what they mean in Supported."""
    office = Office(Registrar(), account=attrs.evolve(DESK, q=0.5, instance="urn:uuid:0a"))
    office.begin()
    (request,) = office.sent
    (contact,) = request.contacts
    assert str(contact.params) == ';q=0.5;reg-id=1;+sip.instance="<urn:uuid:0a>"'
    assert request.header("Supported") == "path, outbound"


def test_calls_of_an_account_behind_a_nat_have_the_contact_that_reaches_us() -> None:
    """Those that it places, and those that come to it; a Contact that the agent wished for stays."""
    office = Office(Registrar())
    office.seen = (NAT, 40000)
    office.begin()
    office.settle()
    callee = parse_uri("sip:2000@10.0.0.5")
    call = SendInvite(leg="a", caller=DESK.aor, callee=callee, body=b"", local_host=HOST)
    own = parse_uri("sip:me@192.0.2.9")
    for wish, contact in ((call, f"sip:1001@{NAT}:40000"), (attrs.evolve(call, leg="b", contact=own), str(own))):
        office.feed(wish)
        invite = parse_message(office.wire.pop().data)
        assert isinstance(invite, Request)
        assert [str(found.uri) for found in invite.contacts] == [contact]
    for leg in ("a", "b"):
        office.feed(HangUp(leg))
    office.feed(Received(_incoming(f"sip:1001@{NAT}:40000"), office.hop, HOST))
    (incoming,) = (fact for fact in office.facts if isinstance(fact, IncomingCall))
    office.wire.clear()
    office.feed(Ring(incoming.leg))
    ringing = parse_message(office.wire.pop().data)
    assert [str(found.uri) for found in ringing.contacts] == [f"sip:1001@{NAT}:40000"]


def _incoming(uri: str) -> bytes:
    return (
        f"INVITE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.5:5060;branch=z9hG4bKin\r\n"
        f"From: <sip:2000@10.0.0.5>;tag=f\r\nTo: <sip:1001@10.0.0.5>\r\nCall-ID: in\r\n"
        f"CSeq: 1 INVITE\r\nMax-Forwards: 70\r\n"
        f"Contact: <sip:2000@10.0.0.5>\r\nContent-Length: 0\r\n\r\n"
    ).encode()
