"""A SIP endpoint fed by a script: datagrams as they are, and between them wishes of the session and time.

Steps are separated by a line `%%`. One that begins with `!` is a wish (`!answer`, `!dial` ...) or time (`!wait 32`);
any other is a datagram, in which `$TAG` and the like stand for what the endpoint chose itself. Line ends of a datagram
without CRLF become CRLF, so that scripts can be written by hand.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable

from rustpbx.control.webhook import announcement
from rustpbx.control.wire import encode_json
from rustpbx.core import Tick
from rustpbx.errors import LocalError, RemoteError
from rustpbx.sip.endpoint import EndpointConfig
from rustpbx.sip.events import (
    ENDINGS,
    AcceptOffer,
    Answer,
    CallRefused,
    Credentials,
    Fact,
    HangUp,
    IncomingCall,
    Received,
    Refuse,
    RefuseOffer,
    Ring,
    SendDigit,
    SendInvite,
    SendOffer,
    Undeliverable,
    Wish,
)
from rustpbx.sip.message import NameAddr, Request
from rustpbx.sip.parser import parse_message, read_head
from rustpbx.sip.uri import parse_uri
from tests.kit.peers_sip import ALICE, ANSWER, BOB, OFFER, Packet, Side, udp
from tests.kit.rounds import while_it_lasts

SEPARATOR = b"\n%%\n"
MOST_STEPS = 40
MOST_SENDS = 12
"""Datagrams that one input may cause: answers to a request, and to all that it ends."""

CONFIG = EndpointConfig(port=5060, max_calls=4, max_transactions=8)
EVERYTHING_OVER = 4000.0
"""Seconds after which an endpoint without calls has forgotten everything."""


def play(script: bytes) -> None:
    """No input raises, every one is counted or answered, memory is bounded; in the end nothing is left."""
    Player.of(script).finish()


class Player:
    """The endpoint and what it said, watched at every step."""

    def __init__(self) -> None:
        self.now = 0.0
        self.side = Side(BOB, 7, CONFIG)
        self._endpoint = self.side.endpoint
        self._seen = 0
        self._legs: list[str] = []
        self._over: set[str] = set()
        self._words: dict[bytes, bytes] = {}

    @classmethod
    def of(cls, script: bytes) -> Player:
        """One that has taken these steps."""
        player = cls()
        for step in script.split(SEPARATOR)[:MOST_STEPS]:
            if step.startswith(b"!"):
                player.wish(step[1:].decode("latin-1"))
            else:
                player.receive(step if b"\r\n" in step else step.replace(b"\n", b"\r\n"))
        return player

    @property
    def facts(self) -> list[Fact]:
        """Everything told so far."""
        return self.side.facts

    # -- inputs -------------------------------------------------------------------------------------------------------

    def receive(self, datagram: bytes) -> None:
        """Take one datagram."""
        for word, meaning in self._words.items():
            datagram = datagram.replace(word, meaning)
        before = self._endpoint.counters
        self._watch(self.side.handle(Received(datagram, udp(ALICE), BOB[0]), self.now), echo=_expected(datagram) != {})
        moved = self._endpoint.counters
        moved.subtract(before)
        expected = {"keep_alives": 1} if not datagram.strip(b"\r\n\0 \t") else _expected(datagram)
        counted = {name: moved[name] for name in ("keep_alives", "malformed")}
        assert counted == {"keep_alives": 0, "malformed": 0} | expected, counted

    def wish(self, words: str) -> None:
        """Let the session wish for something, or time pass."""
        name, _, argument = words.strip().partition(" ")
        if name == "wait":
            self.wait(float(min(int(argument), 4000)) if argument.isascii() and argument.isdigit() else 1.0)
            return
        if name == "undeliverable":
            branch = self._words.get(b"$BRANCH", b"").decode()
            self._watch(self.side.handle(Undeliverable(branch, "no route"), self.now))
            return
        make = _WISHES.get(name)
        if make is None or (name != "dial" and not self._legs):
            return
        wish = make(f"out-{len(self._legs)}" if name == "dial" else self._legs[-1], argument)
        self._do(wish)

    def _do(self, wish: Wish) -> None:
        try:
            sent = self.side.handle(wish, self.now)
        except LocalError:
            return
        if isinstance(wish, SendInvite):
            self._legs.append(wish.leg)
        self._watch(sent)
        if isinstance(wish, HangUp) or (isinstance(wish, Refuse) and wish.leg not in self._endpoint._directory.live):
            self._over.add(wish.leg)

    def wait(self, seconds: float) -> None:
        """Let time pass, with a tick at each deadline on the way."""
        end = self.now + seconds
        for _ in while_it_lasts(lambda: self._endpoint.deadline().at <= end):
            self.now = max(self.now, self._endpoint.deadline().at)
            self._watch(self.side.handle(Tick(), self.now), at_once=False)
        self.now = end

    def finish(self) -> None:
        """Hang up whatever is up; long after it, nothing may be left."""
        for leg in self._legs:
            if leg not in self._over:
                self._do(HangUp(leg))
        self.wait(EVERYTHING_OVER)
        counters = self._endpoint.counters
        left = {
            name: counters[name]
            for name in ("transactions_running", "transactions_waiting_ack", "pending", "dialogs", "calls")
            if counters[name]
        }
        layer, directory = self._endpoint._layer, self._endpoint._directory
        held = (*layer._merged, *directory.dialogs, *directory.invites, *directory.live)
        assert (left, held, self._endpoint.deadline().at) == ({}, (), math.inf)

    # -- what is watched ----------------------------------------------------------------------------------------------

    def _watch(self, sent: list[Packet], *, at_once: bool = True, echo: bool = False) -> None:
        assert len(sent) <= MOST_SENDS or not at_once, [packet.title for packet in sent]
        for packet in sent:
            assert 0 < packet.destination[1] < 65_536, packet.destination
            if echo:  # the refusal of what cannot be read gives it back as it came
                read_head(packet.data.partition(b"\r\n\r\n")[0])
                continue
            message = parse_message(packet.data)
            if isinstance(message, Request):
                self._learn(message)
        for fact in self.side.facts[self._seen :]:
            assert fact.leg not in self._over, f"{fact!r} after the end"
            if isinstance(fact, IncomingCall):
                self._legs.append(fact.leg)
                tag = next(part for part in fact.leg.split("-")[-3:] if len(part) == 16)
                self._words[b"$TAG"] = tag.encode()
                json.loads(encode_json(announcement(fact, 0)))
            if isinstance(fact, ENDINGS):
                self._over.add(fact.leg)
            if isinstance(fact, CallRefused):
                assert 300 <= fact.status <= 699, fact
        self._seen = len(self.side.facts)
        self._bounded()

    def _learn(self, request: Request) -> None:
        self._words |= {
            b"$BRANCH": (request.via.branch or "").encode(),
            b"$CALLID": request.call_id.encode(),
            b"$FROM": (request.from_.tag or "").encode(),
            b"$CSEQ": f"{request.cseq.number} {request.cseq.method}".encode(),
        }

    def _bounded(self) -> None:
        counters = self._endpoint.counters
        assert counters["bugs"] == 0, "a bug was reported"
        assert len(self._endpoint._directory.live) <= CONFIG.max_calls
        assert self._endpoint._layer.serving <= 2 * CONFIG.max_transactions
        assert counters["calls"] <= CONFIG.max_calls + 2 * CONFIG.max_transactions + len(self._legs)


def _expected(datagram: bytes) -> dict[str, int]:
    try:
        parse_message(datagram)
    except RemoteError:
        return {"malformed": 1}
    return {}


def _dial(leg: str, callee: str) -> SendInvite:
    try:
        uri = parse_uri(callee or "sip:bob@192.0.2.1")
    except RemoteError:
        uri = parse_uri("tel:+1")
    return SendInvite(
        leg=leg,
        caller=NameAddr(parse_uri("sip:us@192.0.2.2")),
        callee=uri,
        body=OFFER,
        local_host=BOB[0],
        credentials=Credentials("us", "secret"),
    )


def _status(argument: str, default: int) -> int:
    return int(argument) if argument.isascii() and argument.isdigit() and len(argument) < 4 else default


_WISHES: dict[str, Callable[[str, str], Wish]] = {
    "dial": _dial,
    "ring": lambda leg, argument: Ring(leg, _status(argument, 180), ANSWER if argument else b""),
    "answer": lambda leg, _: Answer(leg, ANSWER),
    "refuse": lambda leg, argument: Refuse(leg, _status(argument, 486), argument or None),
    "hangup": lambda leg, _: HangUp(leg),
    "take": lambda leg, _: AcceptOffer(leg, ANSWER),
    "decline": lambda leg, argument: RefuseOffer(leg, _status(argument, 488)),
    "offer": lambda leg, _: SendOffer(leg, OFFER),
    "digit": lambda leg, argument: SendDigit(leg, argument[:1] or "5"),
}
"""Wishes by their word, for the newest leg; an argument is a status, a digit or an address."""
