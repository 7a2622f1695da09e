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
from itertools import islice

import attrs

from rustpbx.errors import RemoteError
from rustpbx.sip.auth import HASHES, parse_credentials
from rustpbx.sip.headers import quote
from rustpbx.sip.message import Lines, NameAddr, Request

MOST_NONCES = 20_000
"""Used nonces whose counts are remembered. Unknown ones as old as the last that was forgotten are stale."""
LONGEST = 4000
"""Characters of an Authorization field that are looked at."""
MOST_FIELDS = 8
"""Authorization fields of one request that are looked at."""
SEALED = 20
"""Bytes of a nonce besides its seal: the time, and a number."""


class Proof(Enum):
    """What the Authorization of a request proves.

    WRONG is said only of who has one of our nonces, and so is where he says he is: nobody fails in another's name.
    """

    MISSING = auto()
    VALID = auto()
    STALE = auto()
    WRONG = auto()


@attrs.frozen
class User:
    """Who may prove himself: his HA1 (hex) for each algorithm, and whom he may call as (None: as anybody).

    A caller is the user part of a From, or `user@host`.
    """

    secrets: Mapping[str, str] = attrs.field(repr=False)
    callers: tuple[str, ...] | None = None

    def may_call_as(self, caller: NameAddr) -> bool:
        """Whether this From is one of his."""
        user, host = caller.uri.user or "", caller.uri.host.lower()
        return self.callers is None or user in self.callers or f"{user}@{host}" in self.callers


@attrs.frozen(kw_only=True)
class Realm:
    """Who may prove himself: `users` by name; `algorithms` are what is asked for, the best first."""

    name: str
    users: Mapping[str, User]
    algorithms: tuple[str, ...] = ("SHA-256", "MD5")
    lifetime: float = 300.0


@attrs.frozen
class Claim:
    """What a request proves, and who it is if it does."""

    proof: Proof
    user: User | None = None


def secret(algorithm: str, user: str, realm: str, password: str) -> str:
    """HA1 (RFC 7616 3.4.2): all that a server needs to know of a password."""
    return _hash(algorithm, f"{user}:{realm}:{password}".encode())


class DigestServer:
    """The challenges of one realm. `key` (32 random bytes) seals the nonces."""

    def __init__(self, realm: Realm, key: bytes) -> None:
        self.realm = realm
        self._key = key
        self._made = 0
        self._counts: OrderedDict[bytes, int] = OrderedDict()
        self._forgotten = -1.0  # when the latest nonce was made whose count is not remembered any more
        self._nobody = {algorithm: _hash(algorithm, key) for algorithm in realm.algorithms}

    def challenge(self, source: str, now: float, *, stale: bool = False) -> Lines:
        """The header fields of a 401 for this source, one for each algorithm."""
        nonce = self._nonce(source, now)
        words = f", stale={'true' if stale else 'false'}"
        head = f'Digest realm={quote(self.realm.name)}, nonce="{nonce}", qop="auth"'
        return tuple(
            ("WWW-Authenticate", f"{head}, algorithm={algorithm}{words}") for algorithm in self.realm.algorithms
        )

    def check(self, request: Request, source: str, now: float) -> Claim:
        """What the request's own Authorization for our realm proves; each count of a nonce proves once."""
        values = islice(request.all("Authorization"), MOST_FIELDS)
        claims = {claim.proof: claim for claim in (self._claim(value, request, source, now) for value in values)}
        for proof in (Proof.VALID, Proof.STALE, Proof.WRONG):
            if proof in claims:
                return claims[proof]
        return Claim(Proof.MISSING)

    def _claim(self, value: str, request: Request, source: str, now: float) -> Claim:
        """The digest's `uri` is hashed as it is given: proxies write Request-URIs anew, and a count is good once."""
        try:
            given = parse_credentials(value) if len(value) <= LONGEST else {}
        except RemoteError:
            return Claim(Proof.MISSING)
        if given.get("realm") != self.realm.name:
            return Claim(Proof.MISSING)
        nonce = self._read(given.get("nonce", ""), source)
        if nonce is None:
            return Claim(Proof.STALE)  # ours of another life, or somebody else's: it costs the honest one a round trip
        user = self._known(given, request)
        if user is None:
            return Claim(Proof.WRONG)
        made = int.from_bytes(nonce[:8], "big") / 1000
        fresh = 0 <= now - made <= self.realm.lifetime and self._count(nonce, made, given.get("nc", ""))
        return Claim(Proof.VALID, user) if fresh else Claim(Proof.STALE)

    def _known(self, given: Mapping[str, str], request: Request) -> User | None:
        """Whose password the response is made of; if it is nobody's, it takes as long to say so."""
        algorithm, qop = given.get("algorithm", "MD5").upper(), given.get("qop", "")
        if algorithm not in self.realm.algorithms or qop not in {"auth", "auth-int"}:
            return None
        user = self.realm.users.get(given.get("username", ""))
        one = user.secrets.get(algorithm) if user is not None else None
        asked = f"{request.method}:{given.get('uri')}"
        if qop == "auth-int":
            asked += f":{_hash(algorithm, request.body)}"
        two = _hash(algorithm, asked.encode())
        middle = f"{given.get('nonce')}:{given.get('nc')}:{given.get('cnonce')}:{qop}"
        right = _hash(algorithm, f"{one or self._nobody[algorithm]}:{middle}:{two}".encode())
        same = hmac.compare_digest(right.encode(), given.get("response", "").lower().encode())
        return user if same and one is not None else None

    def _count(self, nonce: bytes, made: float, text: str) -> bool:
        """Whether this count of the nonce is a new one (RFC 7616 3.4)."""
        try:
            count = int(text, 16) if len(text) == 8 else 0
        except ValueError:
            return False
        before = self._counts.get(nonce)
        if before is None and made <= self._forgotten:
            return False
        if count <= (before or 0):
            return False
        self._counts[nonce] = count
        self._counts.move_to_end(nonce)
        if len(self._counts) > MOST_NONCES:
            gone, _ = self._counts.popitem(last=False)
            self._forgotten = max(self._forgotten, int.from_bytes(gone[:8], "big") / 1000)
        return True

    # -- nonces -------------------------------------------------------------------------------------------------------

    def _nonce(self, source: str, now: float) -> str:
        self._made += 1
        plain = round(now * 1000).to_bytes(8, "big") + self._made.to_bytes(SEALED - 8, "big")
        return base64.urlsafe_b64encode(plain + self._seal(plain, source)).decode()

    def _read(self, nonce: str, source: str) -> bytes | None:
        """What a nonce of ours for this source says; None if it is none."""
        try:
            data = base64.b64decode(nonce.encode("ascii"), altchars=b"-_", validate=True)
        except ValueError:
            return None
        plain, seal = data[:SEALED], data[SEALED:]
        return plain if len(plain) == SEALED and hmac.compare_digest(seal, self._seal(plain, source)) else None

    def _seal(self, plain: bytes, source: str) -> bytes:
        return hmac.new(self._key, plain + source.encode(), hashlib.sha256).digest()[:16]


def _hash(algorithm: str, data: bytes) -> str:
    return hashlib.new(HASHES[algorithm], data, usedforsecurity=False).hexdigest()
