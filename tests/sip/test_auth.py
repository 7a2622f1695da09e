"""Digest: the RFCs' own numbers, which challenge is answered, and when to give up."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.errors import LocalError, RemoteError
from rustpbx.sip.auth import Challenge, DigestClient, authorize, parse_challenge
from rustpbx.sip.events import Credentials
from rustpbx.sip.message import CSeq, Lines, NameAddr, Response, Via
from rustpbx.sip.parser import parse_message
from rustpbx.sip.uri import Params, Uri
from tests.kit.predicates import sip_challenge

GOLDEN = Path(__file__).parent.parent / "golden" / "sip"

OLD = Challenge(
    realm="testrealm@host.com",
    nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093",
    qop=frozenset({"auth", "auth-int"}),
    opaque="5ccc069c403ebaf9f0171e9517f40e41",
)
NEW = Challenge(
    realm="http-auth@example.org",
    nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
    qop=frozenset({"auth", "auth-int"}),
    opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS",
    algorithm="MD5",
    algorithm_given=True,
)
CNONCE = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
MUFASA = Credentials("Mufasa", "Circle of Life")
WHO = NameAddr(Uri("sip", "a", None, "h"))


def response_of(value: str) -> str:
    """The `response` parameter of an Authorization value."""
    return value.partition('response="')[2].partition('"')[0]


def challenge(cseq: int, *values: str, status: int = 401) -> Response:
    """A response that challenges the request with this CSeq."""
    header = "WWW-Authenticate" if status == 401 else "Proxy-Authenticate"
    return Response(
        status=status,
        reason="",
        vias=(Via("UDP", "h", params=Params((("branch", f"try-{cseq}"),))),),
        from_=WHO,
        to=WHO,
        call_id="c",
        cseq=CSeq(cseq, "INVITE"),
        lines=tuple((header, value) for value in values),
    )


def ask(client: DigestClient, cnonce: str = "cn") -> Lines:
    """The header fields for the next INVITE."""
    return client.authorization("INVITE", "sip:b@h", b"", cnonce)


def nonces(lines: Lines) -> list[tuple[str, str, str]]:
    """Header, nonce and nc of each field."""
    return [
        (name, value.partition('nonce="')[2].partition('"')[0], value.partition("nc=")[2][:8]) for name, value in lines
    ]


def test_the_example_of_rfc_2617() -> None:
    """Section 3.5: the whole header value, with the response of the RFC."""
    value = authorize(OLD, Credentials("Mufasa", "Circle Of Life"), "GET", "/dir/index.html", nc=1, cnonce="0a4f113b")
    assert value == (
        'Digest username="Mufasa", realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", '
        'uri="/dir/index.html", response="6629fae49393a05397450978507c4ef1", cnonce="0a4f113b", '
        'opaque="5ccc069c403ebaf9f0171e9517f40e41", qop=auth, nc=00000001'
    )


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_the_examples_of_rfc_7616(algorithm: str, response: str) -> None:
    """Section 3.9.1, MD5 and SHA-256."""
    asked = attrs.evolve(NEW, algorithm=algorithm)
    value = authorize(asked, MUFASA, "GET", "/dir/index.html", nc=1, cnonce=CNONCE)
    assert response_of(value) == response
    assert f"algorithm={algorithm}" in value


def test_the_example_of_rfc_7616_with_sha_512_256() -> None:
    """Section 3.9.2 as corrected by erratum 4897, user name in UTF-8."""
    asked = Challenge(
        realm="api@example.org",
        nonce="5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK",
        algorithm="SHA-512-256",
        qop=frozenset({"auth"}),
    )
    who = Credentials("J\u00e4s\u00f8n Doe", "Secret, or not?")
    value = authorize(asked, who, "GET", "/doe.json", nc=1, cnonce="NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v")
    assert response_of(value) == "3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5"


def test_without_qop_it_is_rfc_2069() -> None:
    """No nc, no cnonce, no qop; the response of RFC 2069 section 2.4 as corrected by erratum 749."""
    asked = attrs.evolve(OLD, qop=frozenset(), opaque=None)
    value = authorize(asked, Credentials("Mufasa", "CircleOfLife"), "GET", "/dir/index.html", nc=1, cnonce="x")
    assert value == (
        'Digest username="Mufasa", realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", '
        'uri="/dir/index.html", response="1949323746fe6a43ef61f9606e7febea"'
    )


def test_a_body_is_protected_where_only_auth_int_is_offered() -> None:
    """auth-int hashes the body; auth is preferred where both are offered."""
    asked = attrs.evolve(OLD, qop=frozenset({"auth-int"}))
    one = authorize(asked, MUFASA, "INVITE", "sip:b@h", nc=1, cnonce="c", body=b"one")
    two = authorize(asked, MUFASA, "INVITE", "sip:b@h", nc=1, cnonce="c", body=b"two")
    assert "qop=auth-int" in one
    assert response_of(one) != response_of(two)


def test_a_session_algorithm_keeps_its_first_cnonce() -> None:
    """-sess: A1 is made once, so later requests repeat the cnonce; other algorithms take the fresh one."""
    client = DigestClient(MUFASA)
    client.challenged(challenge(1, 'Digest realm="r", nonce="n", algorithm=MD5-sess, qop="auth"'))
    first, second = ask(client, "c1")[0][1], ask(client, "c2")[0][1]
    assert ("algorithm=MD5-sess" in first, 'cnonce="c1"' in second, "nc=00000002" in second) == (True, True, True)
    # H(H(H(Mufasa:r:Circle of Life):n:c1):n:00000001:c1:auth:H(INVITE:sip:b@h))
    assert response_of(first) == "53bedd0adf6382247e378ef414a00ffe"


def test_a_challenge_is_read_as_phones_and_servers_write_it() -> None:
    """The golden of RFC 3665, odd spacing and case, unquoted values, escapes kept."""
    message = parse_message((GOLDEN / "flow-unauthorized.sip").read_bytes())
    assert parse_challenge(message.header("WWW-Authenticate") or "") == Challenge(
        realm="atlanta.example.com",
        nonce="ea9c8e88df84f1cec4341ae6cbe5a359",
        qop=frozenset({"auth"}),
        opaque="",
        algorithm_given=True,
    )
    odd = 'DIGEST  Realm = "a \\"b\\", c" ,nonce="n",, qop="auth , AUTH-INT",stale=True,algorithm=sha-256, x=y'
    assert parse_challenge(odd) == Challenge(
        realm='a \\"b\\", c',
        nonce="n",
        algorithm="SHA-256",
        qop=frozenset({"auth", "auth-int"}),
        stale=True,
        algorithm_given=True,
    )
    assert parse_challenge("Basic realm=x").supported is False


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Digest",
        'Digest realm="r"',
        'Digest nonce="n"',
        'Digest realm="r", nonce=""',
        'Digest realm="r, nonce="n"',
        'Digest realm="r", realm="s", nonce="n"',
        'Digest realm="r" nonce="n"',
        "Digest =",
        "Digest " + "a=b," * 999,
    ],
)
def test_a_broken_challenge_is_refused(value: str) -> None:
    """No scheme, no realm, no nonce, a parameter twice, no commas."""
    with pytest.raises(RemoteError):
        parse_challenge(value)


@given(st.text() | st.text('Digest realm="n,=\\ ').map("Digest ".__add__))
def test_any_text_is_a_challenge_or_refused(value: str) -> None:
    """Nothing but RemoteError is raised, and the answer to it is one field that repeats what was asked."""
    sip_challenge(value.encode())


@pytest.mark.parametrize("realm", ["a\\", "\\"])
def test_an_unquoted_value_cannot_break_out_of_our_quotes(realm: str) -> None:
    """A backslash at its end would escape the quote that we put after it."""
    with pytest.raises(RemoteError):
        parse_challenge(f'Digest nonce="n", realm={realm}')


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (f"{'x' * 9000} a=b", f"cannot answer a {'x' * 40} challenge with MD5"),
        ('Digest realm="r", nonce="n", algorithm=\x87SHA', "cannot answer a digest challenge with \\x87SHA"),
    ],
)
def test_a_challenge_is_quoted_briefly_and_printably(value: str, said: str) -> None:
    """The error about it is one short line, whatever the peer sent."""
    with pytest.raises(LocalError) as error:
        authorize(parse_challenge(value), MUFASA, "INVITE", "sip:h", nc=1, cnonce="c")
    assert str(error.value) == said


def test_the_strongest_challenge_we_know_is_answered() -> None:
    """For one realm SHA-512-256 before SHA-256 before MD5 (RFC 8760); unknown and broken ones do not matter."""
    offers = ['Digest realm="r", nonce="1"', 'Digest realm="r", nonce="2", algorithm=SHA-256', "Basic x", "?,"]
    client = DigestClient(MUFASA)
    client.challenged(challenge(1, *offers, 'Digest realm="r", nonce="4", algorithm=SHA-999'))
    assert nonces(ask(client)) == [("Authorization", "2", "")]
    client = DigestClient(MUFASA)
    client.challenged(challenge(1, *offers, 'Digest realm="r", nonce="3", algorithm=SHA-512-256'))
    assert nonces(ask(client)) == [("Authorization", "3", "")]


def test_credentials_answer_their_own_realm_only() -> None:
    """Another realm gets no answer; without a realm the first that challenges is the only one ever."""
    client = DigestClient(Credentials("u", "p", "mine"))
    with pytest.raises(LocalError):
        client.challenged(challenge(1, 'Digest realm="theirs", nonce="n"'))
    assert ask(client) == ()
    client.challenged(challenge(1, 'Digest realm="theirs", nonce="n"', 'Digest realm="mine", nonce="m"'))
    assert nonces(ask(client)) == [("Authorization", "m", "")]
    client = DigestClient(MUFASA)
    client.challenged(challenge(1, 'Digest realm="", nonce="n"'))
    with pytest.raises(LocalError):
        client.challenged(challenge(5, 'Digest realm="other", nonce="m"'))


def test_a_proxy_and_a_server_are_both_answered() -> None:
    """407 then 401 of the same realm: each gets its own header field, counted on its own."""
    client = DigestClient(MUFASA)
    client.challenged(challenge(1, 'Digest realm="r", nonce="p", qop="auth"', status=407))
    assert nonces(ask(client)) == [("Proxy-Authorization", "p", "00000001")]
    client.challenged(challenge(2, 'Digest realm="r", nonce="s", qop="auth"'))
    assert nonces(ask(client)) == [("Proxy-Authorization", "p", "00000002"), ("Authorization", "s", "00000001")]
    assert [nc for _, _, nc in nonces(ask(client))] == ["00000003", "00000002"]


def test_refused_credentials_are_not_tried_again() -> None:
    """The retry challenged again is a wrong password; `stale` is an old nonce; a later request starts afresh."""
    client = DigestClient(MUFASA)
    client.challenged(challenge(1, 'Digest realm="r", nonce="1", qop="auth"'))
    ask(client)
    client.retried("try-1", "try-2")
    client.challenged(challenge(2, 'Digest realm="r", nonce="2", qop="auth", stale=true'))
    assert nonces(ask(client)) == [("Authorization", "2", "00000001")]
    client.retried("try-2", "try-3")
    with pytest.raises(LocalError):
        client.challenged(challenge(3, 'Digest realm="r", nonce="3", qop="auth"'))
    client.challenged(challenge(9, 'Digest realm="r", nonce="9", qop="auth"'))
    assert nonces(ask(client)) == [("Authorization", "9", "00000001")]


def test_stale_for_ever_comes_to_an_end() -> None:
    """A peer that calls every nonce stale is given up after four tries."""
    client = DigestClient(MUFASA)
    for cseq in range(1, 5):
        client.challenged(challenge(cseq, 'Digest realm="r", nonce="n", stale=true'))
        client.retried(f"try-{cseq}", f"try-{cseq + 1}")
    with pytest.raises(LocalError):
        client.challenged(challenge(5, 'Digest realm="r", nonce="n", stale=true'))


def test_requests_challenged_together_are_all_answered() -> None:
    """Two under way before the first challenge came: neither is the other's retry, and one nonce counts on."""
    client = DigestClient(MUFASA)
    for cseq in (1, 2):
        client.challenged(challenge(cseq, 'Digest realm="r", nonce="n", qop="auth"'))
        assert nonces(ask(client)) == [("Authorization", "n", f"{cseq:08x}")]
        client.retried(f"try-{cseq}", f"try-{cseq + 2}")
    for cseq in (3, 4):
        with pytest.raises(LocalError):
            client.challenged(challenge(cseq, 'Digest realm="r", nonce="n", qop="auth"'))


def test_only_401_and_407_challenge() -> None:
    """Anything else is our own mistake."""
    with pytest.raises(LocalError):
        DigestClient(MUFASA).challenged(challenge(1, 'Digest realm="r", nonce="n"', status=403))


def test_what_cannot_be_answered_is_a_local_error() -> None:
    """Unknown algorithms and qop, other realms, a cnonce with a quote, a lone surrogate in a password."""
    for asked, who, cnonce in (
        (attrs.evolve(OLD, algorithm="SHA-999"), MUFASA, "c"),
        (attrs.evolve(OLD, qop=frozenset({"auth-conf"})), MUFASA, "c"),
        (OLD, Credentials("u", "p", "other"), "c"),
        (OLD, MUFASA, 'c"'),
        (OLD, Credentials("u", "\ud800"), "c"),
    ):
        with pytest.raises(LocalError):
            authorize(asked, who, "INVITE", "sip:b@h", nc=1, cnonce=cnonce)


def test_a_user_name_cannot_leave_its_quotes() -> None:
    """Quotes and backslashes of a user name are escaped on the wire."""
    value = authorize(OLD, Credentials('a"b\\', "p"), "INVITE", "sip:b@h", nc=1, cnonce="c")
    assert value.startswith('Digest username="a\\"b\\\\", realm=')
