"""SIP messages as values (RFC 3261 section 7): typed where the stack decides by them, text where it only carries.

The parser builds these, the encoder writes them, and nothing in between splits a string.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs

from rustpbx.sip.uri import NO_PARAMS, Params, Uri

Lines = tuple[tuple[str, str], ...]
"""Header fields that the stack does not interpret, in order: (canonical name, value)."""


@attrs.frozen
class NameAddr:
    """`"Alice" <sip:alice@example.com>;tag=x` (section 20.10). `display_name` is unquoted; "" if absent."""

    uri: Uri
    display_name: str = ""
    params: Params = NO_PARAMS

    @property
    def tag(self) -> str | None:
        """The `tag` parameter of From and To."""
        return self.params.get("tag")

    def tagged(self, tag: str) -> NameAddr:
        """The same address with this tag."""
        return attrs.evolve(self, params=self.params.set("tag", tag))


@attrs.frozen
class Via:
    """One Via value (section 20.42). `transport` is upper case: UDP, TCP, TLS, WS, WSS."""

    transport: str
    host: str
    port: int | None = None
    params: Params = NO_PARAMS

    @property
    def branch(self) -> str | None:
        """The transaction's identifier; starts with `z9hG4bK` from RFC 3261 peers."""
        return self.params.get("branch")


@attrs.frozen
class CSeq:
    """Sequence number (below 2**31) and method."""

    number: int
    method: str


@attrs.frozen(kw_only=True)
class Message:
    """What requests and responses share. `vias` is never empty; `lines` holds every other header field."""

    vias: tuple[Via, ...]
    from_: NameAddr
    to: NameAddr
    call_id: str
    cseq: CSeq
    contacts: tuple[NameAddr, ...] = ()
    record_routes: tuple[NameAddr, ...] = ()
    lines: Lines = ()
    body: bytes = b""

    @property
    def via(self) -> Via:
        """The topmost Via."""
        return self.vias[0]

    @property
    def content_type(self) -> str | None:
        """Media type in lower case without parameters, e.g. `application/sdp`; None without the header."""
        value = self.header("Content-Type")
        return value.split(";", 1)[0].strip().lower() if value is not None else None

    def header(self, name: str) -> str | None:
        """The first value of an uninterpreted header, by case-insensitive full name."""
        return next(self.all(name), None)

    def all(self, name: str) -> Iterator[str]:
        """Every value of an uninterpreted header, in order."""
        wanted = name.lower()
        return (value for key, value in self.lines if key.lower() == wanted)


@attrs.frozen(kw_only=True)
class Request(Message):
    """A request. `method` is case-sensitive, `uri` the Request-URI, `routes` the Route set in order."""

    method: str
    uri: Uri
    max_forwards: int = 70
    routes: tuple[NameAddr, ...] = ()


@attrs.frozen(kw_only=True)
class Response(Message):
    """A response; `status` is 100..699."""

    status: int
    reason: str


REASONS: Mapping[int, str] = {
    100: "Trying",
    180: "Ringing",
    181: "Call Is Being Forwarded",
    182: "Queued",
    183: "Session Progress",
    200: "OK",
    202: "Accepted",
    300: "Multiple Choices",
    301: "Moved Permanently",
    302: "Moved Temporarily",
    305: "Use Proxy",
    380: "Alternative Service",
    400: "Bad Request",
    401: "Unauthorized",
    402: "Payment Required",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    407: "Proxy Authentication Required",
    408: "Request Timeout",
    410: "Gone",
    413: "Request Entity Too Large",
    414: "Request-URI Too Long",
    415: "Unsupported Media Type",
    416: "Unsupported URI Scheme",
    420: "Bad Extension",
    421: "Extension Required",
    422: "Session Interval Too Small",
    423: "Interval Too Brief",
    480: "Temporarily Unavailable",
    481: "Call/Transaction Does Not Exist",
    482: "Loop Detected",
    483: "Too Many Hops",
    484: "Address Incomplete",
    485: "Ambiguous",
    486: "Busy Here",
    487: "Request Terminated",
    488: "Not Acceptable Here",
    489: "Bad Event",
    491: "Request Pending",
    493: "Undecipherable",
    500: "Server Internal Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Server Time-out",
    505: "Version Not Supported",
    513: "Message Too Large",
    600: "Busy Everywhere",
    603: "Decline",
    604: "Does Not Exist Anywhere",
    606: "Not Acceptable",
}
"""Default reason phrases (section 21 and later RFCs)."""
