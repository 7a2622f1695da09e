"""Who may do what over HTTP: one row per situation."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.config import parse_config
from rustpbx.control.access import Access, RequestFacts, is_admin_path

TOKEN = "correct-horse-battery"
LOCAL = Access()
TOKENS = Access(tokens=("another-long-token", TOKEN))
NETWORK = Access(allow_from=(ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")))
ANONYMOUS = Access(allow_anonymous=True)
PROXIED = Access(tokens=(TOKEN,), trusted_proxies=(ip_network("127.0.0.1"), ip_network("10.9.0.0/16")))
PROXIED_NETWORK = attrs.evolve(PROXIED, allow_from=(ip_network("192.0.2.0/24"),))
ORIGINS = Access(origins=("https://app.example.com",))
AMI_LIST = Access(tokens=(TOKEN,), ami_allows=(ip_network("10.1.1.1"),))
AMI_LOCAL = Access(ami_allows=(ip_network("127.0.0.1"), ip_network("10.0.0.0/8")))
AMI_STAR = Access(tokens=(TOKEN,), ami_allows=(None,))
AMI_STAR_ANONYMOUS = Access(allow_anonymous=True, ami_allows=(None,))

BEARER = {"authorization": f"Bearer {TOKEN}"}
CALL, KILL, LISTS = "/call/sip", "/call/kill/abc", "/call/lists"

OK, ADMIN = (200, False), (200, True)
UNAUTHORIZED, FORBIDDEN = (401, False), (403, False)


def ask(access: Access, peer: str, path: str = CALL, headers: dict[str, str] | None = None, **query: str) -> Any:
    """Status and admin flag of the decision about one request."""
    decision = access.check(RequestFacts(method="GET", path=path, peer=peer, headers=headers or {}, query=query))
    assert decision.allowed == (decision.status == 200)
    assert bool(decision.reason) != decision.allowed
    return decision.status, decision.admin


@pytest.mark.parametrize(
    ("access", "peer", "path", "headers", "expected"),
    [
        # nothing configured: this machine, and nobody else
        (LOCAL, "127.0.0.1", CALL, {}, ADMIN),
        (LOCAL, "127.0.0.1", KILL, {}, ADMIN),
        (LOCAL, "::1", LISTS, {}, ADMIN),
        (LOCAL, "::ffff:127.0.0.1", LISTS, {}, ADMIN),
        (LOCAL, "192.0.2.1", CALL, {}, FORBIDDEN),
        (LOCAL, "192.0.2.1", KILL, {}, FORBIDDEN),
        (LOCAL, "not an address", CALL, {}, FORBIDDEN),
        # a forwarder on this machine makes everybody look local
        (LOCAL, "127.0.0.1", CALL, {"x-forwarded-for": "127.0.0.1"}, FORBIDDEN),
        (LOCAL, "127.0.0.1", CALL, {"forwarded": "for=127.0.0.1"}, FORBIDDEN),
        (LOCAL, "127.0.0.1", KILL, {"x-real-ip": "127.0.0.1"}, FORBIDDEN),
        # a name that is not ours in Host: a browser that DNS led here
        (LOCAL, "127.0.0.1", CALL, {"host": "127.0.0.1:8080"}, ADMIN),
        (LOCAL, "::1", CALL, {"host": "[::1]:8080"}, ADMIN),
        (LOCAL, "127.0.0.1", CALL, {"host": "LocalHost:8080"}, ADMIN),
        (LOCAL, "127.0.0.1", CALL, {"host": "evil.example:8080"}, FORBIDDEN),
        (LOCAL, "127.0.0.1", CALL, {"host": "evil.example", "origin": "http://evil.example"}, FORBIDDEN),
        (LOCAL, "127.0.0.1", CALL, {"host": "[::1"}, FORBIDDEN),
        (ORIGINS, "127.0.0.1", CALL, {"host": "app.example.com"}, ADMIN),
        # tokens
        (TOKENS, "192.0.2.1", CALL, BEARER, ADMIN),
        (TOKENS, "192.0.2.1", KILL, BEARER, ADMIN),
        (TOKENS, "192.0.2.1", CALL, {"authorization": f"bearer  {TOKEN} "}, ADMIN),
        (TOKENS, "192.0.2.1", CALL, {}, UNAUTHORIZED),
        (TOKENS, "192.0.2.1", KILL, {}, UNAUTHORIZED),
        (TOKENS, "192.0.2.1", CALL, {"authorization": "Bearer wrong"}, UNAUTHORIZED),
        (TOKENS, "192.0.2.1", CALL, {"authorization": "Bearer "}, UNAUTHORIZED),
        (TOKENS, "192.0.2.1", CALL, {"authorization": f"Basic {TOKEN}"}, UNAUTHORIZED),
        (TOKENS, "192.0.2.1", CALL, {"authorization": f"Bearer {TOKEN}é"}, UNAUTHORIZED),
        (TOKENS, "127.0.0.1", KILL, {}, ADMIN),
        (TOKENS, "127.0.0.1", CALL, {"authorization": "Bearer wrong"}, UNAUTHORIZED),
        (TOKENS, "127.0.0.1", CALL, {"host": "evil.example", **BEARER}, ADMIN),
        # networks
        (NETWORK, "10.200.0.1", CALL, {}, ADMIN),
        (NETWORK, "10.200.0.1", KILL, {}, ADMIN),
        (NETWORK, "::ffff:10.0.0.1", CALL, {}, ADMIN),
        (NETWORK, "2001:db8::5", CALL, {}, ADMIN),
        (NETWORK, "192.0.2.1", CALL, {}, FORBIDDEN),
        (NETWORK, "10.0.0.1", CALL, {"host": "pbx.example"}, ADMIN),
        (NETWORK, "10.0.0.1", LISTS, {"host": "pbx.example"}, FORBIDDEN),
        (NETWORK, "10.0.0.1", LISTS, {"host": "10.0.0.9:8080"}, ADMIN),
        (NETWORK, "10.0.0.1", CALL, {"host": "evil.example", "origin": "http://evil.example"}, FORBIDDEN),
        # anybody may call, not administrate
        (ANONYMOUS, "192.0.2.1", CALL, {}, OK),
        (ANONYMOUS, "192.0.2.1", KILL, {}, FORBIDDEN),
        (ANONYMOUS, "192.0.2.1", "/ami/v1/shutdown", {}, FORBIDDEN),
        (ANONYMOUS, "127.0.0.1", KILL, {}, ADMIN),
        # behind a proxy: loopback is the proxy, the client is who the proxy says
        (PROXIED, "127.0.0.1", CALL, {}, UNAUTHORIZED),
        (PROXIED, "127.0.0.1", KILL, {"x-forwarded-for": "127.0.0.1"}, UNAUTHORIZED),
        (PROXIED, "127.0.0.1", KILL, {"x-forwarded-for": "192.0.2.1", **BEARER}, ADMIN),
        (PROXIED_NETWORK, "127.0.0.1", CALL, {"x-forwarded-for": "192.0.2.1"}, ADMIN),
        (PROXIED_NETWORK, "127.0.0.1", CALL, {"x-forwarded-for": "192.0.2.1, 198.51.100.1"}, UNAUTHORIZED),
        (PROXIED_NETWORK, "127.0.0.1", CALL, {"x-forwarded-for": "198.51.100.1, 192.0.2.1,10.9.0.1"}, ADMIN),
        (PROXIED_NETWORK, "127.0.0.1", CALL, {"x-forwarded-for": "192.0.2.1, garbage"}, UNAUTHORIZED),
        (PROXIED_NETWORK, "198.51.100.1", CALL, {"x-forwarded-for": "192.0.2.1"}, UNAUTHORIZED),
        (PROXIED_NETWORK, "127.0.0.1", CALL, {"forwarded": "for=192.0.2.1"}, UNAUTHORIZED),
        # origins
        (LOCAL, "127.0.0.1", CALL, {"origin": "http://127.0.0.1:8080", "host": "127.0.0.1:8080"}, ADMIN),
        (LOCAL, "127.0.0.1", CALL, {"origin": "http://localhost", "host": "localhost:80"}, ADMIN),
        (LOCAL, "127.0.0.1", CALL, {"origin": "http://localhost:9999", "host": "localhost:8080"}, FORBIDDEN),
        (LOCAL, "127.0.0.1", CALL, {"origin": "https://app.example.com", "host": "127.0.0.1:8080"}, FORBIDDEN),
        (ORIGINS, "127.0.0.1", CALL, {"origin": "https://APP.example.com", "host": "127.0.0.1:8080"}, ADMIN),
        (ORIGINS, "127.0.0.1", CALL, {"origin": "http://app.example.com", "host": "127.0.0.1:8080"}, FORBIDDEN),
        (LOCAL, "127.0.0.1", CALL, {"origin": "null", "host": "127.0.0.1"}, FORBIDDEN),
        (LOCAL, "127.0.0.1", CALL, {"origin": "http://[::1", "host": "[::1"}, FORBIDDEN),
        (LOCAL, "127.0.0.1", CALL, {"origin": "", "host": "127.0.0.1"}, FORBIDDEN),
        (TOKENS, "192.0.2.1", CALL, {"origin": "https://evil", "host": "pbx", **BEARER}, FORBIDDEN),
        (TOKENS, "192.0.2.1", CALL, {"origin": "https://pbx", "host": "pbx", **BEARER}, ADMIN),
        (
            PROXIED,
            "10.9.1.1",
            CALL,
            {"origin": "https://pbx", "host": "in", "x-forwarded-host": "pbx", **BEARER},
            ADMIN,
        ),
        (
            TOKENS,
            "10.9.1.1",
            CALL,
            {"origin": "https://pbx", "host": "in", "x-forwarded-host": "pbx", **BEARER},
            FORBIDDEN,
        ),
        # the list of [ami]: for admin routes it alone counts, `*` leaves it to the other rules
        (AMI_LIST, "10.1.1.1", KILL, {}, ADMIN),
        (AMI_LIST, "10.1.1.1", CALL, {}, UNAUTHORIZED),
        (AMI_LIST, "127.0.0.1", KILL, {}, FORBIDDEN),
        (AMI_LIST, "127.0.0.1", CALL, {}, OK),
        (AMI_LIST, "192.0.2.1", KILL, BEARER, FORBIDDEN),
        (AMI_LIST, "192.0.2.1", CALL, BEARER, OK),
        (AMI_LOCAL, "127.0.0.1", KILL, {"host": "127.0.0.1:8080"}, ADMIN),
        (AMI_LOCAL, "127.0.0.1", KILL, {"host": "evil.example", "origin": "http://evil.example"}, FORBIDDEN),
        (AMI_LOCAL, "127.0.0.1", LISTS, {"host": "evil.example:8080"}, FORBIDDEN),
        (AMI_LOCAL, "127.0.0.1", KILL, {"x-forwarded-for": "192.0.2.1"}, FORBIDDEN),
        (AMI_LOCAL, "10.1.1.1", LISTS, {"host": "evil.example"}, FORBIDDEN),
        (AMI_LOCAL, "10.1.1.1", LISTS, {"host": "10.9.9.9"}, ADMIN),
        (AMI_STAR, "192.0.2.1", KILL, {}, UNAUTHORIZED),
        (AMI_STAR, "192.0.2.1", KILL, BEARER, ADMIN),
        (AMI_STAR, "127.0.0.1", KILL, {}, ADMIN),
        (AMI_STAR_ANONYMOUS, "192.0.2.1", KILL, {}, ADMIN),
    ],
)
def test_access(access: Access, peer: str, path: str, headers: dict[str, str], expected: tuple[int, bool]) -> None:
    """Each situation has its status, and its answer to whether admin routes are open."""
    assert ask(access, peer, path, headers) == expected


def test_the_token_may_stand_in_the_query() -> None:
    """`?token=` serves browsers, which cannot set headers on a WebSocket; a Bearer header beats it."""
    assert ask(TOKENS, "192.0.2.1", token=TOKEN) == ADMIN
    assert ask(TOKENS, "192.0.2.1", token="wrong") == UNAUTHORIZED
    assert ask(TOKENS, "192.0.2.1", headers={"authorization": "Bearer wrong"}, token=TOKEN) == UNAUTHORIZED


def test_an_unasked_token_is_no_reason_to_refuse() -> None:
    """A client that sends a token to a server without any is judged by its address."""
    assert ask(LOCAL, "127.0.0.1", headers=BEARER) == ADMIN
    assert ask(ANONYMOUS, "192.0.2.1", token="x") == OK


@pytest.mark.parametrize(
    ("path", "admin"),
    [
        ("/call/lists", True),
        ("/call/lists/", True),
        ("/call/kill/s.1", True),
        ("/call/s.1/sip", True),
        ("/call/sip/sip", True),
        ("/ami/v1/dialogs", True),
        ("/list", True),
        ("/kill/x", True),
        ("/call/sip", False),
        ("/call/killer", False),
        ("/health", False),
        ("/amigo", False),
    ],
)
def test_admin_paths(path: str, *, admin: bool) -> None:
    """The routes that list or end calls, and nothing that only looks like them."""
    assert is_admin_path(path) is admin


def test_rules_come_from_the_configuration() -> None:
    """Each key of the file reaches its rule."""
    config = parse_config(
        f'tokens = ["{TOKEN}"]\nallow_from = ["10.0.0.0/8"]\nallow_anonymous = true\ntrusted_proxies = ["::1"]\n'
        'origins = ["https://a"]\n[ami]\nallows = ["*"]'
    )
    assert Access.from_config(config) == Access(
        tokens=(TOKEN,),
        allow_from=(ip_network("10.0.0.0/8"),),
        allow_anonymous=True,
        trusted_proxies=(ip_network("::1"),),
        origins=("https://a",),
        ami_allows=(None,),
    )
    assert Access.from_config(parse_config("")).ami_allows is None
    assert Access.from_config(parse_config("[ami]")).ami_allows is None


@pytest.mark.parametrize(
    ("given", "name"),
    [("another-long-token", "token 1"), (TOKEN, "token 2"), (None, "")],
    ids=["first", "second", "none"],
)
def test_a_decision_names_the_token_by_its_place(given: str | None, name: str) -> None:
    """What is counted and logged of a token is not the token."""
    access = attrs.evolve(TOKENS, allow_from=(ip_network("192.0.2.0/24"),))
    query = {} if given is None else {"token": given}
    decision = access.check(RequestFacts(method="GET", path="/call/sip", peer="192.0.2.1", query=query))
    assert (decision.allowed, decision.token) == (True, name)


def test_tokens_stay_out_of_repr() -> None:
    """A logged Access shows no token."""
    assert TOKEN not in repr(TOKENS)


@given(
    st.sampled_from([LOCAL, TOKENS, NETWORK, PROXIED_NETWORK, ORIGINS, AMI_LIST, AMI_STAR]),
    st.sampled_from([CALL, KILL, LISTS, "", "/"]),
    st.dictionaries(
        st.sampled_from(["host", "origin", "authorization", "x-forwarded-for", "x-forwarded-host", "forwarded"]),
        st.text("ab:/[]%.,1 é\x00-", max_size=20) | st.sampled_from(["127.0.0.1", "10.0.0.1", "http://a:99999", "::1"]),
    ),
)
def test_a_stranger_gets_in_with_no_header(access: Access, path: str, headers: dict[str, str]) -> None:
    """Whatever a stranger without a token writes into its headers, it is refused, and nothing breaks."""
    assert ask(access, "198.51.100.77", path, headers) in (UNAUTHORIZED, FORBIDDEN)
