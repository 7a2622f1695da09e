"""Dialogs: names, route sets, targets behind NAT, the order of requests."""

from __future__ import annotations

import attrs
import pytest

from rustpbx.core import Address
from rustpbx.sip.dialog import Dialog, dialog_id, is_private
from rustpbx.sip.message import CSeq, Request, Via
from rustpbx.sip.uri import parse_uri
from tests.kit.peers_sip import ALICE, BOB, invite, reply, udp

VIA = Via("UDP", "192.0.2.2", 5060)
LOOSE = ("sip:p1.example.com;lr", "sip:p2.example.com:5070;lr")


def uas(peer: Address = ALICE, **changes: object) -> Dialog:
    """Bob's side."""
    return Dialog.of_request(invite(**changes), "bob-tag", udp(peer))


def uac(**changes: object) -> Dialog:
    """Alice's side."""
    sent = invite()
    return Dialog.of_response(sent, reply(sent, 200, **changes), udp(BOB))  # type: ignore[arg-type] # fields by name


def routes(request: Request) -> list[str]:
    """The Route set as text."""
    return [str(route.uri) for route in request.routes]


@pytest.mark.parametrize(("one", "other"), [("zT91", "a0c4"), ("a0c4", "zT91")])
def test_name_has_the_larger_tag_first(one: str, other: str) -> None:
    """The name is the same from both sides."""
    assert dialog_id("b7Qk2@10.0.0.8", one, other) == "b7Qk2@10.0.0.8-zT91-a0c4"


@pytest.mark.rfc("3261", "12.1.1", "12.1.2")
def test_both_sides_build_the_same_dialog_with_swapped_roles() -> None:
    """12.1.1, 12.1.2: tags, targets and CSeq."""
    bob, alice = uas(), uac()
    assert bob.key == ("call@192.0.2.1", "bob-tag", "alice-tag")
    assert alice.key == ("call@192.0.2.1", "alice-tag", "bob-tag")
    assert bob.name == alice.name == "call@192.0.2.1-bob-tag-alice-tag"
    assert (bob.local_seq, bob.remote_seq, alice.local_seq, alice.remote_seq) == (0, 1, 1, None)


@pytest.mark.rfc("3261", "12.2.1.1")
def test_requests_follow_a_loose_route_set_and_keep_the_target() -> None:
    """12.2.1.1: the called side keeps the order of Record-Route, the calling side reverses it."""
    bye = uas(record_routes=LOOSE).request("BYE", VIA)
    assert (str(bye.uri), routes(bye)) == ("sip:alice@192.0.2.1:5060", list(LOOSE))
    assert uas(record_routes=LOOSE).destination == parse_uri(LOOSE[0])
    calling = uac(record_routes=LOOSE)
    assert (routes(calling.request("BYE", VIA)), calling.destination) == (
        list(reversed(LOOSE)),
        parse_uri(LOOSE[1]),
    )


@pytest.mark.rfc("3261", "12.2.1.1")
def test_a_strict_router_becomes_the_request_uri() -> None:
    """12.2.1.1: the target moves to the end of the route set."""
    dialog = uas(record_routes=("sip:strict.example.com", "sip:p2.example.com;lr"))
    bye = dialog.request("BYE", VIA)
    assert str(bye.uri) == "sip:strict.example.com"
    assert routes(bye) == ["sip:p2.example.com;lr", "sip:alice@192.0.2.1:5060"]
    assert str(dialog.destination) == "sip:strict.example.com"


@pytest.mark.parametrize(
    ("contact", "peer", "destination"),
    [
        ("sip:a@192.168.1.7:5062", ("198.51.100.3", 40000), ("198.51.100.3", 40000)),
        ("sip:a@192.168.1.7:5062", ("192.168.1.7", 5062), ("192.168.1.7", 5062)),
        ("sip:a@203.0.113.9", ("198.51.100.3", 40000), ("203.0.113.9", 5060)),
        ("tel:+123", ("198.51.100.3", 40000), ("198.51.100.3", 40000)),
    ],
)
def test_a_private_contact_behind_nat_is_answered_where_it_comes_from(
    contact: str, peer: Address, destination: Address
) -> None:
    """A private Contact that differs from the packet's source is useless; a public one is obeyed."""
    assert uas(peer, contact=contact).destination == udp(destination)


def test_a_name_is_still_to_be_located() -> None:
    """By DNS, and so is an address that `maddr` replaces."""
    for contact in ("sip:a@pbx.example.com:5080", "sip:a@192.0.2.1;maddr=192.0.2.9"):
        assert uas(("198.51.100.3", 40000), contact=contact).destination == parse_uri(contact)


def test_nat_does_not_overrule_a_route_set() -> None:
    """A proxy that recorded its route knows the way."""
    dialog = uas(("198.51.100.3", 1), contact="sip:a@10.0.0.1", record_routes=LOOSE)
    assert dialog.destination == parse_uri(LOOSE[0])


def test_without_a_contact_requests_go_to_the_source() -> None:
    """Contact is mandatory, but a call need not die of it."""
    assert uas(("198.51.100.3", 5099), contact=None).destination == udp(("198.51.100.3", 5099))


@pytest.mark.rfc("3261", "12.2.1.1", "13.2.2.4")
def test_requests_count_up_and_an_ack_does_not() -> None:
    """12.2.1.1, 13.2.2.4."""
    dialog = uac()
    assert [dialog.request("INFO", VIA).cseq, dialog.ack(1, VIA).cseq, dialog.request("BYE", VIA).cseq] == [
        CSeq(2, "INFO"),
        CSeq(1, "ACK"),
        CSeq(3, "BYE"),
    ]


@pytest.mark.rfc("3261", "12.2.2")
def test_lower_cseq_is_out_of_order() -> None:
    """12.2.2: gaps are fine, going back is not; the first request sets the mark."""
    dialog = uac()
    numbers = (7, 9, 9, 8, 10)
    assert [dialog.in_order(CSeq(number, "INFO")) for number in numbers] == [True, True, True, False, True]


@pytest.mark.rfc("3261", "12.2.2")
def test_target_refresh_changes_the_target_and_not_the_route() -> None:
    """12.2.2."""
    dialog = uas()
    dialog.refresh(attrs.evolve(invite(contact="sip:alice@192.0.2.9:5070")), udp(("192.0.2.9", 5070)))
    assert (dialog.remote_target, dialog.destination) == (
        parse_uri("sip:alice@192.0.2.9:5070"),
        udp(("192.0.2.9", 5070)),
    )


def test_private_means_literals_only() -> None:
    """Names are resolved later and never count as private."""
    hosts = ("10.1.2.3", "172.31.0.1", "100.64.0.1", "fd00::1", "127.0.0.1", "172.32.0.1", "8.8.8.8", "box.local")
    assert [is_private(host) for host in hosts] == [True] * 5 + [False] * 3
