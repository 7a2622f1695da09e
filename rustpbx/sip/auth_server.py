"""Digest authentication, the server's side (RFC 3261 22, RFC 7616, RFC 8760): challenges, and what answers them.

Nothing is kept of a challenge: a nonce carries when and for whom it was made, and a seal that only we can make. Of a
nonce that was used its count is kept, so that no request is good twice.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Mapping
from enum import Enum, auto

import attrs

from rustpbx.errors import RemoteError
from rustpbx.sip.auth import HASHES, parse_credentials
from rustpbx.sip.headers import quote
from rustpbx.sip.message import Lines, Request
from rustpbx.sip.uri import Uri, parse_uri

MOST_NONCES = 20_000
"""Used nonces whose counts are remembered; the oldest goes, and with it what was sent with it is taken once more."""
LONGEST = 4000
"""Characters of an Authorization field that are looked at."""
SEALED = 20
"""Bytes of a nonce besides its seal: the time, and a number."""


class Proof(Enum):
    """What the Authorization of a request proves."""

    MISSING = auto()
    VALID = auto()
    STALE = auto()
    WRONG = auto()


@attrs.frozen(kw_only=True)
class Realm:
    """Who may prove himself: `users` are names and passwords, `algorithms` what is asked for, the best first."""

    name: str
    users: Mapping[str, str] = attrs.field(repr=False)
    algorithms: tuple[str, ...] = ("SHA-256", "MD5")
    lifetime: float = 300.0


class DigestServer:
    """The challenges of one realm. `key` (32 random bytes) seals the nonces."""

    def __init__(self, realm: Realm, key: bytes) -> None:
        self.realm = realm
        self._key = key
        self._made = 0
        self._counts: OrderedDict[str, int] = OrderedDict()

    def challenge(self, source: str, now: float, *, stale: bool = False) -> Lines:
        """The header fields of a 401 for this source, one for each algorithm."""
        nonce = self._nonce(source, now)
        words = f", stale={'true' if stale else 'false'}"
        head = f'Digest realm={quote(self.realm.name)}, nonce="{nonce}", qop="auth"'
        return tuple(
            ("WWW-Authenticate", f"{head}, algorithm={algorithm}{words}") for algorithm in self.realm.algorithms
        )

    def check(self, request: Request, source: str, now: float) -> Proof:
        """What the request's own Authorization for our realm proves; each count of a nonce proves once."""
        proofs = [self._proof(value, request, source, now) for value in request.all("Authorization")]
        for proof in (Proof.VALID, Proof.STALE, Proof.WRONG):
            if proof in proofs:
                return proof
        return Proof.MISSING

    def _proof(self, value: str, request: Request, source: str, now: float) -> Proof:
        try:
            given = parse_credentials(value) if len(value) <= LONGEST else {}
        except RemoteError:
            return Proof.WRONG
        if given.get("realm") != self.realm.name:
            return Proof.MISSING
        algorithm = given.get("algorithm", "MD5").upper()
        made = self._made_at(given.get("nonce", ""), source)
        if made is None:
            return Proof.STALE  # ours of another life, or somebody else's: it costs the honest one a round trip
        known = algorithm in self.realm.algorithms and given.get("qop") == "auth" and _means(given, request.uri)
        if not known or not self._matches(given, request.method, algorithm):
            return Proof.WRONG
        fresh = 0 <= now - made <= self.realm.lifetime and self._count(given["nonce"], given.get("nc", ""))
        return Proof.VALID if fresh else Proof.STALE

    def _matches(self, given: Mapping[str, str], method: str, algorithm: str) -> bool:
        """Whether the response is that of the user's password; for one that nobody has, it takes as long to say no."""
        user = given.get("username", "")
        password = self.realm.users.get(user)
        one = _hash(algorithm, f"{user}:{self.realm.name}:{password or 'nobody'}")
        two = _hash(algorithm, f"{method}:{given.get('uri')}")
        middle = f"{given.get('nonce')}:{given.get('nc')}:{given.get('cnonce')}:auth"
        same = hmac.compare_digest(_hash(algorithm, f"{one}:{middle}:{two}"), given.get("response", "").lower())
        return same and password is not None

    def _count(self, nonce: str, text: str) -> bool:
        """Whether this count of the nonce is a new one (RFC 7616 3.4)."""
        try:
            count = int(text, 16) if len(text) == 8 else 0
        except ValueError:
            return False
        if count <= self._counts.get(nonce, 0):
            return False
        self._counts[nonce] = count
        self._counts.move_to_end(nonce)
        if len(self._counts) > MOST_NONCES:
            self._counts.popitem(last=False)
        return True

    # -- nonces -------------------------------------------------------------------------------------------------------

    def _nonce(self, source: str, now: float) -> str:
        self._made += 1
        plain = round(now * 1000).to_bytes(8, "big") + self._made.to_bytes(12, "big")
        return base64.urlsafe_b64encode(plain + self._seal(plain, source)).decode()

    def _made_at(self, nonce: str, source: str) -> float | None:
        """When a nonce was made for this source; None if it was not made by us for it."""
        try:
            data = base64.urlsafe_b64decode(nonce.encode("ascii"))
        except ValueError:
            return None
        plain, seal = data[:SEALED], data[SEALED:]
        if len(plain) < SEALED or not hmac.compare_digest(seal, self._seal(plain, source)):
            return None
        return int.from_bytes(plain[:8], "big") / 1000

    def _seal(self, plain: bytes, source: str) -> bytes:
        return hmac.new(self._key, plain + source.encode(), hashlib.sha256).digest()[:16]


def _means(given: Mapping[str, str], uri: Uri) -> bool:
    """Whether the credentials are for this Request-URI; proxies may have rewritten all but user and host of it."""
    try:
        asked = parse_uri(given.get("uri", ""))
    except RemoteError:
        return False
    return (asked.user, asked.host.lower()) == (uri.user, uri.host.lower())


def _hash(algorithm: str, text: str) -> str:
    return hashlib.new(HASHES[algorithm], text.encode(errors="surrogatepass"), usedforsecurity=False).hexdigest()
