"""The paths and queries: protocol rows and aliases, each on its own."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.control.http import HttpError
from rustpbx.control.routes import (
    MAX_ID,
    QUERY_ALIASES,
    ROUTES,
    Action,
    Match,
    Route,
    find_route,
    parse_query,
    session_params,
    take_token,
)
from rustpbx.session.options import CallType
from rustpbx.session.params import SessionParams

PLAIN = SessionParams(session_id=None, call_type=CallType.SIP, remote="10.0.0.2")


def params(query: str) -> SessionParams:
    """What a query means."""
    return session_params(parse_query(query), CallType.SIP, "10.0.0.2")


def test_an_empty_query_has_the_documented_defaults() -> None:
    """Generated id, dump on, a ping every 20 s, and the wire's server-side track id."""
    assert params("") == PLAIN
    assert attrs.asdict(PLAIN) == {
        "session_id": None,
        "call_type": CallType.SIP,
        "dump": True,
        "ping_interval": 20,
        "server_side_track": "server-side-track",
        "remote": "10.0.0.2",
        "token": "",
        "after": None,
    }


@pytest.mark.parametrize(
    ("query", "session_id"),
    [
        ("id=s.0d6b", "s.0d6b"),
        ("id=b7Qk2@10.0.0.8-zT91-a0c4", "b7Qk2@10.0.0.8-zT91-a0c4"),
        ("id=b7Qk2%4010.0.0.8-zT91-a0c4", "b7Qk2@10.0.0.8-zT91-a0c4"),
        ("id=a+b", "a+b"),
        ("id=a%2Bb%20c", "a+b c"),
        ("id=%C3%A4", "ä"),
        ("id=100%", "100%"),
        ("id=", None),
        ("id", None),
        ("id=first&id=second", "first"),
        (f"id={'x' * MAX_ID}", "x" * MAX_ID),
    ],
)
def test_the_id_is_percent_decoded_and_keeps_its_plus(query: str, session_id: str | None) -> None:
    """Call-IDs hold @, ., : and +; the Go client sends them raw."""
    assert params(query) == attrs.evolve(PLAIN, session_id=session_id)


@pytest.mark.parametrize("name", ["dump", *QUERY_ALIASES["dump"]])
@pytest.mark.parametrize(
    ("value", "dump"),
    [
        ("true", True),
        ("1", True),
        ("yes", True),
        ("on", True),
        ("TRUE", True),
        ("false", False),
        ("0", False),
        ("no", False),
        ("Off", False),
    ],
)
def test_dump_takes_the_words_for_true_and_false(name: str, value: str, dump: bool) -> None:
    """In any case, under each of its names."""
    assert params(f"{name}={value}") == attrs.evolve(PLAIN, dump=dump)


@pytest.mark.parametrize("name", ["pingInterval", *QUERY_ALIASES["pingInterval"]])
@pytest.mark.parametrize("seconds", [0, 1, 300])
def test_the_ping_interval_is_whole_seconds(name: str, seconds: int) -> None:
    """Under each of its names; 0 is no pings."""
    assert params(f"{name}={seconds}") == attrs.evolve(PLAIN, ping_interval=seconds)


@pytest.mark.parametrize("name", ["serverSideTrack", *QUERY_ALIASES["serverSideTrack"]])
def test_the_server_side_track_can_be_named(name: str) -> None:
    """Under each of its names; empty is the default."""
    assert params(f"{name}=bot") == attrs.evolve(PLAIN, server_side_track="bot")
    assert params(f"{name}=") == PLAIN


def test_the_documented_name_wins_over_its_aliases() -> None:
    """Whatever the order in the query."""
    query = "ping=7&pingInterval=5&dump_events=no&dump=yes&server_side_track=b&serverSideTrack=a"
    assert params(query) == attrs.evolve(PLAIN, ping_interval=5, dump=True, server_side_track="a")


def test_unknown_parameters_are_ignored() -> None:
    """Also without a value, empty, or odd."""
    assert params("token=secret&x&&=5&y=%41") == PLAIN


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("dump=maybe", "dump is true or false"),
        ("dump=", "dump is true or false"),
        ("dump", "dump is true or false"),
        ("pingInterval=-1", "pingInterval is a number of seconds from 0 to 86400"),
        ("ping=2.5", "pingInterval is a number of seconds from 0 to 86400"),
        ("ping=", "pingInterval is a number of seconds from 0 to 86400"),
        ("ping=%D9%A3", "pingInterval is a number of seconds from 0 to 86400"),
        ("ping=99999", "pingInterval is a number of seconds from 0 to 86400"),
        (f"id={'x' * (MAX_ID + 1)}", "id has at most 256 characters"),
        ("id=a%0D%0Ab", "id has characters that cannot be printed"),
        ("id=a%00", "id has characters that cannot be printed"),
        ("id=a%C2%85", "id has characters that cannot be printed"),
        ("id=%E2%80%AEb", "id has characters that cannot be printed"),
        ("id=%E2%80%A8b", "id has characters that cannot be printed"),
        ("serverSideTrack=%7F", "serverSideTrack has characters that cannot be printed"),
        ("id=%FF", "the request target is not valid UTF-8"),
    ],
)
def test_garbage_is_a_400_that_says_what_is_wrong(query: str, error: str) -> None:
    """No default is assumed for a value that cannot be read."""
    with pytest.raises(HttpError) as raised:
        params(query)
    assert (raised.value.status, raised.value.error) == (400, error)


@pytest.mark.parametrize(
    ("method", "path", "action", "id_"),
    [
        ("GET", "/call/sip", Action.CONNECT_SIP, ""),
        ("GET", "/call", Action.CONNECT_STREAM, ""),
        ("GET", "/call/", Action.CONNECT_STREAM, ""),
        ("GET", "/call/webrtc", Action.CONNECT_BROWSER, ""),
        ("GET", "/call/lists", Action.LIST_CALLS, ""),
        ("GET", "/ami/v1/lists", Action.LIST_CALLS, ""),
        ("POST", "/call/kill/s.1", Action.KILL_CALL, "s.1"),
        ("POST", "/call/kill/a%40b+c", Action.KILL_CALL, "a@b+c"),
        ("POST", "/ami/v1/kill/a/b", Action.KILL_CALL, "a/b"),
        ("GET", "/call/a%40b/sip", Action.TRACE_CALL, "a@b"),
        ("GET", "/call/sip/sip", Action.TRACE_CALL, "sip"),
        ("GET", "/call/a/b/sip", Action.TRACE_CALL, "a/b"),
        ("GET", "/iceservers", Action.ICE_SERVERS, ""),
        ("GET", "/health", Action.HEALTH, ""),
        ("GET", "/metrics", Action.METRICS, ""),
        ("POST", "/llm/v1/chat/completions", Action.ASK_MODEL, "chat/completions"),
        ("GET", "/ami/v1/dialogs", Action.LIST_CALLS, ""),
        ("POST", "/ami/v1/shutdown", Action.SHUT_DOWN, ""),
    ],
)
def test_each_path_has_its_action(method: str, path: str, action: Action, id_: str) -> None:
    """The table of paths, row by row."""
    match = find_route(method, path)
    assert (match.route.action, match.id) == (action, id_)


def test_listing_and_killing_are_for_administrators() -> None:
    """Exactly the routes that see or end calls."""
    assert {route.path for route in ROUTES if route.admin} == {
        "/call/lists",
        "/call/kill/{id}",
        "/call/{id}/sip",
        "/ami/v1/lists",
        "/ami/v1/dialogs",
        "/ami/v1/shutdown",
        "/ami/v1/kill/{id}",
    }


@pytest.mark.parametrize(
    "path", ["/", "/nothing", "/call/kill", "/call/kill/", "//call/lists", "/call/sip/", "/call//sip", "*"]
)
def test_other_paths_are_404(path: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(HttpError) as raised:
        find_route("GET", path)
    assert raised.value.status == 404


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [("POST", "/health", "GET"), ("GET", "/call/kill/x", "POST"), ("get", "/health", "GET"), ("HEAD", "/call", "GET")],
)
def test_other_methods_are_405_with_allow(method: str, path: str, allow: str) -> None:
    """Allow names the methods of the path."""
    with pytest.raises(HttpError) as raised:
        find_route(method, path)
    assert (raised.value.status, raised.value.headers) == (405, (("allow", allow),))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/t/abc/call/sip", ("abc", "/call/sip")),
        ("/t/a%2Fb/call/kill/x", ("a%2Fb", "/call/kill/x")),
        ("/t/abc/call/", ("abc", "/call/")),
        ("/t/abc", ("abc", "/")),
        ("/t/abc/", ("abc", "/")),
        ("/t//call", ("", "/call")),
        ("/t/abc/t/def/call", ("abc", "/call")),
        ("/t/", ("", "/")),
        ("/t", ("", "/t")),
        ("/call/t/abc", ("", "/call/t/abc")),
    ],
)
def test_a_token_before_the_path_is_taken_off(path: str, expected: tuple[str, str]) -> None:
    """Whatever is behind it is the path; no token stays in that."""
    assert take_token(path) == expected


def outcome(read: Callable[[], object]) -> object:
    """The result, or the status of the error."""
    try:
        return read()
    except HttpError as error:
        return error.status


@given(st.text(st.characters(max_codepoint=0x2FF)), st.text(st.characters(max_codepoint=0x2FF)))
def test_any_target_is_a_value_or_an_http_error(path: str, query: str) -> None:
    """Whatever h11 lets through, and more."""
    match = outcome(lambda: find_route("POST", f"/call/kill/{path}"))
    assert isinstance(match, Match) or match in (400, 404)
    asked = outcome(lambda: params(query))
    assert isinstance(asked, SessionParams) or asked == 400


def test_routes_are_not_shadowed() -> None:
    """Each row answers to its own path and method: no row hides another."""
    for route in ROUTES:
        assert find_route(route.method, route.path.replace("{id}", "x")) == Match(
            route, "x" if "{id}" in route.path else ""
        )
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)
    assert all(isinstance(route, Route) for route in ROUTES)
