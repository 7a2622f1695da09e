"""The paths of the server as a table, and what a path and a query say. Pure: text in, values or `HttpError` out."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from urllib.parse import unquote

import attrs

from rustpbx.control.http import HttpError
from rustpbx.session.options import CallType
from rustpbx.session.params import DEFAULT_PING_INTERVAL, DEFAULT_SERVER_SIDE_TRACK, SessionParams

MAX_ID = 256
"""Characters of a session id or a track id."""

MAX_PING_INTERVAL = 86400


class Action(Enum):
    """What a route does."""

    CONNECT_SIP = auto()
    CONNECT_STREAM = auto()
    CONNECT_BROWSER = auto()
    LIST_CALLS = auto()
    KILL_CALL = auto()
    TRACE_CALL = auto()
    COMMAND_CALL = auto()
    READ_CALL = auto()
    ICE_SERVERS = auto()
    HEALTH = auto()
    METRICS = auto()
    ASK_MODEL = auto()
    SHUT_DOWN = auto()


@attrs.frozen
class Route:
    """One row: `{id}` in a path takes whatever stands there as an id. `admin` routes see or end calls."""

    method: str
    path: str
    action: Action
    admin: bool = False

    def match(self, path: str) -> str | None:
        """The still encoded id in `path` ("" for a route without one); None if the path is another's."""
        prefix, wanted, suffix = self.path.partition("{id}")
        if not wanted:
            return "" if path == self.path else None
        fits = path.startswith(prefix) and path.endswith(suffix) and len(path) > len(prefix) + len(suffix)
        return path[len(prefix) : len(path) - len(suffix)] if fits else None


ROUTES = (
    Route("GET", "/call/sip", Action.CONNECT_SIP),
    Route("GET", "/call", Action.CONNECT_STREAM),
    Route("GET", "/call/", Action.CONNECT_STREAM),
    Route("GET", "/call/webrtc", Action.CONNECT_BROWSER),
    Route("GET", "/call/lists", Action.LIST_CALLS, admin=True),
    Route("POST", "/call/kill/{id}", Action.KILL_CALL, admin=True),
    Route("GET", "/call/{id}/sip", Action.TRACE_CALL, admin=True),
    Route("POST", "/call/{id}/command", Action.COMMAND_CALL),
    Route("GET", "/call/{id}/events", Action.READ_CALL),
    Route("GET", "/ami/v1/lists", Action.LIST_CALLS, admin=True),
    Route("POST", "/ami/v1/kill/{id}", Action.KILL_CALL, admin=True),
    Route("GET", "/ami/v1/dialogs", Action.LIST_CALLS, admin=True),
    Route("POST", "/ami/v1/shutdown", Action.SHUT_DOWN, admin=True),
    Route("GET", "/iceservers", Action.ICE_SERVERS),
    Route("GET", "/health", Action.HEALTH),
    Route("GET", "/metrics", Action.METRICS),
    Route("POST", "/llm/v1/{id}", Action.ASK_MODEL),
)


@attrs.frozen
class Match:
    """The row that a request hits, and the id in its path, decoded and checked ("" without one)."""

    route: Route
    id: str = ""


def find_route(method: str, path: str) -> Match:
    """The route of a request. Raises `HttpError`: 404, 405 with Allow, 400 for an id that is none."""
    hits = [(route, rest) for route in ROUTES if (rest := route.match(path)) is not None]
    if not hits:
        raise HttpError(404, "no such path")
    for route, rest in hits:
        if route.method == method:
            return Match(route, check_id("id", decode(rest)) if rest else "")
    allowed = ", ".join(route.method for route, _ in hits)
    raise HttpError(405, "method not allowed", headers=(("allow", allowed),))


# -- the path -------------------------------------------------------------------------------------------------------

SHOWN = "/t/"


def take_token(path: str) -> tuple[str, str]:
    """The still encoded token in `/t/<token>/...`, "" without one, and the path behind it.

    For clients that can set a path and nothing else. Of several tokens the first counts; none stays in the path.
    """
    given = ""
    while path.startswith(SHOWN):
        token, _, rest = path.removeprefix(SHOWN).partition("/")
        given, path = given or token, f"/{rest}"
    return given, path


# -- the query ------------------------------------------------------------------------------------------------------

_FLAGS: Mapping[str, bool] = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}

QUERY_ALIASES: Mapping[str, tuple[str, ...]] = {
    "id": (),
    "dump": ("dumpEvents", "dump_events"),
    "pingInterval": ("ping", "ping_interval"),
    "serverSideTrack": ("server_side_track",),
    "observe": (),
}
"""Documented names and what else is accepted; the documented one wins."""


def decode(text: str) -> str:
    """Percent-decode; `+` stays, because Call-IDs contain it. Raises `HttpError` for what is no UTF-8."""
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise HttpError(400, "the request target is not valid UTF-8") from None


def parse_query(query: str) -> dict[str, str]:
    """Names and values, decoded; the first of a repeated name counts."""
    result: dict[str, str] = {}
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if name:
            result.setdefault(decode(name), decode(value))
    return result


def session_params(query: Mapping[str, str], call_type: CallType, remote: str, token: str = "") -> SessionParams:
    """What the query of a WebSocket path asks for. Raises `HttpError` (400); unknown names are ignored."""
    session_id = _value(query, "id")
    track = _value(query, "serverSideTrack") or DEFAULT_SERVER_SIDE_TRACK
    return SessionParams(
        session_id=check_id("id", session_id) if session_id else None,
        call_type=call_type,
        dump=_flag("dump", _value(query, "dump")),
        ping_interval=_seconds("pingInterval", _value(query, "pingInterval")),
        server_side_track=check_id("serverSideTrack", track),
        remote=remote,
        token=token,
        after=event_number(query.get("after")),
    )


def event_number(text: str | None) -> int | None:
    """The number of an event; None for none. Raises `HttpError` (400)."""
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise HttpError(400, "after is the number of an event")
    return int(text)


def wants_observing(query: Mapping[str, str]) -> bool:
    """Whether a socket is to read a call's events only (`?observe=true`). Raises `HttpError` (400)."""
    value = _value(query, "observe")
    return value is not None and _flag("observe", value)


def wants_json(query: Mapping[str, str], accept: str) -> bool:
    """Whether a trace is wanted as JSON: `format` says so, or the Accept header if it does not. Raises `HttpError`."""
    wanted = query.get("format")
    if wanted is None:
        return "application/json" in accept.lower()
    if wanted not in ("text", "json"):
        raise HttpError(400, "format is text or json")
    return wanted == "json"


def check_id(name: str, value: str) -> str:
    """`value` if it can be an id: it appears in logs and events. Raises `HttpError` (400).

    Not printable are control characters, and those that break lines or turn the direction of writing.
    """
    if len(value) > MAX_ID:
        raise HttpError(400, f"{name} has at most {MAX_ID} characters")
    if not value.isprintable():
        raise HttpError(400, f"{name} has characters that cannot be printed")
    return value


def _value(query: Mapping[str, str], name: str) -> str | None:
    return next((query[key] for key in (name, *QUERY_ALIASES[name]) if key in query), None)


def _flag(name: str, value: str | None) -> bool:
    if value is None:
        return True
    flag = _FLAGS.get(value.lower())
    if flag is None:
        raise HttpError(400, f"{name} is true or false")
    return flag


def _seconds(name: str, value: str | None) -> int:
    if value is None:
        return DEFAULT_PING_INTERVAL
    if not (value.isascii() and value.isdigit()) or len(value) > 5 or int(value) > MAX_PING_INTERVAL:
        raise HttpError(400, f"{name} is a number of seconds from 0 to {MAX_PING_INTERVAL}")
    return int(value)
