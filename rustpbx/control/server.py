"""The server's HTTP side: connections in one nursery, access first, then the route."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial

import attrs
import trio

from rustpbx.control.access import Access, Decision, RequestFacts
from rustpbx.control.http import (
    HttpError,
    Limits,
    ReadBody,
    Request,
    Response,
    Upgrade,
    json_response,
    serve_connection,
)
from rustpbx.control.llm import LlmProxy
from rustpbx.control.page import is_page, page_file
from rustpbx.control.remote import accepted, event_stream, read_command
from rustpbx.control.routes import (
    Action,
    Match,
    decode,
    event_number,
    find_route,
    parse_query,
    session_params,
    take_token,
    wants_json,
    wants_observing,
)
from rustpbx.control.sessions import Attachment, Reader, Registry
from rustpbx.control.websocket import Patience, handshake_key, serve_agent
from rustpbx.control.wire import calls_body, health_body, rfc3339, trace_body
from rustpbx.core import Address
from rustpbx.errors import OverloadedError
from rustpbx.journal import Journal
from rustpbx.session.options import CallType
from rustpbx.session.params import Asking, NoSuchSessionError, SessionExistsError, SessionParams
from rustpbx.shell.clock import Clock
from rustpbx.shell.network import Network
from rustpbx.sip.trace import trace_text

_LOG = Journal(__name__)
_ACCESS_LOG = Journal("rustpbx.access")

DOORS = {
    Action.CONNECT_SIP: CallType.SIP,
    Action.CONNECT_STREAM: CallType.WEBSOCKET,
    Action.CONNECT_BROWSER: CallType.WEBRTC,
}

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus' text format."""

DEFAULT_ICE_SERVERS: tuple[Mapping[str, object], ...] = ({"urls": ["stun:stun.l.google.com:19302"]},)


@attrs.frozen(kw_only=True)
class HttpConfig:
    """What the HTTP side needs of the configuration.

    `ice_servers` are JSON objects (`urls`, perhaps `username` and `credential`), passed on as they are. Paths in
    `access_skip_paths` are not in the access log; one that ends in `*` is a prefix. `sip` tells whether there is
    a SIP user agent, `page` whether there is a page at `/`. `max_connections` counts WebSockets too.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    ice_servers: Sequence[Mapping[str, object]] = DEFAULT_ICE_SERVERS
    access_skip_paths: tuple[str, ...] = ()
    sip: bool = True
    page: bool = True
    max_connections: int = 4000
    limits: Limits = attrs.field(factory=Limits)
    patience: Patience = attrs.field(factory=Patience)


class Sockets:
    """The agents' sockets that are up: a server that stops lets each have its last events and its closing handshake."""

    def __init__(self) -> None:
        self._open = 0
        self._closed = trio.lowlevel.ParkingLot()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count a socket while it is up."""
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
            self._closed.unpark_all()

    async def gone(self, patience: float) -> None:
        """Wait until none is up, at most `patience` seconds."""
        with trio.move_on_after(patience):
            while self._open:
                await self._closed.park()


async def serve_http(
    config: HttpConfig,
    network: Network,
    registry: Registry,
    access: Access,
    clock: Clock,
    *,
    counters: Counter[str] | None = None,
    sockets: Sockets | None = None,
    metrics: Callable[[], bytes] = bytes,
    llm: LlmProxy | None = None,
    shut_down: Callable[[], None] = lambda: None,
    task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen and serve for ever; `started` with the bound address. Raises OSError if it cannot be bound.

    Cancelling ends every connection; their sessions hear it as a lost agent. `counters` is written to: requests,
    connections refused, commands that could not be read ... `sockets` tells when the last agent has gone.
    `metrics` makes the text of `/metrics`, `llm` is the way to a language model, `shut_down` stops the program.
    """
    listener = await network.listen(config.host, config.port)
    server = _Server(
        config,
        registry,
        access,
        clock,
        Counter() if counters is None else counters,
        sockets=sockets or Sockets(),
        metrics=metrics,
        llm=llm,
        shut_down=shut_down,
    )
    async with trio.open_nursery() as connections:
        task_status.started(_bound_address(listener, config))
        await trio.serve_listeners(server.serve, [listener], handler_nursery=connections)


def _bound_address(listener: trio.abc.Listener[trio.abc.Stream], config: HttpConfig) -> Address:
    socket = getattr(listener, "socket", None)
    if socket is None:
        return config.host, config.port
    name = socket.getsockname()
    return name[0], name[1]


def _peer(stream: trio.abc.Stream) -> str:
    """The IP literal at the other end; "" if the stream cannot say (it may be closed already)."""
    try:
        socket = getattr(stream, "socket", None)
        return str(socket.getpeername()[0]) if socket is not None else ""
    except OSError:
        return ""


class _Server:
    """The part that all connections share."""

    def __init__(
        self,
        config: HttpConfig,
        registry: Registry,
        access: Access,
        clock: Clock,
        counters: Counter[str],
        *,
        sockets: Sockets,
        metrics: Callable[[], bytes],
        llm: LlmProxy | None,
        shut_down: Callable[[], None],
    ) -> None:
        self._config = config
        self._registry = registry
        self._access = access
        self._clock = clock
        self._counters = counters
        self._sockets = sockets
        self._metrics = metrics
        self._llm = llm
        self._shut_down = shut_down
        self._connections = 0

    async def serve(self, stream: trio.abc.Stream) -> None:
        """One connection, whose failure stays its own."""
        if self._connections >= self._config.max_connections:
            self._counters["connections_refused"] += 1
            await _refuse(stream)
            return
        self._connections += 1
        peer = _peer(stream)
        try:
            await serve_connection(stream, partial(self._answer, peer), self._config.limits)
        except Exception:  # noqa: BLE001 - a bug in one connection is logged and ends no other
            self._counters["connections_failed"] += 1
            _LOG.exception("the connection of %s failed", peer)
        finally:
            self._connections -= 1

    async def _answer(self, peer: str, request: Request, read_body: ReadBody) -> Response | Upgrade:
        """One request: access, route, action; a line in the access log whatever comes of it."""
        began = self._clock.now()
        status, client = 500, peer
        token, path = take_token(request.path)
        request = attrs.evolve(request, path=path)  # from here on nobody sees the token in it
        try:
            if self._config.page and is_page(request.method, request.path):
                await read_body()
                reply: Response | Upgrade = page_file(request.path)
                status = 200
                return reply
            query = parse_query(request.query)
            facts = RequestFacts(
                method=request.method, path=path, token=decode(token), peer=peer, query=query, headers=request.headers
            )
            decision = self._access.check(facts)
            client = decision.client or peer
            if not decision.allowed:
                raise _denied(decision)
            match = find_route(request.method, request.path)
            if match.route.admin and not decision.admin:
                raise _denied(Decision(False, 403, "this is for administrators"))
            body = await read_body()
            if match.route.action is Action.COMMAND_CALL:
                reply = self._command(match.id, body, decision)
            elif match.route.action is Action.ASK_MODEL:
                reply = self._ask_model(request, body, self._access.shown_elsewhere(facts))
            else:
                reply = self._act(match, request, query, decision)
            status = 101 if isinstance(reply, Upgrade) else reply.status
        except HttpError as error:
            status = error.status
            raise
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            status = 499  # the peer left before it was answered: the number that proxies write for it
            raise
        else:
            return reply
        finally:
            self._record(request, client, status, self._clock.now() - began)

    def _record(self, request: Request, client: str, status: int, seconds: float) -> None:
        """Count and log a request. The query is left out: it may hold a token."""
        self._counters["requests"] += 1
        self._counters[f"answered_{status}"] += 1
        if not _is_skipped(request.path, self._config.access_skip_paths):
            _ACCESS_LOG.info("%s %s %s %d %.1f ms", client, request.method, request.path, status, seconds * 1000)

    # -- actions ----------------------------------------------------------------------------------------------------

    def _act(self, match: Match, request: Request, query: Mapping[str, str], asking: Decision) -> Response | Upgrade:
        action = match.route.action
        if action in DOORS:
            if wants_observing(query):
                return self._observe(request, query, asking)
            return self._connect(request, session_params(query, DOORS[action], asking.client, asking.token))
        if action is Action.READ_CALL:
            after = event_number(query.get("after", request.headers.get("last-event-id")))
            return event_stream(self._read(match.id, asking, after or 0))
        return self._look(match, request, query)

    def _ask_model(self, request: Request, body: bytes, authorization: str | None) -> Upgrade:
        if self._llm is None:
            raise HttpError(404, "no such path")
        return self._llm.pass_on(request, body, authorization=authorization)

    def _command(self, session_id: str, body: bytes, decision: Decision) -> Response:
        try:
            self._registry.command(session_id, read_command(body), _asking(decision))
        except NoSuchSessionError:
            raise HttpError(404, "no such call", {"id": session_id}) from None
        return accepted()

    def _read(self, session_id: str, decision: Decision, after: int) -> Reader:
        try:
            return self._registry.read(session_id, _asking(decision), after)
        except NoSuchSessionError:
            raise HttpError(404, "no such call", {"id": session_id}) from None
        except OverloadedError as error:
            raise HttpError(503, str(error), headers=(("retry-after", "5"),)) from None

    def _look(self, match: Match, request: Request, query: Mapping[str, str]) -> Response:
        match match.route.action:
            case Action.LIST_CALLS:
                return json_response(calls_body(self._registry.summaries()))
            case Action.KILL_CALL:
                self._registry.kill(match.id)
                return json_response(True)  # whether or not there was such a call, as documented
            case Action.TRACE_CALL:
                return self._trace(match.id, as_json=wants_json(query, request.headers.get("accept", "")))
            case Action.ICE_SERVERS:
                return json_response(list(self._config.ice_servers))
            case action:
                return self._operate(action)

    def _operate(self, action: Action) -> Response:
        match action:
            case Action.SHUT_DOWN:
                self._shut_down()
                return json_response({"status": "shutdown initiated"})
            case Action.METRICS:
                return Response(status=200, body=self._metrics(), content_type=METRICS_TYPE)
            case _:
                health = self._registry.health()  # one that takes no calls is not ready: probes read the status
                return json_response(health_body(health), 200 if health.status == "running" else 503)

    def _trace(self, session_id: str, *, as_json: bool) -> Response:
        trace = self._registry.trace(session_id)
        if trace is None:
            raise HttpError(404, "no such call", {"id": session_id})
        if as_json:
            return json_response(trace_body(trace, self._clock.wall))
        text = trace_text(trace, lambda now: rfc3339(self._clock.wall(now), "milliseconds")[11:23])
        return Response(status=200, body=text.encode(), content_type="text/plain; charset=utf-8")

    def _connect(self, request: Request, params: SessionParams) -> Upgrade:
        """Reserve the session before the 101, so that a taken id is an HTTP answer."""
        key = handshake_key(request)
        if params.call_type is CallType.SIP and not self._config.sip:
            raise HttpError(
                503,
                "User agent not initialized",
                {"message": "no SIP user agent is configured: add [ua] to the config"},
            )
        try:
            attachment = self._registry.reserve(params)
        except SessionExistsError:
            raise HttpError(409, "session already exists", {"id": params.session_id}) from None
        except OverloadedError as error:
            raise HttpError(503, str(error) or "overloaded", headers=(("retry-after", "5"),)) from None

        return self._upgrade(key, attachment, params.ping_interval)

    def _observe(self, request: Request, query: Mapping[str, str], decision: Decision) -> Upgrade:
        """A second socket of a call, which hears its events and says nothing."""
        key = handshake_key(request)
        params = session_params(query, CallType.SIP, decision.client, decision.token)
        if params.session_id is None:
            raise HttpError(400, "which call is to be observed? id is missing")
        return self._upgrade(key, self._read(params.session_id, decision, params.after or 0), params.ping_interval)

    def _upgrade(self, key: str, attachment: Attachment, ping_interval: int) -> Upgrade:
        async def run(stream: trio.abc.Stream, leftover: bytes) -> None:
            with self._sockets.one():
                await serve_agent(
                    stream,
                    leftover,
                    key,
                    attachment,
                    ping_interval=ping_interval,
                    clock=self._clock,
                    counters=self._counters,
                    patience=self._config.patience,
                )

        return Upgrade(run)


def _asking(decision: Decision) -> Asking:
    return Asking(token=decision.token, admin=decision.admin)


def _denied(decision: Decision) -> HttpError:
    challenge = (("www-authenticate", "Bearer"),) if decision.status == 401 else ()
    return HttpError(decision.status, "Access denied", {"message": decision.reason}, headers=challenge)


def _is_skipped(path: str, skip: Sequence[str]) -> bool:
    return any(path.startswith(entry[:-1]) if entry.endswith("*") else path == entry for entry in skip)


async def _refuse(stream: trio.abc.Stream) -> None:
    """Turn a connection away without reading from it."""
    with trio.move_on_after(1.0), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await stream.send_all(
            b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 5\r\ncontent-length: 0\r\n\r\n"
        )
    await trio.aclose_forcefully(stream)
