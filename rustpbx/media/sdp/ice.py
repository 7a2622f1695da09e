"""What SDP says about ICE (RFC 8839): who we are, `a=ice-ufrag` and `a=ice-pwd`, and where, `a=candidate`."""

from __future__ import annotations

import ipaddress
import re
from enum import Enum

import attrs

from rustpbx.core import Address
from rustpbx.media.sdp.model import Attribute, MediaDescription, SdpError, SessionDescription

MOST_CANDIDATES = 100
"""Candidates of one description that are read; an honest peer has a dozen."""

_UFRAG = re.compile(r"[A-Za-z0-9+/]{4,256}")
_PWD = re.compile(r"[A-Za-z0-9+/]{22,256}")
_CANDIDATE = re.compile(
    r"(?:candidate:)?(?P<foundation>[A-Za-z0-9+/]{1,32}) (?P<component>[0-9]{1,3}) (?P<transport>[A-Za-z-]{1,16}) "
    r"(?P<priority>[0-9]{1,10}) (?P<host>[0-9A-Za-z.:-]{1,255}) (?P<port>[0-9]{1,5}) typ (?P<kind>[a-z]{1,8})"
    r"(?: raddr (?P<raddr>[0-9A-Za-z.:-]{1,255}) rport (?P<rport>[0-9]{1,5}))?(?: [!-~]{1,256}){0,32} *"
)


class CandidateKind(Enum):
    """How an address came to be known (RFC 8445 5.1.1)."""

    HOST = "host"
    SERVER_REFLEXIVE = "srflx"
    PEER_REFLEXIVE = "prflx"
    RELAYED = "relay"


@attrs.frozen
class Candidate:
    """An address that may work. `related` is, of any kind but host, the address behind it (RFC 8839 5.1).

    The host is an IP literal, or a name in `.local` that only the peer's own network can resolve.
    """

    foundation: str
    priority: int
    address: Address
    kind: CandidateKind
    component: int = 1
    transport: str = "udp"
    related: Address | None = None

    @property
    def is_name(self) -> bool:
        """Whether it has a name (mDNS) in place of an address."""
        return not _is_literal(self.address[0])

    def __str__(self) -> str:
        host, port = self.address
        text = (
            f"{self.foundation} {self.component} {self.transport} {self.priority} {host} {port} typ {self.kind.value}"
        )
        return text if self.related is None else f"{text} raddr {self.related[0]} rport {self.related[1]}"


@attrs.frozen
class IceDescription:
    """One side's ICE. `ended` says that no candidate will follow (RFC 8838 8.2)."""

    ufrag: str
    pwd: str = attrs.field(repr=False)
    candidates: tuple[Candidate, ...] = ()
    lite: bool = False
    options: tuple[str, ...] = ()
    ended: bool = False


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _address(host: str, port: str) -> Address | None:
    """An address in its canonical form, or a name in `.local`; None for anything else."""
    if int(port) > 65535:
        return None
    if _is_literal(host):
        return str(ipaddress.ip_address(host)), int(port)
    return (host.lower(), int(port)) if host.lower().endswith(".local") else None


def parse_candidate(value: str) -> Candidate | None:
    """What stands behind `a=candidate:`, or in the `candidate` of a browser; None if it is not of the form."""
    found = _CANDIDATE.fullmatch(value)
    kinds = {kind.value: kind for kind in CandidateKind}
    if found is None or found["kind"] not in kinds:
        return None
    address = _address(found["host"], found["port"])
    priority, component = int(found["priority"]), int(found["component"])
    if address is None or not 1 <= priority < 1 << 31 or not 1 <= component <= 256:
        return None
    related = _address(found["raddr"], found["rport"]) if found["raddr"] else None
    return Candidate(
        foundation=found["foundation"],
        priority=priority,
        address=address,
        kind=kinds[found["kind"]],
        component=component,
        transport=found["transport"].lower(),
        related=related,
    )


def read_ice(description: SessionDescription, media: MediaDescription) -> IceDescription | None:
    """The ICE of one of the media, its own lines before the session's; None if the peer does none.

    Candidates that cannot be read, and those after `MOST_CANDIDATES`, are left out. Raises SdpError for credentials
    that are not of the form, or of which one is missing: nothing could be authenticated with them.
    """
    ufrag, pwd = (_text(description, media, name) for name in ("ice-ufrag", "ice-pwd"))
    if ufrag is None and pwd is None:
        return None
    if not _UFRAG.fullmatch(ufrag or ""):
        raise SdpError("a=ice-ufrag is missing or not 4 to 256 characters of ICE")
    if not _PWD.fullmatch(pwd or ""):
        raise SdpError("a=ice-pwd is missing or not 22 to 256 characters of ICE")
    lines = [a.value or "" for a in media.attributes if a.name == "candidate"][:MOST_CANDIDATES]
    return IceDescription(
        ufrag=ufrag or "",
        pwd=pwd or "",
        candidates=tuple(found for found in map(parse_candidate, lines) if found),
        lite=description.attribute("ice-lite") is not None,
        options=tuple((_text(description, media, "ice-options") or "").split()),
        ended=media.attribute("end-of-candidates") is not None,
    )


def _text(description: SessionDescription, media: MediaDescription, name: str) -> str | None:
    found = media.attribute(name) or description.attribute(name)
    return found.value if found else None


def ice_attributes(ice: IceDescription) -> tuple[Attribute, ...]:
    """The lines for a media section; `a=ice-lite` is the session's (RFC 8839 5.3), see `LITE`."""
    lines = [Attribute("ice-ufrag", ice.ufrag), Attribute("ice-pwd", ice.pwd)]
    if ice.options:
        lines.append(Attribute("ice-options", " ".join(ice.options)))
    lines.extend(Attribute("candidate", str(candidate)) for candidate in ice.candidates)
    if ice.ended:
        lines.append(Attribute("end-of-candidates", None))
    return tuple(lines)


LITE = Attribute("ice-lite", None)
"""The line of a session whose side is lite."""
