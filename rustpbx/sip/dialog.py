"""Dialogs (RFC 3261 section 12): who the two sides are, what order their requests have, and where ours go."""

from __future__ import annotations

import ipaddress

import attrs

from rustpbx.sip.hop import Hop, Target, Transport, hop_uri, is_literal, uri_hop
from rustpbx.sip.message import CSeq, Lines, NameAddr, Request, Response, Via
from rustpbx.sip.uri import Uri

DialogKey = tuple[str, str, str]
"""Call-ID, our tag, the peer's tag."""

_WEB = frozenset({Transport.WS, Transport.WSS})
_PRIVATE = tuple(
    ipaddress.ip_network(block)
    for block in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "::/128",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    )
)


def dialog_id(call_id: str, one_tag: str, other_tag: str) -> str:
    """The dialog's public name, `{Call-ID}-{tag}-{tag}`, the lexicographically larger tag first."""
    larger, smaller = max(one_tag, other_tag), min(one_tag, other_tag)
    return f"{call_id}-{larger}-{smaller}"


def is_private(host: str) -> bool:
    """True for an IP literal that means nothing outside its own network; a name is never private."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in block for block in _PRIVATE if block.version == address.version)


def is_loose(route: NameAddr) -> bool:
    """True if this proxy keeps the Request-URI for the target (`;lr`, section 16.12)."""
    return "lr" in route.uri.params


def _is_elsewhere(hop: Hop, peer: Hop) -> bool:
    """Whether a target cannot be reached at its own address: behind a NAT, or a browser."""
    host = hop.address[0]
    if peer.transport in _WEB and hop.transport in _WEB:
        return True
    return (is_private(host) and host != peer.address[0]) or host.lower().endswith(".invalid")


@attrs.define(kw_only=True)
class Dialog:
    """One side of a dialog. `local` and `remote` carry their tags; `peer` is where its messages last came from."""

    call_id: str
    local: NameAddr
    remote: NameAddr
    remote_target: Uri
    route_set: tuple[NameAddr, ...]
    local_seq: int
    remote_seq: int | None
    peer: Hop

    @classmethod
    def of_response(cls, request: Request, response: Response, peer: Hop) -> Dialog:
        """The calling side's dialog, from a 1xx or 2xx with a To tag (section 12.1.2)."""
        return cls(
            call_id=request.call_id,
            local=request.from_,
            remote=response.to,
            remote_target=response.contacts[0].uri if response.contacts else request.uri,
            route_set=tuple(reversed(response.record_routes)),
            local_seq=request.cseq.number,
            remote_seq=None,
            peer=peer,
        )

    @classmethod
    def of_request(cls, request: Request, tag: str, peer: Hop) -> Dialog:
        """The called side's dialog, from an INVITE and the tag we chose (section 12.1.1)."""
        return cls(
            call_id=request.call_id,
            local=request.to.tagged(tag),
            remote=request.from_,
            remote_target=request.contacts[0].uri if request.contacts else hop_uri(peer),
            route_set=request.record_routes,
            local_seq=0,
            remote_seq=request.cseq.number,
            peer=peer,
        )

    @property
    def key(self) -> DialogKey:
        """What identifies a request of the peer's in this dialog."""
        return self.call_id, self.local.tag or "", self.remote.tag or ""

    @property
    def name(self) -> str:
        """The public name, see `dialog_id`."""
        return dialog_id(*self.key)

    @property
    def destination(self) -> Target:
        """Where our next request goes: the first route, else the target; over the peer's connection if it leads there.

        A target with a private address that is not where the peer's messages come from is behind a NAT: then the
        observed source is the only address that can work.
        """
        uri, peer = self.route_set[0].uri if self.route_set else self.remote_target, self.peer
        if uri.scheme not in {"sip", "sips"}:
            return peer
        hop = uri_hop(uri)
        if not self.route_set and _is_elsewhere(hop, peer):
            return peer
        if not is_literal(uri.host) or "maddr" in uri.params:
            return uri
        if hop.transport.secure and peer.domain:  # who has only a number must prove the name that we asked for
            hop = attrs.evolve(hop, domain=peer.domain)
        same = hop.transport is peer.transport and uri.host == peer.address[0]
        return attrs.evolve(hop, flow=peer.flow) if same else hop

    def in_order(self, cseq: CSeq) -> bool:
        """Take note of a request's CSeq; False if it is lower than one seen before (section 12.2.2: answer 500)."""
        if self.remote_seq is not None and cseq.number < self.remote_seq:
            return False
        self.remote_seq = cseq.number
        return True

    def refresh(self, message: Request | Response, peer: Hop) -> None:
        """Take over the remote target of a target refresh (section 12.2.1.2, 12.2.2)."""
        self.peer = peer
        if message.contacts:
            self.remote_target = message.contacts[0].uri

    def confirmed_as(self, fresh: Dialog) -> Dialog:
        """This early dialog after its 2xx, which says anew who the peer is and how it is reached (13.2.2.4)."""
        self.remote, self.remote_target, self.route_set = fresh.remote, fresh.remote_target, fresh.route_set
        self.peer, self.local_seq = fresh.peer, max(self.local_seq, fresh.local_seq)
        return self

    def request(
        self, method: str, via: Via, *, contact: NameAddr | None = None, lines: Lines = (), body: bytes = b""
    ) -> Request:
        """Our next request in this dialog, with the next CSeq (section 12.2.1.1)."""
        self.local_seq += 1
        return self._request(method, self.local_seq, via, lines, body, contact=contact)

    def ack(self, cseq: int, via: Via, *, lines: Lines = (), body: bytes = b"") -> Request:
        """The ACK of a 2xx: the INVITE's CSeq number, a transaction of its own (section 13.2.2.4)."""
        return self._request("ACK", cseq, via, lines, body)

    def _request(
        self, method: str, cseq: int, via: Via, lines: Lines, body: bytes, *, contact: NameAddr | None = None
    ) -> Request:
        uri, routes = self.remote_target, self.route_set
        if routes and not is_loose(routes[0]):  # a strict router: 12.2.1.1, 16.12.1.2
            uri, routes = routes[0].uri, (*routes[1:], NameAddr(self.remote_target))
        return Request(
            method=method,
            uri=attrs.evolve(uri, headers=""),
            vias=(via,),
            routes=routes,
            from_=self.local,
            to=self.remote,
            call_id=self.call_id,
            cseq=CSeq(cseq, method),
            contacts=() if contact is None else (contact,),
            lines=lines,
            body=body,
        )
