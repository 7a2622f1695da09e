"""A registrar to register with (RFC 3261 10.3), and the proxy of its domain: it knows who is where, and calls them.

Pure but for `serve`: digest, grants, refusals, silence; calls are passed on, and accounts that call are asked for their
password.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping

import attrs
import trio

from rustpbx.core import Address
from rustpbx.shell.network import Network
from rustpbx.sip.encoder import encode_message
from rustpbx.sip.hop import Hop, Transport
from rustpbx.sip.layer import response_hop, stamp
from rustpbx.sip.message import REASONS, Lines, NameAddr, Request, Response
from rustpbx.sip.parser import parse_message
from rustpbx.sip.uri import NO_PARAMS, Uri, parse_uri
from rustpbx.testing.forwarding import backward, is_at, onward

_PARAM = re.compile(r'(\w+)=(?:"([^"]*)"|([^,\s]+))')
_HEADERS = {401: ("WWW-Authenticate", "Authorization"), 407: ("Proxy-Authenticate", "Proxy-Authorization")}
_HASHES = {"MD5": "md5", "SHA-256": "sha256"}


@attrs.define(eq=False)
class Registrar:
    """`users` are names and passwords; empty: nobody is asked for one. `grant` is the most it gives, in seconds,
    `least` the least it takes (423). `status` answers each REGISTER, `silent` leaves all without an answer.

    A call to one of its users goes to the Contact that was registered last, or is 404, 480; any other goes where its
    Request-URI says. Who calls as one of its users proves it first (407). `requests` are the REGISTERs so far,
    `invites` the INVITEs that begin a call, `byes` the BYEs it has passed on.
    """

    users: dict[str, str] = attrs.field(factory=dict)
    realm: str = "registrar"
    domain: str = ""
    """The one that it is for, besides its own address."""
    algorithm: str = "MD5"
    grant: int = 3600
    least: int = 0
    status: int | None = None
    lines: Lines = ()
    silent: bool = False
    forgets: bool = False
    """Answers 200, but keeps no Contact."""
    address: Address = ("10.0.0.5", 5060)
    """Its own; `serve` writes it."""
    requests: list[Request] = attrs.field(factory=list, init=False)
    invites: list[Request] = attrs.field(factory=list, init=False)
    byes: list[Request] = attrs.field(factory=list, init=False)
    at: list[float] = attrs.field(factory=list, init=False)
    """When each of them came."""
    bindings: dict[str, dict[str, float]] = attrs.field(factory=dict, init=False)
    """By user: each Contact, and until when it is good."""
    _nonce: int = attrs.field(default=0, init=False)
    _seen: set[str | None] = attrs.field(factory=set, init=False)
    _last: dict[str, tuple[int, Response | None]] = attrs.field(factory=dict, init=False)
    _refused: set[str | None] = attrs.field(factory=set, init=False)

    def contacts(self, user: str, now: float | None = None) -> list[Uri]:
        """Where a user can be reached now (by default Trio's)."""
        now = trio.current_time() if now is None else now
        return [parse_uri(text) for text, until in self.bindings.get(user, {}).items() if until > now]

    def bind(self, user: str, uri: str) -> None:
        """Say where a user is who does not register by himself, for ever."""
        self.bindings.setdefault(user, {})[uri] = math.inf

    def forget_nonces(self) -> None:
        """What was authorized so far has to be so anew, with `stale`."""
        self._nonce += 1

    async def serve(
        self, network: Network, address: Address, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Answer for ever; started when it listens, with nothing seen or known. Raises OSError for a taken address."""
        for seen in (
            self.requests,
            self.invites,
            self.byes,
            self.at,
            self.bindings,
            self._seen,
            self._refused,
            self._last,
        ):
            seen.clear()
        self.address = address
        datagrams = await network.open_datagrams(*address)
        try:
            task_status.started()
            while True:
                data, source = await datagrams.receive()
                for answer, destination in self.hear(data, source, trio.current_time()):
                    await datagrams.send(answer, destination)
        finally:
            datagrams.close()

    def hear(self, data: bytes, source: Address, now: float) -> list[tuple[bytes, Address]]:
        """Take a datagram; what is sent for it, and where."""
        if not data.strip(b"\r\n\0 ") or data[:1] < b" ":
            return []  # a keep-alive
        message = parse_message(data)
        if isinstance(message, Response):
            passed = backward(message, self.address)
            return [] if passed is None else [(encode_message(passed[0]), passed[1])]
        request = stamp(message, Hop(Transport.UDP, source))
        self._note(request, now)
        if self.silent:
            return []
        if request.method == "REGISTER":
            return [(encode_message(self._answer(request, now)), source)]
        ours = request.method == "ACK" and request.via.branch in self._refused
        return [] if ours else [self._proxy(request, now)]

    def _note(self, request: Request, now: float) -> None:
        """Keep what came for the test to see, once however often it is sent."""
        known = request.via.branch in self._seen
        if request.method == "REGISTER" and not known:
            self.requests.append(request)
            self.at.append(now)
        elif request.method == "INVITE" and request.to.tag is None and not known:
            self.invites.append(request)
        elif request.method == "BYE" and not known:
            self.byes.append(request)
        self._seen.add(request.via.branch)

    def _proxy(self, request: Request, now: float) -> tuple[bytes, Address]:
        """Pass a request on, or refuse it."""
        response = self._refusal(request, now) if request.method == "INVITE" and request.to.tag is None else None
        if response is not None:
            self._refused.add(request.via.branch)
            return encode_message(response), response_hop(request.via, Hop(Transport.UDP, self.address)).address
        uri, known = request.uri, self.contacts(request.uri.user or "", now)
        passed, where = onward(request, self.address, known[-1] if self._is_ours(uri) and known else uri)
        return encode_message(passed), where

    def _refusal(self, request: Request, now: float) -> Response | None:
        """Why a call does not go on."""
        if (request.from_.uri.user or "") in self.users:
            refusal = self._challenge(request, request.from_.uri.user or "", 407)
            if refusal is not None:
                return refusal
        user = request.uri.user or ""
        if not self._is_ours(request.uri) or self.contacts(user, now):
            return None
        return _response(request, 480 if user in self.users or user in self.bindings else 404)

    def _is_ours(self, uri: Uri) -> bool:
        return is_at(uri, self.address) or uri.host == self.domain

    def _answer(self, request: Request, now: float) -> Response:
        user = request.to.uri.user or ""
        if self.status is not None:
            return _response(request, self.status, self.lines)
        refusal = self._challenge(request, user, 401)
        if refusal is not None:
            return refusal
        before, answer = self._last.get(request.call_id, (0, None))
        if request.cseq.number < before:
            return _response(request, 500)  # 10.3: an old one that comes late changes nothing
        if request.cseq.number == before and answer is not None:
            return attrs.evolve(answer, vias=request.vias)
        wanted = int(request.header("Expires") or self.grant)
        if 0 < wanted < self.least:
            return _response(request, 423, (("Min-Expires", str(self.least)),))
        answer = self._bind(request, user, min(wanted, self.grant), now)
        self._last[request.call_id] = request.cseq.number, answer
        return answer

    def _bind(self, request: Request, user: str, seconds: int, now: float) -> Response:
        kept = self.bindings.setdefault(user, {})
        for contact in request.contacts:
            asked = contact.params.get("expires")
            until = now + (seconds if asked is None else min(int(asked), self.grant))
            kept.pop(str(contact.uri), None)  # the last one is the newest
            kept[str(contact.uri)] = until
        self.bindings[user] = kept = {text: until for text, until in kept.items() if until > now}
        shown = {} if self.forgets else kept
        contacts = tuple(
            NameAddr(parse_uri(text), params=NO_PARAMS.set("expires", str(round(until - now))))
            for text, until in shown.items()
        )
        return attrs.evolve(_response(request, 200, self.lines), contacts=contacts)

    def _challenge(self, request: Request, user: str, status: int) -> Response | None:
        """401 or 407 without the right password for the nonce of the day."""
        if not self.users:
            return None
        asking, answering = _HEADERS[status]
        given = request.header(answering) or ""
        params: Mapping[str, str] = {name: quoted or plain for name, quoted, plain in _PARAM.findall(given)}
        stale = bool(params) and params.get("nonce") != self._text
        if params and not stale and self._proves(params, request, user):
            return None
        value = f'Digest realm="{self.realm}", nonce="{self._text}", algorithm={self.algorithm}, qop="auth"'
        return _response(request, status, ((asking, value + (", stale=true" if stale else "")),))

    @property
    def _text(self) -> str:
        return f"nonce-{self._nonce}"

    def _proves(self, params: Mapping[str, str], request: Request, user: str) -> bool:
        password = self.users.get(params.get("username", ""))
        if password is None or params.get("realm") != self.realm or not user:
            return False
        one = self._hash(f"{params['username']}:{self.realm}:{password}")
        two = self._hash(f"{request.method}:{params.get('uri')}")
        middle = f"{params.get('nonce')}:{params.get('nc')}:{params.get('cnonce')}:{params.get('qop')}"
        return params.get("response") == self._hash(f"{one}:{middle}:{two}")

    def _hash(self, text: str) -> str:
        return hashlib.new(_HASHES[self.algorithm], text.encode(), usedforsecurity=False).hexdigest()


def _response(request: Request, status: int, lines: Lines = ()) -> Response:
    return Response(
        status=status,
        reason=REASONS.get(status, "Unknown"),
        vias=request.vias,
        from_=request.from_,
        to=request.to.tagged("registrar"),
        call_id=request.call_id,
        cseq=request.cseq,
        lines=lines,
    )
