"""The composition root: the only module that knows every part, and wires them.

`open_server` builds a server over the four injected protocols (`Outside`); `serve` is that with the real ones, for
programs that embed it; `run_server` is `python -m rustpbx`.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import attrs
import httpx
import trio

from rustpbx.accounts import accounts
from rustpbx.config import merge_config
from rustpbx.control.access import Access
from rustpbx.control.llm import DEFAULT_TARGET, LlmProxy
from rustpbx.control.server import DEFAULT_ICE_SERVERS, HttpConfig, Sockets, serve_http
from rustpbx.control.webhook import Webhook
from rustpbx.core import Address
from rustpbx.dialplan import DialPlan
from rustpbx.embed.call import Call
from rustpbx.embed.door import Calls, Door, Handler, answer_each
from rustpbx.errors import LocalError, RustpbxError, SpeechError
from rustpbx.journal import Journal
from rustpbx.media.codec.registry import is_possible
from rustpbx.media.events import Codec
from rustpbx.media.fetch import Fetcher
from rustpbx.media.ice.url import read_server_url
from rustpbx.media.plane.plane import Plane, PlaneConfig
from rustpbx.media.plane.port import Ports, real_ports
from rustpbx.media.recording.shell.recorder import Recorder
from rustpbx.media.sdp.formats import CodecRules
from rustpbx.media.vad.detector import ENGINES
from rustpbx.media.webrtc.shell import OurServer, WebRtc, WebRtcConfig
from rustpbx.metrics import ServerMetrics
from rustpbx.outbound import OutboundPolicy, Reach, open_client, open_guarded_client
from rustpbx.records.ledger import Ledger
from rustpbx.records.sinks import Bucket, FolderSink, HttpSink, S3Sink, Sink, bucket_url
from rustpbx.records.spool import Spool
from rustpbx.session.options import CallType, RecorderOption
from rustpbx.session.params import DEFAULT_SERVER_SIDE_TRACK, SessionParams
from rustpbx.session.protection import SrtpRules
from rustpbx.session.shell.recording import Recordings
from rustpbx.session.shell.registry import Registry
from rustpbx.session.shell.services import Services
from rustpbx.settings import (
    CallRecordConfig,
    Config,
    HttpCallRecord,
    IceServer,
    LocalCallRecord,
    RecordingConfig,
    UaConfig,
)
from rustpbx.shell.clock import Clock, TrioClock
from rustpbx.shell.garbage import collect_between_calls
from rustpbx.shell.network import Network, RealNetwork
from rustpbx.shell.nurseries import sole_error
from rustpbx.shell.offload import Offload
from rustpbx.shell.store import FileStore
from rustpbx.shell.workers import PoolSpec, Workers, open_workers
from rustpbx.signalling import make_stack
from rustpbx.sip.hop import Hop
from rustpbx.sip.shell.stack import Stack
from rustpbx.sip.uri import Uri
from rustpbx.speech import local
from rustpbx.speech.cache import SpeechCache
from rustpbx.speech.registry import SpeechServices
from rustpbx.values import shown_url

log = Journal(__name__)

POOLS = {
    "decode": PoolSpec(size=1, queue=64, time_limit=60.0),
    "asr": PoolSpec(size=1, queue=64, time_limit=60.0),
    "tts": PoolSpec(size=1, queue=64, time_limit=60.0),
    "encode": PoolSpec(size=1, queue=500, time_limit=900.0),
}
"""One process a kind: local speech saturates a core by itself, and the media clock needs the other."""

ENCODING = 30.0
"""Seconds that recordings get for their last bytes, and for being encoded, when the server is told to stop."""

SPOOL = ".callrecords"
"""Below the folder of recordings: call records on their way."""

ANYWHERE = "192.0.2.1"
"""An address nobody has (TEST-NET-1): the way to it is the default route."""

UNREGISTERING = 5.0
"""Seconds that all registrars together get to answer that we are gone."""

GRACE = 5.0
"""Seconds that running calls get for their last events when the server is told to stop."""


@attrs.frozen(kw_only=True)
class Outside:
    """Everything the server reaches the world through. `rng` makes ports, ids, tags and SSRCs; `token_bytes` what
    nobody may guess.
    """

    network: Network
    ports: Ports
    offload: Offload
    clock: Clock
    rng: random.Random
    token_bytes: Callable[[int], bytes] = secrets.token_bytes


@attrs.frozen(kw_only=True)
class Server:
    """A running server and where it listens. `sip` is None without a user agent."""

    config: Config
    sip: Address | None
    registry: Registry
    plane: Plane
    stack: Stack | None
    stop: trio.Event
    """Set once an administrator asks for the end over HTTP: whoever runs the server leaves its block then."""
    recordings: Recordings | None
    ledger: Ledger
    _http: Address | None
    _door: Door

    @property
    def http(self) -> Address:
        """Where agents connect. Raises `LocalError` if this server has no HTTP side."""
        if self._http is None:
            raise LocalError("this server was opened without HTTP")
        return self._http

    def calls(self) -> Calls:
        """The calls that come in from now on, claimed for this program: `async for call in server.calls()`."""
        return self._door.listen()

    def call(self, *, session_id: str | None = None, server_side_track: str = DEFAULT_SERVER_SIDE_TRACK) -> Call:
        """A call to place: `async with server.call() as call: await call.invite(callee=...)`."""
        params = SessionParams(
            session_id=session_id,
            call_type=CallType.SIP,
            dump=False,  # the program has the events itself
            ping_interval=0,
            server_side_track=server_side_track,
            remote="embedded",
        )
        return Call(partial(self.registry.reserve, params))

    async def each_call(self, handler: Handler) -> None:
        """Run `handler(call)` for every call that comes in, each in a task of its own, until the server stops.

        The call ends when its handler returns. A handler that raises is logged with its traceback; its call ends
        (500 before the answer, BYE after it), and no other notices.
        """
        with self.calls() as calls:
            await answer_each(calls, handler)

    async def shutdown(self, patience: float = GRACE) -> None:
        """Refuse new calls and end the running ones, each with its BYE and its `hangup` event."""
        self._door.close()
        await self.registry.shutdown(patience)


@asynccontextmanager
async def open_server(config: Config, outside: Outside, *, http: bool = True) -> AsyncIterator[Server]:
    """Start every part; leaving the block ends the calls and stops all of them, in the order calls need.

    Without `http` there is no HTTP side: no port, and agents only within this program. Raises OSError, in an
    exception group as all that leaves a nursery, if an address cannot be bound.
    """
    async with AsyncExitStack() as exits, trio.open_nursery() as nursery:
        with trio.CancelScope(shield=True):  # cancelled half-way, `start` would wait for ever for what is shielded
            parts: trio.Nursery = await nursery.start(_hold_parts)
        agents = Sockets()
        try:
            server = await _start(config, outside, parts, exits, agents if http else None)
            try:
                yield server
            finally:
                with trio.CancelScope(shield=True):
                    await server.shutdown()
                    await agents.gone(GRACE)
                    await _finish_records(server)
                    await _leave(server)
                    if server.stack is not None:
                        await server.stack.flush()
        finally:
            parts.cancel_scope.cancel()


async def _start(
    config: Config, outside: Outside, parts: trio.Nursery, exits: AsyncExitStack, agents: Sockets | None
) -> Server:
    """Start the parts one after the other, each behind what it needs."""
    stack, sip = None, None
    dial_plan = DialPlan.of(config)
    if config.ua is not None:
        host, ask = _bind_host(config.ua, outside), dial_plan.redirected
        key = outside.token_bytes(32)
        stack = make_stack(config, config.ua, outside.network, outside.clock, outside.rng, host, ask, key)
        sip = await parts.start(stack.run)
    plane = Plane(outside.ports, outside.clock, _plane_config(config, outside), outside.rng, outside.offload)
    metrics, stop = ServerMetrics(), trio.Event()
    services, door, ledger = await _services(config, outside, plane, stack, exits)
    services = attrs.evolve(services, watch=metrics.speech.told)
    await parts.start(services.speech.spares.run)
    if services.recordings is not None:
        await parts.start(services.recordings.recorder.run)
    await parts.start(ledger.run)
    ua = config.ua or UaConfig()
    registry = Registry(
        services,
        rng=outside.rng,
        address=_own_address(stack, sip),
        accept_timeout=ua.accept_timeout,
        ring_timeout=ua.ring_timeout,
        max_calls=config.max_calls,
        dial_plan=dial_plan,
        srtp=_srtp_rules(ua, outside.token_bytes),
        codecs=_codec_rules(ua.codecs, own_order=ua.codec_order == "own"),
        peer_codecs=_codec_rules(config.webrtc_codecs, own_order=True),
        sip_port=sip[1] if sip is not None else 0,
        dtmf_inband=ua.dtmf_inband,
        resume_grace=config.resume_grace or 0.0,
    )
    door.open(registry.reserve)
    await parts.start(registry.run)
    await parts.start(plane.run)
    http = None
    if agents is not None:
        access = Access.from_config(config)
        metrics.watch(registry, plane, stack)
        serve_agents = partial(
            serve_http,
            sockets=agents,
            counters=metrics.http,
            metrics=metrics.text,
            llm=await _llm(config, outside, exits),
            shut_down=stop.set,
        )
        http = await parts.start(serve_agents, _http_config(config), outside.network, registry, access, outside.clock)
    if stack is not None:
        for account in accounts(ua.register_users):  # last: the calls they bring find everything else at work
            stack.register(account)
    return Server(
        config=config,
        http=http,
        sip=sip,
        registry=registry,
        plane=plane,
        stack=stack,
        stop=stop,
        recordings=services.recordings,
        ledger=ledger,
        door=door,
    )


async def _llm(config: Config, outside: Outside, exits: AsyncExitStack) -> LlmProxy:
    """The way to the language model, with connections of its own: slow answers are in nobody's way."""
    client = await exits.enter_async_context(open_client(outside.network))
    target = config.llmproxy or os.environ.get("OPENAI_BASE_URL") or DEFAULT_TARGET
    return LlmProxy(client, target, os.environ.get("OPENAI_API_KEY", ""))


async def _leave(server: Server) -> None:
    """Tell the registrars that we are gone, all of them at once."""
    ua = server.config.ua
    if server.stack is not None and ua is not None and ua.graceful_shutdown:
        await server.stack.unregister_all(UNREGISTERING)


async def _finish_records(server: Server) -> None:
    """Let the recordings of the calls that have just ended become files, and their records be kept."""
    with trio.move_on_after(ENCODING):
        if server.recordings is not None:
            await server.recordings.recorder.finished()
        await server.ledger.finished()


def _ledger(config: Config, outside: Outside, client: httpx.AsyncClient) -> Ledger:
    """Event files and call records, as configured."""
    folder, wanted, offload = config.recorder_path, config.callrecord, outside.offload
    if wanted is None:
        return Ledger(offload, outside.clock, folder, None)
    keep, sink = True, _sink(wanted, client, offload)
    if not isinstance(wanted, LocalCallRecord):
        keep = wanted.keep_media_copy or not wanted.with_media
    spool = Spool(sink, offload, outside.clock, f"{folder or '.'}/{SPOOL}", keep_media=keep)
    return Ledger(offload, outside.clock, folder, spool)


def _sink(wanted: CallRecordConfig, client: httpx.AsyncClient, offload: Offload) -> Sink:
    if isinstance(wanted, LocalCallRecord):
        return FolderSink(offload, wanted.root)
    if isinstance(wanted, HttpCallRecord):
        return HttpSink(client, offload, wanted.url, headers=wanted.headers, with_media=wanted.with_media)
    bucket = Bucket(
        url=bucket_url(wanted.vendor, wanted.bucket, wanted.region, wanted.endpoint),
        region=wanted.region,
        access_key=wanted.access_key,
        secret_key=wanted.secret_key,
        root=wanted.root,
    )
    return S3Sink(client, offload, bucket, with_media=wanted.with_media)


async def _hold_parts(*, task_status: trio.TaskStatus[trio.Nursery]) -> None:
    """Hold the parts in a nursery that the host's cancellation does not reach: calls must still say goodbye."""
    with trio.CancelScope(shield=True):
        async with trio.open_nursery() as parts:
            task_status.started(parts)
            await trio.sleep_forever()


async def _services(
    config: Config, outside: Outside, plane: Plane, stack: Stack | None, exits: AsyncExitStack
) -> tuple[Services, Door, Ledger]:
    client = await exits.enter_async_context(open_client(outside.network))
    policy = OutboundPolicy(
        allow_private=config.outbound.allow_private,
        allow_loopback=config.outbound_loopback,
        max_bytes=config.outbound.max_bytes,
        timeout=config.outbound.timeout,
    )
    guarded = await exits.enter_async_context(open_guarded_client(outside.network, policy))
    handler = config.ua.handler if config.ua else None
    door = Door(Webhook(client, handler, outside.clock, secret=handler.secret) if handler is not None else None)
    ledger = _ledger(config, outside, client)
    store = FileStore(outside.offload, config.media_cache_path) if config.media_cache_path else None
    services = Services(
        clock=outside.clock,
        network=outside.network,
        plane=plane,
        fetcher=Fetcher(guarded, outside.offload, store, policy),
        speech=SpeechServices(
            offload=outside.offload,
            trusted=Reach(network=outside.network, client=client),
            guarded=Reach(network=outside.network, client=guarded, policy=policy),
            wall=lambda: outside.clock.wall(outside.clock.now()) / 1000,
            rng=outside.rng,
        ),
        speech_cache=None if store is None else SpeechCache(store),
        stack=stack,
        announcer=door,
        webrtc=_webrtc(config, outside, plane),
        recordings=_recordings(config, outside, plane),
        ledger=ledger,
    )
    return services, door, ledger


def _recordings(config: Config, outside: Outside, plane: Plane) -> Recordings | None:
    """The recorder as configured; None where there is no folder for it."""
    if not config.recorder_path:
        return None
    table = config.recording or RecordingConfig()
    unasked = RecorderOption(samplerate=table.samplerate, ptime=table.ptime)
    return Recordings(
        recorder=Recorder(plane, outside.offload, outside.clock, config.recorder_path),
        kind=config.recorder_format,
        pattern=table.filename_pattern,
        enabled=table.enabled,
        unasked=unasked if table.enabled and table.auto_start else None,
    )


def _plane_config(config: Config, outside: Outside) -> PlaneConfig:
    return PlaneConfig(
        host=_bind_host(config.ua, outside) if config.ua else "127.0.0.1",
        first_port=config.rtp_start_port,
        last_port=config.rtp_end_port,
        max_calls=config.max_calls,
        media_timeout=config.media_timeout,
    )


def _srtp_rules(ua: UaConfig, token_bytes: Callable[[int], bytes]) -> SrtpRules:
    accounts = [
        (user.server, user.username, user.srtp) for user in ua.register_users if user.srtp and not user.disabled
    ]
    return SrtpRules.of(ua.srtp, ua.srtp_suites, accounts, token_bytes)


def _codec_rules(names: tuple[str, ...], *, own_order: bool) -> CodecRules:
    """What calls may be spoken in, without the codecs whose library is not here."""
    possible = tuple(codec for codec in map(Codec, names) if is_possible(codec))
    if len(possible) < len(names):
        missing = ", ".join(sorted({*names} - {codec.value for codec in possible}))
        log.warning("no library for %s: calls go without", missing)
    return CodecRules(possible or (Codec.PCMU, Codec.PCMA), own_order=own_order)


def _webrtc(config: Config, outside: Outside, plane: Plane) -> WebRtc:
    settings = WebRtcConfig(
        host=plane.config.host,
        external_ip=config.external_ip,
        lite=config.ice_lite,
        servers=tuple(found for server in config.ice_servers for found in _our_servers(server)),
    )
    return WebRtc(settings, outside.network, plane, outside.clock, outside.token_bytes)


def _our_servers(server: IceServer) -> Iterator[OurServer]:
    """Those of a configured server's URLs that our own side of a call can use, as browsers use theirs."""
    for text in server.urls:
        url = read_server_url(text)
        if url is None or (url.relays and not (server.username and server.credential)):
            log.warning(
                "%s is for browsers alone: %s", text, "no username and credential" if url else "not spoken here"
            )
        else:
            yield OurServer(url, server.username or "", server.credential or "")


def _own_address(stack: Stack | None, sip: Address | None) -> str:
    """Our own SIP address, for calls whose agent names no caller."""
    host = stack.local_host(ANYWHERE) if stack is not None else "127.0.0.1"
    return str(Uri(scheme="sip", user="rustpbx", password=None, host=host, port=sip[1] if sip is not None else 0))


def _bind_host(ua: UaConfig, outside: Outside) -> str:
    """An empty address is that of the default route, asked for by an address nobody has (TEST-NET-1)."""
    return ua.addr or outside.network.source_for(ANYWHERE)


def _http_config(config: Config) -> HttpConfig:
    host, port = config.http_addr
    return HttpConfig(
        host=host,
        port=port,
        ice_servers=[_ice_server(server) for server in config.ice_servers] or DEFAULT_ICE_SERVERS,
        access_skip_paths=config.http_access_skip_paths,
        sip=config.ua is not None,
        page=config.page,
    )


def _ice_server(server: IceServer) -> dict[str, object]:
    return attrs.asdict(server, filter=lambda _, value: value is not None)


@asynccontextmanager
async def real_outside() -> AsyncIterator[Outside]:
    """The operating system's network, sockets and processes; leaving the block gives all of them back.

    Worker processes (local speech, decoding) start with their first job.
    """
    ports = real_ports()
    try:
        with sole_error():
            async with open_workers(POOLS) as offload:
                yield Outside(
                    network=RealNetwork(),
                    ports=ports,
                    offload=offload,
                    clock=TrioClock(),
                    rng=random.Random(random.SystemRandom().getrandbits(128)),
                )
    finally:
        ports.shutdown()


@asynccontextmanager
async def serve(
    config: Config | str | os.PathLike[str] | None = None,
    *,
    outside: Outside | None = None,
    http: bool = True,
    warm_up: bool = False,
    **keys: object,
) -> AsyncIterator[Server]:
    """A server for the length of a block, inside any Trio program.

    `config` is a `Config`, or the path of a configuration file, or nothing. `keys` are those of `config.toml`, laid
    over the file or the defaults (`udp_port=5070`, `ua={"addr": "127.0.0.1"}`); with a `Config` there are none.
    Without `http` agents are only those of this program. `outside` is the real world, or virtual time
    (`rustpbx.testing`). `warm_up` loads the embedded speech and the silero VAD at once instead of with their first use.

    Leaving the block, also by an exception or cancellation, ends all calls (BYE, `hangup`) and everything that was
    started. Raises `ConfigError`, OSError if an address cannot be bound, and what the block raises as it is.
    """
    if isinstance(config, Config):
        if keys:
            raise TypeError(f"a Config is complete: use attrs.evolve for {', '.join(sorted(keys))}")
        settings = config
    else:
        settings = merge_config(None if config is None else os.fspath(config), keys)
    async with AsyncExitStack() as exits:
        world = await exits.enter_async_context(real_outside()) if outside is None else outside
        exits.enter_context(sole_error())
        server = await exits.enter_async_context(open_server(settings, world, http=http))
        exits.enter_context(sole_error())
        nursery = await exits.enter_async_context(trio.open_nursery())
        if warm_up and isinstance(world.offload, Workers):
            nursery.start_soon(_warm_up, world.offload)
            nursery.start_soon(_warm_up_vad, world.offload)
        yield server
        nursery.cancel_scope.cancel()


async def run_server(config: Config) -> None:
    """Serve until SIGTERM or SIGINT; both end the calls first. Raises OSError if an address is taken."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with serve(config, warm_up=True) as server, trio.open_nursery() as nursery:
            nursery.start_soon(collect_between_calls, server.registry)
            _say_hello(server)
            nursery.start_soon(_until_asked, server.stop, nursery.cancel_scope)
            async for received in signals:
                log.info("%s: ending the calls and stopping", signal.Signals(received).name)
                nursery.cancel_scope.cancel()
                break


async def _until_asked(stop: trio.Event, scope: trio.CancelScope) -> None:
    await stop.wait()
    log.info("an administrator asked for it: ending the calls and stopping")
    scope.cancel()


async def _warm_up(workers: Workers) -> None:
    """Load the embedded models before the first call needs them."""
    try:
        await local.warm_up(workers)
    except SpeechError as problem:
        log.info("no embedded speech: %s", problem)
    except RustpbxError as problem:
        log.warning("embedded speech could not be loaded: %s", problem)
    else:
        log.info(local.READY)


async def _warm_up_vad(offload: Offload) -> None:
    """Load silero before the first call needs it: importing onnxruntime holds Python up for a tenth of a second."""
    try:
        with trio.CancelScope(shield=True):  # a process must not end while one of its threads does this
            await offload.thread(ENGINES["silero"](False).load)
    except RustpbxError as problem:
        log.warning("VAD engine silero cannot be had: %s", problem)


def _say_hello(server: Server) -> None:
    host, port = server.http
    log.info("HTTP and WebSocket on http://%s:%d (agents connect to ws://%s:%d/call/sip)", host, port, host, port)
    if server.sip is None:
        log.info("no SIP: add [ua] to the configuration")
        return
    if server.stack is not None:
        log.info("SIP on %s", ", ".join(str(Hop(*where)) for where in server.stack.listening.items()))
    ua = server.config.ua
    if ua is not None and ua.handler is None:
        log.info("incoming calls are refused until [ua.handler] names a webhook; outgoing calls work now")
    elif ua is not None and ua.handler is not None:
        log.info("incoming calls are announced to %s", ", ".join(map(shown_url, ua.handler.urls)))
