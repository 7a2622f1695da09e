"""A registrar to register with (RFC 3261 10.3): digest, grants, refusals, silence, and who is registered where."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

import attrs
import trio

from rustpbx.core import Address
from rustpbx.shell.network import Datagrams, Network
from rustpbx.sip.encoder import encode_message
from rustpbx.sip.hop import Hop, Transport
from rustpbx.sip.layer import stamp
from rustpbx.sip.message import REASONS, Lines, NameAddr, Request, Response
from rustpbx.sip.parser import parse_message
from rustpbx.sip.uri import NO_PARAMS, Uri, parse_uri

_PARAM = re.compile(r'(\w+)=(?:"([^"]*)"|([^,\s]+))')
_HASHES = {"MD5": "md5", "SHA-256": "sha256"}


@attrs.define(eq=False)
class Registrar:
    """`users` are names and passwords; empty: nobody is asked for one. `grant` is the most it gives, in seconds,
    `least` the least it takes (423). `status` answers everything, `silent` nothing.
    `requests` are the REGISTERs so far.
    """

    users: dict[str, str] = attrs.field(factory=dict)
    realm: str = "registrar"
    algorithm: str = "MD5"
    grant: int = 3600
    least: int = 0
    status: int | None = None
    lines: Lines = ()
    silent: bool = False
    forgets: bool = False
    """Answers 200, but keeps no Contact."""
    requests: list[Request] = attrs.field(factory=list, init=False)
    at: list[float] = attrs.field(factory=list, init=False)
    """When each of them came."""
    bindings: dict[str, dict[str, float]] = attrs.field(factory=dict, init=False)
    """By user: each Contact, and until when it is good."""
    _nonce: int = attrs.field(default=0, init=False)

    def contacts(self, user: str) -> list[Uri]:
        """Where a user can be reached now."""
        return [parse_uri(text) for text, until in self.bindings.get(user, {}).items() if until > trio.current_time()]

    def forget_nonces(self) -> None:
        """What was authorized so far has to be so anew, with `stale`."""
        self._nonce += 1

    async def serve(
        self, network: Network, address: Address, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Answer for ever; started when it listens. Raises OSError if the address is taken."""
        datagrams = await network.open_datagrams(*address)
        try:
            task_status.started()
            while True:
                await self._hear(datagrams, *await datagrams.receive())
        finally:
            datagrams.close()

    async def _hear(self, datagrams: Datagrams, data: bytes, source: Address) -> None:
        if not data.strip(b"\r\n\0 ") or data[:1] < b" ":
            return  # a keep-alive
        message = parse_message(data)
        if not isinstance(message, Request) or message.method != "REGISTER":
            return
        request = stamp(message, Hop(Transport.UDP, source))
        if all(known.via.branch != request.via.branch for known in self.requests):
            self.requests.append(request)
            self.at.append(trio.current_time())
        if not self.silent:
            await datagrams.send(encode_message(self._answer(request)), source)

    def _answer(self, request: Request) -> Response:
        user = request.to.uri.user or ""
        if self.status is not None:
            return _response(request, self.status, self.lines)
        refusal = self._challenge(request, user)
        if refusal is not None:
            return refusal
        wanted = int(request.header("Expires") or self.grant)
        if 0 < wanted < self.least:
            return _response(request, 423, (("Min-Expires", str(self.least)),))
        return self._bind(request, user, min(wanted, self.grant))

    def _bind(self, request: Request, user: str, seconds: int) -> Response:
        kept = self.bindings.setdefault(user, {})
        now = trio.current_time()
        for contact in request.contacts:
            asked = contact.params.get("expires")
            until = now + (seconds if asked is None else min(int(asked), self.grant))
            kept[str(contact.uri)] = until
        self.bindings[user] = kept = {text: until for text, until in kept.items() if until > now}
        shown = {} if self.forgets else kept
        contacts = tuple(
            NameAddr(parse_uri(text), params=NO_PARAMS.set("expires", str(round(until - now))))
            for text, until in shown.items()
        )
        return attrs.evolve(_response(request, 200, self.lines), contacts=contacts)

    def _challenge(self, request: Request, user: str) -> Response | None:
        """401 without the right password for the nonce of the day."""
        if not self.users:
            return None
        given = request.header("Authorization") or ""
        params: Mapping[str, str] = {name: quoted or plain for name, quoted, plain in _PARAM.findall(given)}
        stale = bool(params) and params.get("nonce") != self._text
        if params and not stale and self._proves(params, request, user):
            return None
        value = f'Digest realm="{self.realm}", nonce="{self._text}", algorithm={self.algorithm}, qop="auth"'
        return _response(request, 401, (("WWW-Authenticate", value + (", stale=true" if stale else "")),))

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
