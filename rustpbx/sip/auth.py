"""Digest authentication, the client's side (RFC 3261 section 22, RFC 7616, RFC 8760; RFC 2069 without qop).

Pure: the caller brings the cnonce. A password answers its own realm only, and each nonce once per count.
"""

from __future__ import annotations

import hashlib
import re

import attrs

from rustpbx.errors import LocalError, RemoteError, one_line
from rustpbx.sip.branch import first_attempt
from rustpbx.sip.events import Credentials
from rustpbx.sip.headers import quote, unquote
from rustpbx.sip.message import Lines, Response

HASHES = {"MD5": "md5", "SHA-256": "sha256", "SHA-512-256": "sha512_256"}
_STRENGTH = ("MD5-SESS", "MD5", "SHA-256-SESS", "SHA-256", "SHA-512-256-SESS", "SHA-512-256")  # weakest first
_HEADERS = {401: ("WWW-Authenticate", "Authorization"), 407: ("Proxy-Authenticate", "Proxy-Authorization")}
_SCHEME = re.compile(r"[ \t]*+([!-~]++)(?:[ \t]++|$)")
_PAIR = re.compile(
    r'[ \t,]*+([A-Za-z0-9_.\-]++)[ \t]*+=[ \t]*+("(?:[^"\\]|\\.)*+"|[^ \t,"\\]++)[ \t]*+(?=,|$)', re.DOTALL
)
_MOST_CHALLENGES = 4  # in a row, for one request: its proxies' and its server's, and a stale nonce
_MOST_TRIES = 32  # requests of one call that may be under way and challenged
_CNONCE = re.compile(r"[!#-\[\]-~]+")


@attrs.frozen(kw_only=True)
class Challenge:
    """One WWW-Authenticate or Proxy-Authenticate value. `algorithm` is upper case, `qop` lower case.

    `realm`, `nonce` and `opaque` are as between the quotes, escapes untouched: so they are hashed and given back.
    """

    realm: str
    nonce: str
    algorithm: str = "MD5"
    qop: frozenset[str] = frozenset()
    opaque: str | None = None
    stale: bool = False
    scheme: str = "digest"
    algorithm_given: bool = False

    @property
    def supported(self) -> bool:
        """Whether we can answer it."""
        known = self.scheme == "digest" and self.algorithm in _STRENGTH
        return known and (not self.qop or bool(self.qop & {"auth", "auth-int"}))

    @property
    def strength(self) -> int:
        """Grows with the algorithm's strength; only for supported challenges."""
        return _STRENGTH.index(self.algorithm)


def parse_challenge(value: str) -> Challenge:
    """Read one challenge (RFC 3261 section 20.44). Other schemes than Digest parse, unsupported.

    Raises RemoteError if it is none, or a Digest challenge without realm or nonce.
    """
    scheme = _SCHEME.match(value)
    if scheme is None:
        raise RemoteError(f"not a challenge: {value[:80]!r}")
    name = scheme[1].lower()
    if name != "digest":
        return Challenge(realm="", nonce="", scheme=name)
    params = _pairs(value, scheme.end())
    if "realm" not in params or not params.get("nonce"):
        raise RemoteError("a Digest challenge without realm or nonce")
    return Challenge(
        realm=params["realm"],
        nonce=params["nonce"],
        algorithm=params.get("algorithm", "MD5").upper(),
        qop=frozenset(word.strip(" \t").lower() for word in params.get("qop", "").split(",") if word.strip(" \t")),
        opaque=params.get("opaque"),
        stale=params.get("stale", "").lower() == "true",
        algorithm_given="algorithm" in params,
    )


def parse_credentials(value: str) -> dict[str, str]:
    """The parameters of Digest credentials (RFC 3261 25.1), without their quotes; names in lower case.

    Raises RemoteError if it is another scheme, or no list of parameters.
    """
    scheme = _SCHEME.match(value)
    if scheme is None or scheme[1].lower() != "digest":
        raise RemoteError(f"not Digest credentials: {value[:80]!r}")
    return {name: unquote(f'"{text}"') for name, text in _pairs(value, scheme.end()).items()}


def _pairs(value: str, position: int) -> dict[str, str]:
    params: dict[str, str] = {}
    while value[position:].strip(" \t,"):
        found = _PAIR.match(value, position)
        if found is None or found[1].lower() in params or len(params) > 32:
            raise RemoteError(f"not a challenge: {value[:80]!r}")
        text = found[2]
        params[found[1].lower()] = text[1:-1] if text.startswith('"') else text
        position = found.end()
    return params


def authorize(
    challenge: Challenge, credentials: Credentials, method: str, uri: str, *, nc: int, cnonce: str, body: bytes = b""
) -> str:
    """The Authorization (or Proxy-Authorization) value for one request (RFC 7616 section 3.4).

    `nc` counts the requests with this nonce from 1; `uri` is the Request-URI as sent. `auth` is preferred to
    `auth-int`. Raises LocalError for a challenge that is not supported, or that belongs to another realm.
    """
    if not challenge.supported:
        raise LocalError(f"cannot answer a {challenge.scheme[:40]} challenge with {one_line(challenge.algorithm, 40)}")
    if not _fits(challenge, credentials.realm or None):
        raise LocalError("the credentials belong to another realm")
    if not _CNONCE.fullmatch(cnonce):
        raise LocalError("not a cnonce")
    qop = _choose_qop(challenge.qop)
    count = f"{nc:08x}"
    middle = f"{challenge.nonce}:{count}:{cnonce}:{qop}" if qop else challenge.nonce  # RFC 2069 without qop
    secret = _secret(challenge, credentials, cnonce)
    request = _request(challenge, qop, method, uri, body)
    response = _hash(challenge.algorithm, f"{secret}:{middle}:{request}")
    fields = [
        f"username={quote(credentials.username)}",
        f'realm="{challenge.realm}"',
        f'nonce="{challenge.nonce}"',
        f'uri="{uri}"',
        f'response="{response}"',
    ]
    if challenge.algorithm_given:
        fields.append(f"algorithm={_spelled(challenge.algorithm)}")
    if qop or challenge.algorithm.endswith("-SESS"):
        fields.append(f'cnonce="{cnonce}"')
    if challenge.opaque is not None:
        fields.append(f'opaque="{challenge.opaque}"')
    if qop:
        fields += [f"qop={qop}", f"nc={count}"]
    return "Digest " + ", ".join(fields)


@attrs.define
class _Session:
    """One nonce we answer. `cnonce` stays for -sess algorithms, whose A1 is made once (RFC 7616 section 3.4.2)."""

    challenge: Challenge
    nc: int = 0
    cnonce: str = ""


class DigestClient:
    """The answers to the challenges of one call or registration.

    `challenged` takes a 401 or 407; `authorization` then gives the header fields for the next and every later request,
    one per realm and kind (a proxy and the server may both want one).
    """

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._realm = credentials.realm or None
        self._sessions: dict[tuple[str, str], _Session] = {}
        # Who challenged a request and the tries before it, by the branch of its newest try; the oldest are forgotten.
        self._tries: dict[str, list[tuple[str, str]]] = {}

    def challenged(self, response: Response) -> None:
        """Take the challenges of a 401 or 407, the strongest supported for each realm.

        Raises LocalError if none can be answered by these credentials; if they have been refused, which is a realm
        that challenges the retry (see `retried`) again and does not say `stale`; or if the challenges do not end.
        Requests that were under way together may all be challenged: each has its own retry.
        """
        if response.status not in _HEADERS:
            raise LocalError(f"a {response.status} is no challenge")
        asking, answering = _HEADERS[response.status]
        best = self._best(_challenges(response, asking))
        if not best:
            raise LocalError("no challenge that these credentials can answer")
        before = self._tries.setdefault(first_attempt(response.via.branch or ""), [])
        for realm, challenge in best.items():
            key = (answering, realm)
            if (key in before and not challenge.stale) or len(before) >= _MOST_CHALLENGES:
                raise LocalError(f"the credentials for realm {realm[:80]!r} were refused")
            before.append(key)
            known = self._sessions.get(key)
            if known is None or known.challenge.nonce != challenge.nonce:  # else its `nc` counts on
                self._sessions[key] = _Session(challenge)
        while len(self._tries) > _MOST_TRIES:
            del self._tries[next(iter(self._tries))]

    def retried(self, challenged: str, again: str) -> None:
        """The request with the branch `challenged` is sent once more, with the branch `again`."""
        self._tries[first_attempt(again)] = self._tries.pop(first_attempt(challenged), [])

    def _best(self, challenges: list[Challenge]) -> dict[str, Challenge]:
        """The strongest challenge of each realm that is ours; credentials without a realm are bound to the first."""
        best: dict[str, Challenge] = {}
        for challenge in challenges:
            if not challenge.supported or not _fits(challenge, self._realm):
                continue
            if self._realm is None:
                self._realm = challenge.realm
            known = best.get(challenge.realm)
            if known is None or challenge.strength > known.strength:
                best[challenge.realm] = challenge
        return best

    def authorization(self, method: str, uri: str, body: bytes, cnonce: str) -> Lines:
        """The header fields (name, value) that authorize this request, none before the first challenge.

        Each call counts `nc` up. `cnonce` is fresh random text of the caller's.
        """
        lines: list[tuple[str, str]] = []
        for (header, _), session in self._sessions.items():
            session.nc += 1
            if not session.cnonce or not session.challenge.algorithm.endswith("-SESS"):
                session.cnonce = cnonce
            value = authorize(
                session.challenge,
                self._credentials,
                method,
                uri,
                nc=session.nc,
                cnonce=session.cnonce,
                body=body,
            )
            lines.append((header, value))
        return tuple(lines)


def _challenges(response: Response, header: str) -> list[Challenge]:
    """The readable challenges; one that is not is the peer's loss, another may do."""
    challenges: list[Challenge] = []
    for value in response.all(header):
        try:
            challenges.append(parse_challenge(value))
        except RemoteError:
            continue
    return challenges


def _fits(challenge: Challenge, realm: str | None) -> bool:
    return realm in {None, challenge.realm, unquote(f'"{challenge.realm}"')}


def _choose_qop(offered: frozenset[str]) -> str:
    if not offered:
        return ""
    return "auth" if "auth" in offered else "auth-int"


def _request(challenge: Challenge, qop: str, method: str, uri: str, body: bytes) -> str:
    if qop != "auth-int":
        return _hash(challenge.algorithm, f"{method}:{uri}")
    return _hash(challenge.algorithm, f"{method}:{uri}:{_hash(challenge.algorithm, body)}")


def _secret(challenge: Challenge, credentials: Credentials, cnonce: str) -> str:
    plain = _hash(challenge.algorithm, f"{credentials.username}:{challenge.realm}:{credentials.password}")
    if not challenge.algorithm.endswith("-SESS"):
        return plain
    return _hash(challenge.algorithm, f"{plain}:{challenge.nonce}:{cnonce}")


def _hash(algorithm: str, data: str | bytes) -> str:
    try:
        raw = data.encode() if isinstance(data, str) else data
    except UnicodeEncodeError:
        raise LocalError("a lone surrogate in the credentials") from None
    return hashlib.new(HASHES[algorithm.removesuffix("-SESS")], raw, usedforsecurity=False).hexdigest()


def _spelled(algorithm: str) -> str:
    return algorithm.replace("-SESS", "-sess")
