"""SIP, SIPS and TEL addresses (RFC 3261 section 19.1, RFC 3966) as values that keep what was written.

Escapes (`%40`) stay as they came, in every part: decoding and encoding again could change who is meant.
"""

from __future__ import annotations

import ipaddress
import re

import attrs

from rustpbx.errors import RemoteError

MAX_PARAMS = 64
"""More parameters than this on one URI or header value are an attack, not an address."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):")
_URI_TEXT = re.compile(r"[!#-;=?-~]+")  # printable ASCII without space, quotes and angle brackets
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_USER = r"[!#-/0-9;=?A-Z\\\^-~]"  # of those all but : @ [ ]
_HOST = r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._\-]+"
_SIP = re.compile(
    rf"(sips?):(?:({_USER}+)(?::({_USER}*))?@)?({_HOST})(?::([0-9]{{1,5}}))?((?:;[!#-;=@-~]*)?)(?:\?([!#-;=?-~]*))?",
    re.IGNORECASE,
)
_HOST_PORT = re.compile(rf"({_HOST})(?:[ \t]*:[ \t]*([0-9]{{1,5}}))?")
_COLONS = re.compile(r":::(?=[0-9.]+\Z)")
_TEL = re.compile(r"([^;?@:]+)((?:;[^?]*)?)")
_BARE_SCHEMES = ("sip:", "sips:", "tel:")


@attrs.frozen
class Params:
    """`;name=value;flag` parameters in order. Names compare case-insensitively; values stay as written.

    A value that came as a quoted string keeps its quotes (`rustpbx.sip.headers.unquote` takes them off).
    """

    items: tuple[tuple[str, str | None], ...] = ()

    def get(self, name: str) -> str | None:
        """The value, "" for a flag such as `lr`, None if there is no such parameter."""
        wanted = name.lower()
        for key, value in self.items:
            if key.lower() == wanted:
                return "" if value is None else value
        return None

    def set(self, name: str, value: str | None) -> Params:
        """A copy where `name` has this value (None: a flag): replaced in place, or appended."""
        if name not in self:
            return Params((*self.items, (name, value)))
        wanted = name.lower()
        return Params(tuple((key, value if key.lower() == wanted else old) for key, old in self.items))

    def without(self, name: str) -> Params:
        """A copy without this parameter."""
        wanted = name.lower()
        return Params(tuple(item for item in self.items if item[0].lower() != wanted))

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def __bool__(self) -> bool:
        return bool(self.items)

    def __str__(self) -> str:
        if not self.items:
            return ""
        return "".join([f";{name}" if value is None else f";{name}={value}" for name, value in self.items])


NO_PARAMS = Params()


@attrs.frozen
class Uri:
    """One URI. `host` is without brackets for IPv6; `headers` is the text after `?`.

    `tel:` has its number in `user` and no host. Any other scheme keeps its opaque part in `host`.
    """

    scheme: str
    user: str | None
    password: str | None
    host: str
    port: int | None = None
    params: Params = NO_PARAMS
    headers: str = ""

    @property
    def transport(self) -> str | None:
        """The `transport` parameter in upper case, None if absent."""
        value = self.params.get("transport")
        return value.upper() if value else None

    def bare(self) -> Uri:
        """Who is meant, and nothing else: the URI without its password, parameters and headers."""
        return attrs.evolve(self, password=None, params=NO_PARAMS, headers="")

    def __str__(self) -> str:
        if self.scheme == "tel":
            return f"tel:{self.user}{self.params}"
        if self.scheme not in {"sip", "sips"}:
            return f"{self.scheme}:{self.host}"
        password = "" if self.password is None else f":{self.password}"
        user = "" if self.user is None else f"{self.user}{password}@"
        headers = f"?{self.headers}" if self.headers else ""
        return f"{self.scheme}:{user}{host_port(self.host, self.port)}{self.params}{headers}"


def host_port(host: str, port: int | None) -> str:
    """`host:port` as text, IPv6 in brackets, the port only if there is one."""
    name = f"[{host}]" if ":" in host else host
    return name if port is None else f"{name}:{port}"


def parse_uri(text: str) -> Uri:
    """Read a URI (section 19.1.1). Unknown schemes parse, so that they can be answered with 416.

    Raises RemoteError (reply 400) if it is none.
    """
    found = _SIP.fullmatch(text)
    if found is not None:
        return _sip(found, text)
    if not _URI_TEXT.fullmatch(text):
        raise RemoteError(f"not a URI: {text[:80]!r}")
    scheme = _SCHEME.match(text)
    if scheme is None:
        raise RemoteError(f"a URI without a scheme: {text[:80]!r}")
    name = scheme[1].lower()
    if name in {"sip", "sips"}:
        raise RemoteError(f"not a {name} URI: {text[:80]!r}")
    rest = text[scheme.end() :]
    return _parse_tel(rest) if name == "tel" else Uri(name, None, None, rest)


def parse_aor(text: str) -> Uri:
    """Read an address as people write it in a configuration or a command: `bob@host` is `sip:bob@host`.

    Raises RemoteError (reply 400).
    """
    text = text.strip()
    if text.lower().startswith(_BARE_SCHEMES):
        return parse_uri(text)
    if "://" in text:
        raise RemoteError(f"not a SIP address: {text[:80]!r}")
    return parse_uri(f"sip:{text}")


def parse_host_port(text: str) -> tuple[str, int | None]:
    """Read `host`, `host:port` or `[v6]:port` (host without brackets). RemoteError (400) if it is none."""
    found = _HOST_PORT.fullmatch(text)
    if found is None:
        raise RemoteError(f"not a host: {text[:80]!r}")
    host, port = found.groups()
    return host if host[0] != "[" else _ipv6(host), port if port is None else _port(port)


def make_params(items: list[tuple[str, str | None]]) -> Params:
    """Parameters from what was read. RemoteError (400) if a name occurs twice (7.3.1, 19.1.1) or they are too many."""
    if not items:
        return NO_PARAMS
    if len(items) > MAX_PARAMS:
        raise RemoteError(f"more than {MAX_PARAMS} parameters")
    if len(items) > 1 and len({name.lower() for name, _ in items}) < len(items):
        raise RemoteError("a parameter occurs twice")
    return Params(tuple(items))


def _sip(found: re.Match[str], text: str) -> Uri:
    if "%" in text and _BAD_ESCAPE.search(text):
        raise RemoteError(f"a broken escape in {text[:80]!r}")
    scheme, user, password, host, port, params, headers = found.groups()
    return Uri(
        scheme.lower(),
        user,
        password,
        host if host[0] != "[" else _ipv6(host),
        port if port is None else _port(port),
        _uri_params(params) if params else NO_PARAMS,
        headers or "",
    )


def _parse_tel(rest: str) -> Uri:
    found = _TEL.fullmatch(rest)
    if found is None or _BAD_ESCAPE.search(rest):
        raise RemoteError(f"not a tel URI: {rest[:80]!r}")
    return Uri("tel", found[1], None, "", None, _uri_params(found[2]))


def _uri_params(text: str) -> Params:
    if not text:
        return NO_PARAMS
    if text.count(";") > MAX_PARAMS:
        raise RemoteError(f"more than {MAX_PARAMS} parameters")
    items: list[tuple[str, str | None]] = []
    for part in text[1:].split(";"):
        name, equals, value = part.partition("=")
        if not name or "@" in part:
            raise RemoteError(f"not a URI parameter: {part[:80]!r}")
        items.append((name, value if equals else None))
    return make_params(items)


def _ipv6(text: str) -> str:
    # RFC 5118 4.10: the grammar of RFC 3261 has a colon too many before an IPv4 tail; who follows it is understood.
    host = _COLONS.sub("::", text[1:-1])
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        raise RemoteError(f"not an IPv6 address: {text[:80]!r}") from None
    return host


def _port(text: str) -> int:
    port = int(text)
    if not 0 < port < 65536:
        raise RemoteError(f"not a port: {text}")
    return port
