"""Single values of the configuration: each function turns what TOML gave into what the server uses, or refuses it.

All of them raise `BadValueError` and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

from rustpbx.core import Address
from rustpbx.errors import one_line

Network = IPv4Network | IPv6Network
T = TypeVar("T")
Parse = Callable[[object], T]

_DURATION_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*")
_UNITS = {
    1e-3: ("ms", "msec", "millis"),
    1.0: ("s", "sec", "secs", "second", "seconds"),
    60.0: ("m", "min", "mins", "minute", "minutes"),
    3600.0: ("h", "hr", "hrs", "hour", "hours"),
    86400.0: ("d", "day", "days"),
}
_SECONDS = {name: seconds for seconds, names in _UNITS.items() for name in names}
_LONGEST = 366 * 86400.0
_HEADER_VALUE = re.compile(r"|[!-~]([\t -~]*[!-~])?")  # RFC 9110 5.5, without the obsolete part
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 5.6.2


class BadValueError(ValueError):
    """A value that cannot be used; `where` is the place inside it (`[2]`, `[0].url`), if it is a compound one."""

    def __init__(self, problem: str, where: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.where = where


def _kind(value: object) -> str:
    if isinstance(value, str):
        return f'"{one_line(value, 60)}"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "a list"
    return "a table" if isinstance(value, Mapping) else repr(value)[:60]


def text(value: object) -> str:
    """A string; numbers are no strings."""
    if not isinstance(value, str):
        # A password of digits, without its quotes, is a number: what it is stays out of the message.
        raise BadValueError(f"expected a string, got {_name(value)}")
    return value


def _name(value: object) -> str:
    """What a value is, and nothing of what it says."""
    if isinstance(value, str):
        return "a string"
    if isinstance(value, (bool, list, Mapping)):
        return _kind(value)
    return "a number" if isinstance(value, (int, float)) else "a date or time"


def filled(value: object) -> str:
    """A string that says something."""
    if not text(value).strip():
        raise BadValueError("must not be empty")
    return text(value)


def digits(value: object) -> str:
    """A few digits of a telephone number."""
    if not re.fullmatch(r"[0-9]{1,6}", text(value)):
        raise BadValueError(f"expected some digits, got {_kind(value)}")
    return text(value)


def dial_pattern(value: object) -> str:
    """A pattern of the dial policy: `+1900*`, `*@example.com`, or a regular expression between slashes."""
    pattern = filled(value)
    if len(pattern) > 2 and pattern[0] == pattern[-1] == "/":
        try:
            re.compile(pattern[1:-1])
        except re.error as error:
            raise BadValueError(f"not a regular expression: {error}") from None
    return pattern


def flag(value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise BadValueError(f"expected true or false, got {_kind(value)}")
    return value


def integer(value: object) -> int:
    """A whole number; true and "5" are none."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadValueError(f"expected a whole number, got {_kind(value)}")
    return value


def within(low: int, high: int) -> Parse[int]:
    """A whole number from `low` to `high`, both included."""

    def parse(value: object) -> int:
        if not low <= integer(value) <= high:
            raise BadValueError(f"must be {low} to {high}, got {value}")
        return integer(value)

    return parse


def share(value: object) -> float:
    """A number from 0 to 1."""
    if amount(value) > 1:
        raise BadValueError(f"must be 0 to 1, got {value}")
    return amount(value)


def urn(value: object) -> str:
    """A name such as `urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6`."""
    if not re.fullmatch(r"urn:[A-Za-z0-9\-]+:[A-Za-z0-9:._\-]{1,200}", text(value)):
        raise BadValueError(f"expected urn:uuid:..., got {_kind(value)}")
    return text(value)


def amount(value: object) -> float:
    """A number that is not negative."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadValueError(f"expected a number, got {_kind(value)}")
    if not 0 <= value < 1e9:
        raise BadValueError(f"must be from 0 to 1e9, got {value}")
    return float(value)


def realm(value: object) -> str:
    """The realm of a challenge: visible ASCII, and no quotes, which phones do not escape alike."""
    if not re.fullmatch(r"[ !#-\[\]-~]{1,100}", text(value)):
        raise BadValueError(f"expected printable ASCII without quotes and backslashes, got {_kind(value)}")
    return text(value)


def hex_digits(count: int) -> Parse[str]:
    """So many hex digits; they are a secret, and not repeated."""

    def parse(value: object) -> str:
        if not re.fullmatch(rf"[0-9A-Fa-f]{{{count}}}", text(value)):
            raise BadValueError(f"expected {count} hex digits")
        return text(value).lower()

    return parse


def one_of(*choices: str, aliases: Mapping[str, str] | None = None) -> Parse[str]:
    """One of the words, in any case; an alias becomes the word it stands for."""

    def parse(value: object) -> str:
        word = text(value).lower()
        word = (aliases or {}).get(word, word)
        if word not in choices:
            raise BadValueError(f"must be one of {', '.join(choices)}, got {_kind(value)}")
        return word

    return parse


def at(where: str, parse: Parse[T]) -> Parse[T]:
    """`parse`, whose errors name the place `where` inside the whole."""

    def parse_there(value: object) -> T:
        try:
            return parse(value)
        except BadValueError as error:
            raise BadValueError(error.problem, where + error.where) from None

    return parse_there


def list_of(parse: Parse[T]) -> Parse[tuple[T, ...]]:
    """A list, each item by `parse`."""

    def parse_list(value: object) -> tuple[T, ...]:
        if not isinstance(value, list):
            # What stands there instead of a list may be a token: it is not shown.
            raise BadValueError(f"expected a list, got {_name(value)}")
        return tuple(at(f"[{index}]", parse)(item) for index, item in enumerate(value))

    return parse_list


def some_of(parse: Parse[T]) -> Parse[tuple[T, ...]]:
    """The same with one item at least, and none twice."""

    def parse_some(value: object) -> tuple[T, ...]:
        items = list_of(parse)(value)
        if not items:
            raise BadValueError("must not be empty")
        if len(set(items)) < len(items):
            raise BadValueError("names something twice")
        return items

    return parse_some


def duration(value: object) -> float:
    """Seconds, from a number of seconds or a text like `50s`, `1m 30s`, `500ms`."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not 0 < value <= _LONGEST:
            raise BadValueError(f"must be more than nothing and at most a year, got {_kind(value)}")
        return float(value)
    rest, seconds = text(value).strip().lower(), 0.0
    while rest:
        found = _DURATION_PART.match(rest)
        if found is None or found[2] not in _SECONDS:
            raise BadValueError(f'expected a duration like "50s" or "1m 30s", got {_kind(value)}')
        seconds += float(found[1]) * _SECONDS[found[2]]
        rest = rest[found.end() :]
    if not seconds:
        raise BadValueError(f'expected a duration like "50s" or "1m 30s", got {_kind(value)}')
    if seconds > _LONGEST:
        raise BadValueError(f"must be at most a year, got {_kind(value)}")
    return seconds


def address(value: object) -> Address:
    """`host:port` or `[ipv6]:port`; port 0 lets the system choose."""
    host, colon, port = text(value).strip().rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit():
        raise BadValueError(f'expected address:port, like "127.0.0.1:8080", got {_kind(value)}')
    if int(port) > 65535:
        raise BadValueError(f"the port must be 0 to 65535, got {port}")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise BadValueError(f'an IPv6 address needs brackets, like "[::1]:8080", got {_kind(value)}')
    return host.strip("[]"), int(port)


def ip_literal(value: object) -> str:
    """An IP address without port."""
    try:
        return str(ip_address(text(value).strip()))
    except ValueError:
        raise BadValueError(f"expected an IP address without port, got {_kind(value)}") from None


def bind_host(value: object) -> str:
    """An IP address to bind, or empty: the first address that is not loopback."""
    return ip_literal(value) if text(value).strip() else ""


def network(value: object) -> Network:
    """A network in CIDR notation; one address is a network of one."""
    try:
        return ip_network(text(value).strip())
    except ValueError:
        pass
    try:
        meant = ip_network(text(value).strip(), strict=False)
    except ValueError:
        raise BadValueError(f'expected a network like "10.0.0.0/8", got {_kind(value)}') from None
    raise BadValueError(f'{_kind(value)} has bits beside the network: did you mean "{meant}"?')


def network_or_star(value: object) -> Network | None:
    """A network or address; `*` (any) becomes None."""
    return None if value == "*" else network(value)


def url(*schemes: str) -> Parse[str]:
    """An absolute URL of one of the schemes, with a host."""

    def parse(value: object) -> str:
        try:
            parts = urlsplit(text(value))
            usable = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable or any(c.isspace() for c in text(value)):
            raise BadValueError(f"expected a URL with {' or '.join(f'{s}://' for s in schemes)}, got {_kind(value)}")
        return text(value)

    return parse


http_url = url("http", "https")


def shown_url(given: str) -> str:
    """A URL as it may be printed and logged: user info and query can hold secrets."""
    try:
        parts = urlsplit(given)
    except ValueError:
        return "(not a URL)"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def ice_url(value: object) -> str:
    """A STUN or TURN URI (RFC 7064, 7065)."""
    scheme, _, rest = text(value).partition(":")
    if scheme not in ("stun", "stuns", "turn", "turns") or not rest or any(c.isspace() for c in rest):
        raise BadValueError(f'expected a URI like "stun:stun.example.com:3478", got {_kind(value)}')
    return text(value)


def origin(value: object) -> str:
    """A web origin as browsers write it: scheme, host and port, no path (RFC 6454), in lower case."""
    given = http_url(value).lower()
    parts = urlsplit(given)
    if parts.path or parts.query or parts.fragment or parts.username:
        raise BadValueError(f'expected an origin like "https://app.example.com" (nothing after it), got {_kind(value)}')
    return given


def token(value: object) -> str:
    """A secret that fits into a header and a query parameter."""
    # The value stays out of the message: it may be the secret, mistyped.
    if not re.fullmatch(r"[\x21-\x7e]{8,}", text(value)):
        raise BadValueError("a token has at least 8 visible ASCII characters and no spaces")
    return text(value)


def header_pattern(value: object) -> str:
    """The name of a header field, in which `*` stands for any characters."""
    if not re.fullmatch(r"[A-Za-z0-9*.!%_+`'~-]{1,80}", text(value)):
        raise BadValueError(f"expected the name of a header field, with * for any characters, got {_kind(value)}")
    return text(value)


def header_pairs(value: object) -> tuple[tuple[str, str], ...]:
    """HTTP header fields: a list of `[name, value]` pairs, or a table."""
    if isinstance(value, Mapping):
        pairs = [(f".{one_line(name)}", [name, content]) for name, content in value.items()]
    elif isinstance(value, list):
        pairs = [(f"[{index}]", pair) for index, pair in enumerate(value)]
    else:
        raise BadValueError(f"expected a list of [name, value] pairs or a table, got {_name(value)}")
    return tuple(_header(pair, where) for where, pair in pairs)


def _header(pair: object, where: str) -> tuple[str, str]:
    if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
        raise BadValueError("expected a name and a value, both strings", where)
    name, content = pair
    if not _HEADER_NAME.fullmatch(name):
        raise BadValueError(f"{_kind(name)} is no header name", where)
    if not _HEADER_VALUE.fullmatch(content):
        raise BadValueError("a header value is visible ASCII without line breaks, and no space around it", where)
    return name, content
