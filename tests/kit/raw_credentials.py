"""Any text as the Authorization of a request: it proves nothing it should not, and it proves it once."""

from __future__ import annotations

import re

import attrs

from rustpbx.errors import RemoteError
from rustpbx.sip.admission import Admission, AdmissionRules, Refused
from rustpbx.sip.auth import parse_credentials
from rustpbx.sip.auth_server import DigestServer, Proof, Realm, User, secret
from rustpbx.sip.message import CSeq, NameAddr, Request, Via
from rustpbx.sip.uri import parse_uri

KEY = bytes(range(32))
HOST = "192.0.2.1"
ALGORITHMS = ("SHA-256", "MD5", "SHA-512-256")
REALM = Realm(
    name="rustpbx",
    users={"alice": User({name: secret(name, "alice", "rustpbx", "wonder") for name in ALGORITHMS})},
    algorithms=ALGORITHMS,
)
REQUEST = Request(
    method="INVITE",
    uri=parse_uri("sip:bob@example.com"),
    vias=(Via("UDP", HOST),),
    from_=NameAddr(parse_uri("sip:alice@example.com")).tagged("1"),
    to=NameAddr(parse_uri("sip:bob@example.com")),
    call_id="c",
    cseq=CSeq(1, "INVITE"),
)


def prove(data: bytes) -> None:
    """Credentials or a RemoteError; a proof at most once for each count; a verdict in any case.

    `NONCE` in the text is a nonce of ours, so that what comes after it is reached.
    """
    server = DigestServer(REALM, KEY)
    found = re.search(r'nonce="([^"]*)"', server.challenge(HOST, 0.0)[0][1])
    assert found is not None
    text = data.decode("latin-1").replace("NONCE", found[1])
    try:
        given = parse_credentials(text)
    except RemoteError:
        given = {}
    request = attrs.evolve(REQUEST, lines=(("Authorization", text),))
    first, second = (server.check(request, HOST, 1.0) for _ in range(2))
    assert second.proof is not Proof.VALID, "proven twice"
    assert server.check(request, "192.0.2.2", 1.0).proof is not Proof.VALID, "proven from elsewhere"
    if first.proof is Proof.VALID:
        assert given["username"] == "alice", "somebody else's password"
    verdict = Admission(AdmissionRules(realm=REALM), KEY).judge(request, HOST, 0, 1.0)
    assert isinstance(verdict, Refused) is (first.proof is not Proof.VALID), verdict
