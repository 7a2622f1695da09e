"""`a=crypto` (RFC 4568): the keys of an SRTP stream in its session description, and which of them may be used.

A line is usable if it has a suite that we know, one key of exactly that suite's size, no MKI, and no session parameter
that changes how packets are made. Lines that are not usable are passed over (section 5.1.2), never half obeyed.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable
from enum import Enum

import attrs

from rustpbx.errors import LocalError
from rustpbx.media.events import SrtpKey, SrtpSuite

LONGEST_KEY = 128
"""Characters of a key that are read; the longest that we know have 64."""

_LINE = re.compile(
    r"(?P<tag>[0-9]{1,9})[ \t]+(?P<suite>[A-Za-z0-9_]{1,64})[ \t]+"
    rf"(?i:inline):(?P<key>[A-Za-z0-9+/]{{1,{LONGEST_KEY}}})={{0,2}}"
    r"(?:\|(?P<lifetime>2\^[0-9]{1,2}|[0-9]{1,15}))?"
    r"(?:\|(?P<mki>[0-9]{1,38}):(?P<mki_size>[0-9]{1,3}))?"
    r"(?P<parameters>(?:[ \t]+[!-~]{1,200})*)[ \t]*"
)
"""One key. The padding of its base64 may be missing; several keys need an MKI and are not for us."""

_ALIASES = {
    "AES_CM_256_HMAC_SHA1_80": SrtpSuite.AES_256_CM_HMAC_SHA1_80,
    "AES_CM_256_HMAC_SHA1_32": SrtpSuite.AES_256_CM_HMAC_SHA1_32,
}
"""Names that phones wrote before RFC 6188 settled them."""

_SUITES = {suite.value: suite for suite in SrtpSuite} | _ALIASES


class SrtpMode(Enum):
    """Whether a leg's audio is protected: never, if the peer does it too, or always."""

    OFF = "off"
    PREFER = "prefer"
    REQUIRE = "require"


@attrs.frozen
class Crypto:
    """One a=crypto line. `suite` is as written; `key` is what its base64 says, whatever its size.

    `lifetime` is in packets, `mki` its value and its size in bytes; `parameters` are the session parameters as text.
    """

    tag: int
    suite: str
    key: bytes = attrs.field(repr=False)
    lifetime: int | None = None
    mki: tuple[int, int] | None = None
    parameters: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"{self.tag} {self.suite} inline:{base64.b64encode(self.key).decode()}"]
        if self.lifetime is not None:
            parts.append(f"|{_lifetime_text(self.lifetime)}")
        if self.mki is not None:
            parts.append(f"|{self.mki[0]}:{self.mki[1]}")
        return "".join(parts) + "".join(f" {parameter}" for parameter in self.parameters)

    def usable(self) -> SrtpKey | None:
        """The key to protect a stream with; None if this line is not for us."""
        suite = _SUITES.get(self.suite.upper())
        if suite is None or len(self.key) != suite.key_size or self.mki is not None:
            return None
        return SrtpKey(suite, self.key) if all(map(_is_harmless, self.parameters)) else None


def _no_entropy(size: int) -> bytes:
    raise LocalError(f"{size} random bytes for a key, and nowhere to take them from")


@attrs.frozen(kw_only=True)
class SrtpPolicy:
    """What we want of a leg: the mode, and the suites that we offer, best first. Every known suite is accepted.

    `entropy(n)` makes n bytes of a key, unpredictable ones.
    """

    mode: SrtpMode = SrtpMode.OFF
    suites: tuple[SrtpSuite, ...] = (SrtpSuite.AES_CM_128_HMAC_SHA1_80, SrtpSuite.AES_256_CM_HMAC_SHA1_80)
    entropy: Callable[[int], bytes] = attrs.field(default=_no_entropy, eq=False, repr=False)


PLAIN = SrtpPolicy()
"""No SRTP."""


@attrs.frozen(kw_only=True)
class Security:
    """Our side of a leg's protection: a key of our own for each suite that we accept; the `offered` ones in order."""

    mode: SrtpMode = SrtpMode.OFF
    keys: tuple[SrtpKey, ...] = ()
    offered: tuple[SrtpSuite, ...] = ()

    def key(self, suite: SrtpSuite) -> SrtpKey | None:
        """Our key for a suite; None if we do not take it."""
        return next((key for key in self.keys if key.suite is suite), None)

    def lines(self) -> tuple[Crypto, ...]:
        """What we offer, tagged in order."""
        keys = [key for suite in self.offered if (key := self.key(suite)) is not None]
        return tuple(Crypto(tag, key.suite.value, key.master) for tag, key in enumerate(keys, 1))


NO_SECURITY = Security()


def parse_crypto(value: str) -> Crypto | None:
    """What stands behind `a=crypto:`; None if it is not of the form, or has other than one key."""
    found = _LINE.fullmatch(value)
    if found is None:
        return None
    text = found["key"]
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        return None
    return Crypto(
        tag=int(found["tag"]),
        suite=found["suite"],
        key=key,
        lifetime=_lifetime(found["lifetime"]) if found["lifetime"] else None,
        mki=(int(found["mki"]), int(found["mki_size"])) if found["mki"] else None,
        parameters=tuple(found["parameters"].split()),
    )


def choose(offered: Iterable[Crypto], security: Security) -> tuple[Crypto, SrtpKey, SrtpKey] | None:
    """The first line of an offer that we can use: our line for the answer, our key, the peer's (section 5.1.2)."""
    for line in offered:
        theirs = line.usable()
        ours = security.key(theirs.suite) if theirs else None
        if theirs and ours:
            return Crypto(line.tag, line.suite, ours.master), ours, theirs
    return None


def match(offered: Iterable[Crypto], answered: Iterable[Crypto]) -> tuple[SrtpKey, SrtpKey] | None:
    """Our key and the peer's by an answer to our lines: the tag and suite must be those of one of them (5.1.3)."""
    by_tag = {line.tag: line.usable() for line in offered}
    for line in answered:
        ours, theirs = by_tag.get(line.tag), line.usable()
        if ours and theirs and ours.suite is theirs.suite:
            return ours, theirs
    return None


def _is_harmless(parameter: str) -> bool:
    """Whether a session parameter leaves our packets as they are (6.3).

    WSH hints at a replay window, and what begins with a dash may be ignored. Any other, known (KDR, UNENCRYPTED_SRTP,
    UNAUTHENTICATED_SRTP, FEC_ORDER ...) or not, would have to be obeyed.
    """
    return parameter.startswith("-") or re.fullmatch(r"(?i)WSH=[0-9]{1,9}", parameter) is not None


def _lifetime(text: str) -> int:
    return 1 << int(text[2:]) if text.startswith("2^") else int(text)


def _lifetime_text(packets: int) -> str:
    return f"2^{packets.bit_length() - 1}" if packets > 0 and packets & (packets - 1) == 0 else str(packets)
