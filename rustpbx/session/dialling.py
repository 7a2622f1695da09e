"""Where an agent's call goes and who it says it is: the `invite` option turned into an INVITE."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from rustpbx.errors import RemoteError, RustpbxError
from rustpbx.media.sdp.crypto import SrtpMode
from rustpbx.session.options import CallOption, SipOption
from rustpbx.sip.events import Credentials, SendInvite
from rustpbx.sip.headers import is_token
from rustpbx.sip.message import Lines, NameAddr
from rustpbx.sip.parser import parse_aor, parse_name_addr
from rustpbx.sip.passing import is_ours
from rustpbx.sip.uri import Uri, parse_uri

MAX_TEXT = 1000
MAX_HEADERS = 8000
"""Characters of an address, and of all header fields together: a request must fit a datagram."""


class DialError(RustpbxError):
    """The option cannot be dialled; the text names the key."""


@attrs.frozen(kw_only=True)
class Dialling:
    """A parsed `invite` option."""

    caller: NameAddr
    callee: Uri
    credentials: Credentials | None
    contact: Uri | None
    headers: Lines
    srtp: SrtpMode | None = None
    delayed_offer: bool = False

    @classmethod
    def of(cls, option: CallOption, own_address: str, where: str = "option.") -> Dialling:
        """Read caller, callee and the `sip` option. Raises `DialError`, naming keys as they are called behind `where`.

        A missing caller is the credentials' own address, else `own_address`; a bare `user@host` gets its scheme.
        """
        sip = option.sip or SipOption()
        if not option.callee:
            raise DialError(f"{where}callee is missing")
        if len(option.callee) > MAX_TEXT or len(option.caller or "") > MAX_TEXT:
            raise DialError(f"{where}callee or {where}caller is longer than {MAX_TEXT} characters")
        callee = _named(f"{where}callee", option.callee).uri
        if callee.scheme not in {"sip", "sips"}:
            raise DialError(f"{where}callee: {callee.scheme} addresses cannot be called in this version")
        if not callee.host:
            raise DialError(f"{where}callee: {option.callee!r} has no host")
        fallback = f"sip:{sip.username}@{sip.realm}" if sip.username and sip.realm else own_address
        return cls(
            caller=_shown(_named(f"{where}caller", option.caller or fallback), sip.display_name),
            callee=callee,
            credentials=Credentials(sip.username, sip.password or "", sip.realm or "") if sip.username else None,
            contact=_contact(sip.contact),
            headers=header_lines("option.sip.headers", sip.headers or {}),
            srtp=_srtp(sip.srtp),
            delayed_offer=sip.delayed_offer,
        )

    def invite(self, leg: str, local_host: str, offer: bytes) -> SendInvite:
        """The wish that places this call."""
        return SendInvite(
            leg=leg,
            caller=self.caller,
            callee=self.callee,
            body=offer,
            local_host=local_host,
            credentials=self.credentials,
            contact=self.contact,
            headers=self.headers,
        )


def _named(key: str, text: str) -> NameAddr:
    try:
        if "<" in text:
            return parse_name_addr(text)
        return NameAddr(parse_aor(text))
    except RemoteError as problem:
        raise DialError(f"{key}: {problem}") from None


def _shown(caller: NameAddr, name: str | None) -> NameAddr:
    """The caller with the display name that the option gives it."""
    if name is None:
        return caller
    if len(name) > MAX_TEXT or not name.isprintable():
        raise DialError("option.sip.displayName: not a name that can be shown")
    return attrs.evolve(caller, display_name=name)


def _contact(text: str | None) -> Uri | None:
    if not text:
        return None
    try:
        return parse_uri(text.strip().removeprefix("<").removesuffix(">"))
    except RemoteError as problem:
        raise DialError(f"option.sip.contact: {problem}") from None


def _srtp(text: str | None) -> SrtpMode | None:
    if text is None:
        return None
    try:
        return SrtpMode(text)
    except ValueError:
        modes = ", ".join(mode.value for mode in SrtpMode)
        raise DialError(f"option.sip.srtp: {text[:40]!r} is none of {modes}") from None


def header_lines(key: str, headers: Mapping[str, str]) -> Lines:
    """An agent's header fields as the stack takes them. Raises `DialError` naming `key`."""
    if sum(len(name) + len(value) for name, value in headers.items()) > MAX_HEADERS:
        raise DialError(f"{key}: more than {MAX_HEADERS} characters do not fit a request")
    for name, value in headers.items():
        if is_ours(name):
            raise DialError(f"{key}: {name} is written by the server")
        if not is_token(name) or not value.isprintable():
            raise DialError(f"{key}: {name!r} is not a header field")
    return tuple(headers.items())


def one_line(text: str) -> str:
    """An agent's words as they may stand in a header field: whatever does not print is a space."""
    return "".join(c if c.isprintable() else " " for c in text)
