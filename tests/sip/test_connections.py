"""Connections that stall, break, flood or fall silent: bounded, counted, and no call in progress notices."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing
import trio_websocket

from rustpbx.sip.events import ByeReceived, CallRefused, HangUp, Keep, LetGo
from rustpbx.sip.flows import Crowded, Flows
from rustpbx.sip.hop import Hop, Transport
from rustpbx.sip.shell import udp
from rustpbx.sip.shell.connection import MOST_QUEUED
from rustpbx.sip.stun import answer_binding, binding_request, is_stun, mapped_address
from rustpbx.testing.wire import open_wire
from tests.kit.certificates import make_tls
from tests.kit.peers_sip import LEG
from tests.kit.stacks import (
    ALICE,
    BOB,
    IMPATIENT,
    RawStream,
    call_to,
    make_stack,
    open_stacks,
    options,
    raw_stream,
    talk,
    text_of,
    two_stacks,
)

CAROL = "10.0.0.3"
UPGRADE = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
SIP_UPGRADE = f"{UPGRADE}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: sip\r\n"
TCP = f"sip:bob@{BOB};transport=tcp"


def hop(port: int = 5060, host: str = BOB, transport: Transport = Transport.TCP, domain: str = "") -> Hop:
    """A place to connect to."""
    return Hop(transport, (host, port), domain=domain)


NOBODY: frozenset[int] = frozenset()
EVERYBODY = frozenset(range(100))


# -- the table ------------------------------------------------------------------------------------------------------


def test_a_connection_is_found_by_its_number_and_by_its_place() -> None:
    """The number wins; a number that is gone falls back on the place; case does not matter."""
    flows = Flows()
    one, two = flows.add(hop(), ours=True, now=0.0), flows.add(hop(5070), ours=True, now=0.0)
    assert [flow.number for flow in flows] == [1, 2]
    assert flows.find(attrs.evolve(hop(), flow=2)) is two
    assert flows.find(attrs.evolve(hop(), flow=77)) is one
    flows.remove(two)
    assert (flows.find(attrs.evolve(hop(5070), flow=2)), len(flows)) == (None, 1)


def test_a_secure_connection_serves_its_own_domain_only() -> None:
    """The name is part of the place, on TLS; on TCP it means nothing."""
    flows = Flows()
    secure = flows.add(hop(transport=Transport.TLS, domain="one.test"), ours=True, now=0.0)
    plain = flows.add(hop(domain="one.test"), ours=True, now=0.0)
    assert flows.find(hop(transport=Transport.TLS, domain="ONE.test")) is secure
    assert flows.find(hop(transport=Transport.TLS, domain="two.test")) is None
    assert flows.find(hop(domain="two.test")) is plain


def test_an_alias_takes_no_place_away() -> None:
    """RFC 5923: a newcomer that names the port of another connection does not get what goes there."""
    flows = Flows()
    ours = flows.add(hop(5060), ours=True, now=0.0)
    newcomer = flows.add(hop(40000), ours=False, now=0.0)
    flows.alias(newcomer.number, 5060)
    flows.alias(newcomer.number, 5090)
    flows.alias(77, 5091)
    assert [flows.find(hop(port)) for port in (5060, 5090, 5091)] == [ours, newcomer, None]
    flows.remove(newcomer)
    assert flows.find(hop(5090)) is None


def test_who_makes_room_is_the_one_longest_unused_and_never_a_busy_one() -> None:
    """Per source, and over all; our own connections do not count for their peer."""
    flows = Flows(most=4, most_of_one=2)
    first, second = (flows.add(hop(port, CAROL), ours=False, now=float(port)) for port in (1, 2))
    assert flows.make_room(CAROL, NOBODY) is first
    assert flows.make_room(CAROL, {first.number}) is second
    assert flows.make_room(CAROL, EVERYBODY) == Crowded(f"{CAROL} has 2 connections")
    assert flows.make_room(ALICE, EVERYBODY) is None
    flows.add(hop(3, CAROL), ours=True, now=3.0)
    oldest = flows.add(hop(4, BOB), ours=False, now=0.5)
    assert flows.make_room(ALICE, NOBODY) is oldest
    assert flows.make_room(ALICE, EVERYBODY) == Crowded("there are 4 connections")


# -- what strangers do ----------------------------------------------------------------------------------------------


async def is_over(raw: RawStream) -> bool:
    """Whether the peer closes the connection; what it says before does not count."""
    try:
        while await raw.bytes():
            pass
    except trio.BrokenResourceError:
        return True
    return True


async def test_who_connects_and_says_nothing_is_closed() -> None:
    """Half-open TCP: `first` seconds, then the place is free again."""
    async with two_stacks(patience=IMPATIENT) as (_, bob, wire), raw_stream(wire, CAROL, (BOB, 5060)) as raw:
        assert await is_over(raw)
        assert trio.current_time() == pytest.approx(IMPATIENT.first)
        assert bob.stack.counters["connections_stalled"] == 1


async def test_a_message_that_never_ends_is_closed_however_slowly_it_grows() -> None:
    """A byte each second keeps nothing alive: a message has `message` seconds from its first byte."""
    async with two_stacks(patience=IMPATIENT) as (_, bob, wire), raw_stream(wire, CAROL, (BOB, 5060)) as raw:
        await raw.send(text_of(options()))
        await raw.bytes()
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dribble, raw)
            assert await is_over(raw)
            nursery.cancel_scope.cancel()
        assert trio.current_time() - began == pytest.approx(IMPATIENT.message, abs=1.1)
        assert bob.stack.counters["connections_stalled"] == 1


async def test_a_message_may_come_in_pieces_long_after_the_last_one() -> None:
    """Its time begins with its own first byte, not with the end of what came before; and pieces are no pongs."""
    async with two_stacks(patience=IMPATIENT) as (_, bob, wire), raw_stream(wire, CAROL, (BOB, 5060)) as raw:
        for number, silence in ((1, IMPATIENT.first), (2, IMPATIENT.idle)):
            data = text_of(options(number=number))
            await trio.sleep(0.9 * silence)
            await raw.send(data[:50])
            await trio.sleep(0.9 * IMPATIENT.message)
            await raw.send(data[50:])
            assert (await raw.message()).cseq.number == number
        assert bob.stack.counters["connections_stalled"] == 0


async def dribble(raw: RawStream) -> None:
    """A byte each second."""
    for byte in text_of(options(number=2)):
        await send_what_is_taken(raw, bytes([byte]))
        await trio.sleep(1.0)


async def test_a_client_that_stalls_in_the_handshake_costs_a_place_for_a_while(tmp_path: Path) -> None:
    """TLS, and WebSocket: `connect` seconds each; calls go on meanwhile."""
    tls = make_tls(tmp_path / "a", ALICE), make_tls(tmp_path / "b", BOB)
    async with two_stacks(tls=tls, patience=IMPATIENT) as (alice, bob, wire):
        async with (
            raw_stream(wire, CAROL, (BOB, 5061)) as secure,
            raw_stream(wire, CAROL, (BOB, 5080)) as web,
        ):
            await secure.send(b"\x16\x03\x01\x02\x00")
            await web.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
            await talk(alice, bob, TCP)
            assert trio.current_time() == 0.0
            assert await is_over(secure)
            assert await is_over(web)
            assert trio.current_time() == pytest.approx(IMPATIENT.connect)
        assert (bob.stack.counters["connections_stalled"], bob.stack.counters["bugs"]) == (2, 0)


@pytest.mark.parametrize(
    ("garbage", "status"),
    [
        (text_of(options(lines=f"X: {'x' * 1_000_000}\n")), 513),
        (text_of(options()).replace(b"Content-Length: 0", b"Content-Length: 0\r\nContent-Length: 1"), 400),
        (text_of(options()).replace(b"Content-Length: 0\r\n", b""), 400),
        (text_of(options()).replace(b"Length: 0", b"Length: 4000000000"), 513),
        (b"\x00\x01\x02" * 40_000, None),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", None),
    ],
    ids=["million", "twice", "none", "huge", "noise", "http"],
)
async def test_what_is_no_sip_is_answered_if_it_can_be_and_closed(garbage: bytes, status: int | None) -> None:
    """A header of a million bytes, no length, two, noise: the connection ends, and the calls on others do not."""
    async with two_stacks() as (alice, bob, wire):
        await talk(alice, bob, TCP)
        async with raw_stream(wire, CAROL, (BOB, 5060)) as raw, trio.open_nursery() as nursery:
            nursery.start_soon(send_what_is_taken, raw, garbage)
            if status is not None:
                assert (await raw.message()).status == status  # type: ignore[union-attr]  # a response
            assert await is_over(raw)
            nursery.cancel_scope.cancel()
        assert (bob.stack.counters["streams_broken"], bob.stack.counters["bugs"]) == (1, 0)
        alice.stack.wish(HangUp(LEG))
        await bob.until(ByeReceived)


async def send_what_is_taken(raw: RawStream, data: bytes) -> None:
    """Send until the peer has had enough."""
    try:
        await raw.send(data)
    except trio.BrokenResourceError:
        return


async def test_messages_in_one_piece_are_answered_each() -> None:
    """Pipelined, and with keep-alives in between, and cut anywhere."""
    data = b"\r\n\r\n" + b"".join(text_of(options(number=number)) + b"\r\n\r\n" for number in range(1, 60))
    async with two_stacks() as (_, bob, wire), raw_stream(wire, CAROL, (BOB, 5060)) as raw:
        for start in range(0, len(data), 777):
            await raw.send(data[start : start + 777])
        answered = [(await raw.message()).cseq.number for _ in range(1, 60)]
        assert (answered, bob.stack.counters["malformed"]) == (list(range(1, 60)), 0)


async def test_one_source_gets_its_share_and_no_more() -> None:
    """The connection of its own that it used the longest ago makes room; others' stay."""
    async with two_stacks(most_of_one=3) as (alice, bob, wire):
        await talk(alice, bob, TCP)
        opened = [await wire.host(CAROL).connect(BOB, 5060) for _ in range(3)]
        for at, stream in enumerate(opened):
            await trio.sleep(1.0)
            await stream.send_all(text_of(options(number=at)))
            await stream.receive_some()
        await trio.sleep(1.0)
        opened.append(await wire.host(CAROL).connect(BOB, 5060))
        await trio.testing.wait_all_tasks_blocked()
        assert await opened[0].receive_some() == b""
        await opened[1].send_all(text_of(options(number=9)))
        assert (await opened[1].receive_some()).startswith(b"SIP/2.0 200")
        assert bob.stack.counters["connections_evicted"] == 1
        alice.stack.wish(HangUp(LEG))
        await bob.until(ByeReceived)


async def test_a_flood_of_connections_leaves_calls_alone() -> None:
    """Connections of calls are busy: when nothing else is left, the newcomer is refused."""
    async with two_stacks(most=3) as (alice, bob, wire):
        await talk(alice, bob, TCP)
        for number in range(30):
            stream = await wire.host(f"10.0.1.{number}").connect(BOB, 5060)
            await stream.send_all(b"\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        assert len(bob.stack._connections) == 3
        assert bob.stack.counters["connections_evicted"] == 28
        alice.stack.wish(HangUp(LEG))
        await bob.until(ByeReceived)
        assert alice.stack.counters["connections_opened"] == 1


async def test_a_peer_that_does_not_read_loses_its_connection_and_nobody_elses() -> None:
    """Its queue is bounded and a write has its time; the next request goes by another connection."""
    async with two_stacks(patience=IMPATIENT) as (alice, bob, wire):
        await talk(alice, bob, TCP)
        stream = await wire.host(CAROL).connect(BOB, 5060)
        for number in range(2 * MOST_QUEUED):
            await stream.send_all(text_of(options(number=number, lines=f"Timestamp: {number}\n")))
        await trio.sleep(IMPATIENT.write + 1)
        counters = bob.stack.counters
        assert (counters["connections_stalled"], counters["queue_full"] > 0, counters["bugs"]) == (1, True, 0)
        alice.stack.wish(HangUp(LEG))
        await bob.until(ByeReceived)


async def test_an_idle_connection_ends_and_one_with_a_call_on_it_does_not() -> None:
    """`idle` seconds; afterwards the next request opens a new one."""
    async with two_stacks(patience=IMPATIENT) as (alice, bob, _):
        await talk(alice, bob, TCP)
        await trio.sleep(5 * IMPATIENT.idle)
        assert len(alice.stack._connections) == 1
        alice.stack.wish(HangUp(LEG))
        await bob.until(ByeReceived)
        await trio.sleep(2 * IMPATIENT.idle + 33)
        assert [len(side.stack._connections) for side in (alice, bob)] == [0, 0]
        await talk(alice, bob, TCP, "again")


# -- WebSocket ------------------------------------------------------------------------------------------------------


@pytest.mark.rfc("7118", "4.2")
@pytest.mark.parametrize(
    ("head", "status"),
    [
        (f"{UPGRADE}Sec-WebSocket-Version: 13\r\n", 400),
        (f"{UPGRADE}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat\r\n", 400),
        (f"{SIP_UPGRADE}Origin: https://evil.test\r\n", 403),
        (f"{SIP_UPGRADE}Origin: null\r\n", 403),
        (f"{UPGRADE}Sec-WebSocket-Version: 8\r\nSec-WebSocket-Protocol: sip\r\n", 426),
        ("", 400),
    ],
    ids=["no-subprotocol", "other-subprotocol", "foreign-page", "no-page", "old-version", "no-upgrade"],
)
async def test_who_does_not_want_sip_over_websocket_is_told(head: str, status: int) -> None:
    """The subprotocol `sip` is required; version 13 is, and an upgrade, and a page that may."""
    async with two_stacks() as (_, bob, wire):
        stream = await wire.host(CAROL).connect(BOB, 5080)
        await stream.send_all(f"GET / HTTP/1.1\r\nHost: {BOB}\r\n{head}\r\n".encode())
        assert (await stream.receive_some()).split(b" ")[1] == str(status).encode()
        await trio.sleep(60)
        assert (len(bob.stack._connections), bob.stack.counters["bugs"]) == (0, 0)


@pytest.mark.parametrize("origin", [None, f"http://{BOB}:5080", "https://PHONE.test"])
async def test_pages_of_our_own_and_of_listed_hosts_speak_sip(origin: str | None) -> None:
    """And programs, which have no Origin."""
    async with open_wire(seed=3) as wire:
        ports = {Transport.WS: 5080}
        bob = make_stack(wire, BOB, ports=ports, origins=frozenset({"https://phone.test"}))
        async with open_stacks(bob):
            stream = await wire.host(CAROL).connect(BOB, 5080)
            page = "" if origin is None else f"Origin: {origin}\r\n"
            await stream.send_all(f"GET / HTTP/1.1\r\nHost: {BOB}:5080\r\n{SIP_UPGRADE}{page}\r\n".encode())
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 101 ")
            await trio.aclose_forcefully(stream)


@pytest.mark.rfc("7118", "5")
async def test_one_message_in_each_frame_text_or_binary_without_a_length() -> None:
    """A browser's stack: its Via and Contact name hosts that do not exist, and the answers come to it all the same."""
    async with two_stacks() as (_, bob, wire), trio.open_nursery() as nursery:
        stream = await wire.host(CAROL).connect(BOB, 5080)
        wrap: Any = trio_websocket.wrap_client_stream  # any stream does
        socket = await wrap(nursery, stream, BOB, "/", subprotocols=["sip"])
        asked = options(via="df7jal23ls0d.invalid").replace("/TCP", "/WS").replace("Content-Length: 0\n", "")
        await socket.send_message(text_of(asked).decode())
        assert (await socket.get_message()).startswith("SIP/2.0 200 OK")
        await socket.send_message(text_of(asked.replace("z9hG4bKo1", "z9hG4bKo2").replace("o1@a", "o2@a")))
        assert (await socket.get_message()).startswith("SIP/2.0 200 OK")
        await socket.send_message("\r\n\r\n")
        assert await socket.get_message() == "\r\n"
        await socket.aclose()
        await trio.sleep(40)
        assert (len(bob.stack._connections), bob.stack.counters["bugs"]) == (0, 0)


async def test_a_browser_that_is_gone_cannot_be_called_back() -> None:
    """The caller's page closes: the BYE fails at once, nobody is connected to, and the call is over."""
    async with two_stacks() as (alice, bob, wire):
        leg = await talk(alice, bob, f"sip:bob@{BOB}:5080;transport=ws")
        wire.reset(ALICE, BOB)
        await trio.testing.wait_all_tasks_blocked()
        bob.stack.wish(HangUp(leg))
        await trio.sleep(40)
        counters = bob.stack.counters
        assert (counters["connections_opened"], counters["calls"], counters["undeliverable"]) == (0, 0, 1)


# -- keep-alives ----------------------------------------------------------------------------------------------------


@pytest.mark.rfc("5626", "4.4.1")
async def test_a_ping_is_answered_with_a_pong() -> None:
    """CRLF CRLF gets CRLF, at any time between messages."""
    async with two_stacks() as (_, _bob, wire), raw_stream(wire, CAROL, (BOB, 5060)) as raw:
        await raw.send(b"\r\n\r\n")
        assert await raw.stream.receive_some() == b"\r\n"


@pytest.mark.rfc("5626", "4.4.1")
async def test_a_connection_with_a_call_on_it_is_pinged_by_who_opened_it() -> None:
    """Every 25 to 30 s, as long as the call is up; its answers keep it."""
    async with open_wire(seed=3) as wire, trio.open_nursery() as nursery:
        alice = make_stack(wire, ALICE)
        listener = await wire.host(BOB).listen(BOB, 5060)
        await nursery.start(alice.stack.run)
        alice.stack.wish(call_to(TCP))
        stream = await listener.accept()
        await stream.send_all(answer_to(await stream.receive_some()))
        await stream.receive_some()
        pings = []
        for _ in range(3):
            assert await stream.receive_some() == b"\r\n\r\n"
            pings.append(trio.current_time())
            await stream.send_all(b"\r\n")
        assert all(25.0 <= later - earlier <= 30.0 for earlier, later in zip([0.0, *pings], pings, strict=False))
        assert await stream.receive_some() == b"\r\n\r\n"
        silent_at = trio.current_time()
        assert await stream.receive_some() == b""
        assert trio.current_time() - silent_at == pytest.approx(10.0)
        assert alice.stack.counters["connections_lost"] == 1
        nursery.cancel_scope.cancel()


def answer_to(asked: bytes) -> bytes:
    """A 200 with the request's own Via, From, To and so on, by a peer that sends no body."""
    lines = [line for line in asked.decode().split("\r\n") if line.split(":")[0] in ("Via", "From", "Call-ID", "CSeq")]
    text = ["SIP/2.0 200 OK", *lines, f"To: <sip:bob@{BOB}>;tag=b", f"Contact: <{TCP}>", "Content-Length: 0", "", ""]
    return "\r\n".join(text).encode()


@pytest.mark.rfc("5626", "4.4")
async def test_a_peer_that_never_answers_pings_is_not_taken_for_dead() -> None:
    """Pongs are negotiated for accounts only (RFC 5626 4.4): without a first one, silence means nothing."""
    async with open_wire(seed=3) as wire, trio.open_nursery() as nursery:
        alice = make_stack(wire, ALICE)
        listener = await wire.host(BOB).listen(BOB, 5060)
        await nursery.start(alice.stack.run)
        alice.stack.wish(call_to(TCP))
        stream = await listener.accept()
        await stream.send_all(answer_to(await stream.receive_some()))
        await stream.receive_some()
        assert [await stream.receive_some() for _ in range(4)] == [b"\r\n\r\n"] * 4
        assert len(alice.stack._connections) == 1
        nursery.cancel_scope.cancel()


async def test_a_kept_connection_is_pinged_without_a_call_and_its_loss_is_told() -> None:
    """What a registration needs: `Keep`, and `FlowLost` when it has failed; `LetGo` ends it without a word."""
    async with two_stacks(patience=IMPATIENT) as (alice, bob, wire):
        await talk(alice, bob, TCP)
        alice.stack.wish(HangUp(LEG))
        await bob.until(ByeReceived)
        place = hop()
        alice.stack._perform(Keep(place))
        await trio.sleep(10 * IMPATIENT.idle)
        assert len(alice.stack._connections) == 1
        wire.reset(ALICE, BOB)
        await trio.testing.wait_all_tasks_blocked()
        assert alice.stack.counters["flows_lost"] == 1
        alice.stack._perform(Keep(place))
        await trio.testing.wait_all_tasks_blocked()
        assert alice.stack.counters["flows_lost"] == 2
        await talk(alice, bob, TCP, "next")
        alice.stack._perform(Keep(place))
        alice.stack._perform(LetGo(place))
        wire.reset(ALICE, BOB)
        await trio.testing.wait_all_tasks_blocked()
        assert alice.stack.counters["flows_lost"] == 2


# -- STUN -----------------------------------------------------------------------------------------------------------


def test_stun_and_sip_are_told_apart_by_their_first_bytes() -> None:
    """A binding request is answered with where it came from; a truncated one, a response and SIP are not."""
    asked = binding_request(b"0123456789ab")
    answered = answer_binding(asked, ("2001:db8::7", 40000))
    assert answered is not None
    assert mapped_address(answered) == (b"0123456789ab", ("2001:db8::7", 40000))
    assert [is_stun(data) for data in (asked, answered, asked[:19], b"OPTIONS sip:a SIP/2.0\r\n", b"")] == [
        *(True, True),
        *(False, False, False),
    ]
    for data in (answered, asked[:-1], asked + b"\x00", asked[:2] + b"\x00\x04" + asked[4:] + b"\x00\x01\x00\x09"):
        assert answer_binding(data, ("10.0.0.1", 1)) is None


@pytest.mark.rfc("5626", "3.5.2")
async def test_a_binding_request_on_the_sip_port_is_answered() -> None:
    """It says where it came from, and is neither malformed SIP nor a keep-alive of ours."""
    async with two_stacks() as (_, bob, wire):
        phone = await wire.host(CAROL).open_datagrams(CAROL, 5062)
        await phone.send(binding_request(b"0123456789ab"), (BOB, 5060))
        data, source = await phone.receive()
        assert (mapped_address(data), source) == ((b"0123456789ab", (CAROL, 5062)), (BOB, 5060))
        assert (bob.stack.counters["stun"], bob.stack.counters["malformed"], bob.messages) == (1, 0, [])


@pytest.mark.rfc("5626", "4.4.2")
async def test_a_kept_udp_flow_asks_every_24_to_29_seconds_and_loss_is_no_harm() -> None:
    """A lost request is sent again; the flow fails when the peer has fallen silent, and is told once."""
    async with two_stacks() as (alice, _, wire):
        place = hop(transport=Transport.UDP)
        alice.stack._perform(Keep(place))
        await trio.sleep(100)
        asked = [one.at for one in wire.transcript if one.destination == (BOB, 5060)]
        assert all(24.0 <= later - earlier <= 29.5 for earlier, later in zip([0.0, *asked], asked, strict=False))
        wire.lose(lambda one: one.source[0] == ALICE)
        await trio.sleep(60)
        assert alice.stack.counters["flows_lost"] == 0
        wire.cut(ALICE, BOB)
        await trio.sleep(120)
        assert alice.stack.counters["flows_lost"] == 1


async def test_a_kept_flow_notices_that_its_address_has_changed() -> None:
    """A NAT that forgot the binding makes a new one: who called us there must be told."""
    sent, sends = trio.open_memory_channel[bytes](10)
    lost: list[tuple[Hop, str]] = []
    flows = udp.UdpFlows(lambda data, _: sent.send_nowait(data), lambda *what: lost.append(what), random.Random(1))
    place = hop(transport=Transport.UDP)
    async with trio.open_nursery() as nursery:
        flows.keep(place, nursery)
        for port in (40000, 40000, 40777):
            answered = answer_binding(await sends.receive(), ("198.51.100.1", port))
            assert answered is not None
            flows.hear(answered, ("198.51.100.9", 5060))  # a stranger's answer is none
            assert nursery.child_tasks
            flows.hear(answered, place.address)
    assert lost == [(place, "our address has changed")]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno",
        b"HTTP/1.1 404 Not Found\r\n\r\n",
        b"SIP/2.0 400 Bad Request\r\n\r\n",
        b"",
    ],
    ids=["refused", "not-found", "no-http", "closed"],
)
async def test_a_server_that_speaks_no_sip_over_websocket(answer: bytes) -> None:
    """A call to it is 503 at once, whatever it says to our handshake, and no mistake of ours."""
    async with open_wire(seed=3) as wire, trio.open_nursery() as nursery:
        alice = make_stack(wire, ALICE)
        listener = await wire.host(BOB).listen(BOB, 80)
        await nursery.start(alice.stack.run)
        alice.stack.wish(call_to(f"sip:bob@{BOB};transport=ws"))
        stream = await listener.accept()
        await stream.receive_some()
        await stream.send_all(answer)
        await stream.aclose()
        refused = await alice.until(CallRefused)
        assert isinstance(refused, CallRefused)
        assert (refused.status, refused.reason) == (
            503,
            "no SIP over WebSocket there",
        )
        assert (alice.stack.counters["bugs"], len(alice.stack._connections)) == (0, 0)
        nursery.cancel_scope.cancel()
