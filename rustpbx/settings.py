"""The settings of the server as values: what can be configured, and the defaults.

`rustpbx.config` reads them from a file; a program that embeds the server may as well build them itself.
Durations are float seconds.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Literal

import attrs

from rustpbx.core import Address
from rustpbx.values import Network

LogLevel = Literal["trace", "debug", "info", "warn", "error"]
LogFormat = Literal["console", "json"]
SrtpWish = Literal["off", "prefer", "require"]
PrackWish = Literal["supported", "required", "off"]
TimerWish = Literal["on", "accept", "off"]
CodecName = Literal["PCMU", "PCMA", "G722", "opus"]
RecordingFormat = Literal["wav", "mp3", "ogg", "flac"]
SuiteName = Literal[
    "AES_CM_128_HMAC_SHA1_80",
    "AES_CM_128_HMAC_SHA1_32",
    "AES_256_CM_HMAC_SHA1_80",
    "AES_256_CM_HMAC_SHA1_32",
    "AEAD_AES_128_GCM",
    "AEAD_AES_256_GCM",
]


@attrs.frozen(kw_only=True)
class Credential:
    """Digest credentials of a registration; `realm` empty: whatever the registrar says."""

    username: str
    password: str = attrs.field(repr=False)
    realm: str = ""


@attrs.frozen(kw_only=True)
class RegisterUser:
    """One account to register with a SIP server (`host`, `host:port` or a sip: URI)."""

    server: str
    username: str
    display_name: str = ""
    disabled: bool = False
    credential: Credential | None = None
    srtp: SrtpWish | None = None
    """Of its calls; None: that of `[ua]`."""
    domain: str = ""
    """What follows the @ of its address; empty: the server's host."""
    transport: Literal["udp", "tcp", "tls"] | None = None
    """How the server is reached; None: as its URI and DNS say."""
    outbound_proxy: str | None = None
    """What its requests go through (`host`, `host:port` or a sip: URI)."""
    expires: int = 3600
    """Seconds that are asked for."""
    nat: Literal["auto", "off"] = "auto"
    """Whether the address is believed that the server sees us at."""
    q: float | None = None
    """How much calls are wanted here, 0 to 1, among all who registered for the address."""
    instance: str = ""
    """`urn:uuid:...` (RFC 5626): one device whatever its address; empty: an address like others."""


@attrs.frozen(kw_only=True)
class HandlerConfig:
    """What is asked about an incoming call: a webhook with one or several targets, in round robin."""

    type: Literal["webhook"]
    urls: tuple[str, ...]
    method: str = "POST"
    headers: tuple[tuple[str, str], ...] = attrs.field(default=(), repr=False)
    timeout: float = 8.0
    """Seconds for the targets to answer, all of them together."""
    secret: str = attrs.field(default="", repr=False)
    """Signs the requests (`rustpbx.control.webhook.Webhook`); empty: unsigned."""


@attrs.frozen(kw_only=True)
class SipUser:
    """Who may call with a password, or with its hashes, so that no file has to hold it."""

    username: str
    password: str = attrs.field(default="", repr=False)
    ha1: tuple[tuple[str, str], ...] = attrs.field(default=(), repr=False)
    """Algorithm and HA1 in hex: the hash of `username:realm:password` (RFC 7616 3.4.2)."""
    callers: tuple[str, ...] | None = None
    """The From addresses he may have (`1001`, `1001@example.com`); None: any."""


@attrs.frozen(kw_only=True)
class AuthConfig:
    """Who may call: `[ua.auth]`. Without it everybody may who is not denied."""

    realm: str = "rustpbx"
    users: tuple[SipUser, ...] = ()
    trusted: tuple[Network, ...] = ()
    """Networks whose requests are taken as they are."""
    deny: tuple[Network, ...] = ()
    algorithms: tuple[str, ...] = ("SHA-256", "MD5")
    nonce_lifetime: float = 300.0
    unknown: Literal["challenge", "reject", "drop"] = "challenge"
    """What strangers get: a challenge, 403, or no answer."""


@attrs.frozen(kw_only=True)
class LimitsConfig:
    """How much one source of SIP may ask: `[ua.limits]`. 0 is no limit."""

    requests: float = 200.0
    """Per second, outside of calls."""
    invites: float = 100.0
    burst: float = 5.0
    """So many seconds' worth at once."""
    calls: int = 0
    """At the same time."""
    failures: int = 10
    """Wrong passwords after which a source is not answered for `quiet` seconds."""
    quiet: float = 300.0
    sources: int = 10_000
    """How many sources are remembered."""
    unlimited: tuple[Network, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    """Networks without rates: a proxy that many call through, this machine."""
    scanners: tuple[str, ...] | None = None
    """Parts of User-Agents that get no answer; None: those that are known."""


@attrs.frozen(kw_only=True)
class UaConfig:
    """The SIP user agent."""

    addr: str = "0.0.0.0"  # noqa: S104 - phones are elsewhere; the control interface is the one that stays local
    """Bind address; empty means the first address that is not loopback."""
    udp_port: int = 25060
    useragent: str = ""
    """Empty: product and version."""
    callid_suffix: str = "rustpbx.com"
    accept_timeout: float = 60.0
    """Seconds that an incoming call waits for an agent to accept it."""
    ring_timeout: float = 60.0
    """Seconds that an outgoing call rings."""
    redirect: Literal["follow", "report"] = "follow"
    """What a 3xx to our INVITE does: we call where it points, or the agent is told."""
    max_redirects: int = 5
    """How many of them are followed for one call."""
    prack: PrackWish = "supported"
    """Whether provisional responses are reliable (RFC 3262): where the peer does it too, always, or never."""
    session_timers: TimerWish = "on"
    """Whether calls are refreshed from time to time (RFC 4028): always, where the peer asks for it, or never."""
    session_expires: int = 1800
    """Seconds that we ask for: how long a call lasts without a refresh."""
    min_se: int = 90
    """The least that we accept."""
    graceful_shutdown: bool = True
    trace: bool = False
    """Log every SIP message, at the level `debug` of the logger `rustpbx.sip.trace`."""
    handler: HandlerConfig | None = None
    register_users: tuple[RegisterUser, ...] = ()
    auth: AuthConfig | None = None
    limits: LimitsConfig = LimitsConfig()
    srtp: SrtpWish = "off"
    """Whether audio is SRTP: never, where the peer does it too, or always."""
    srtp_suites: tuple[SuiteName, ...] = ("AES_CM_128_HMAC_SHA1_80", "AES_256_CM_HMAC_SHA1_80")
    """What we offer, best first; all of them are accepted."""
    codecs: tuple[CodecName, ...] = ("PCMU", "PCMA")
    """What calls may be spoken in, best first: what we offer, and what we take of an offer."""
    codec_order: Literal["peer", "own"] = "peer"
    """Whose order decides which codec of an offer is answered."""
    tcp_port: int | None = None
    tls_port: int | None = None
    ws_port: int | None = None
    wss_port: int | None = None
    ssl_certificate: str | None = None
    """Our own, with the chain behind it, and its key: PEM files. Shown to who connects, and to whom we connect."""
    ssl_private_key: str | None = None
    ssl_ca: str | None = None
    """The authorities that certificates of peers must come from; None: the system's."""
    ssl_client_certificate: str | None = None
    ssl_client_key: str | None = None
    """What we show to whom we connect, if that is not our own certificate."""
    tls_verify: Literal["full", "none"] = "full"
    tls_clients: Literal["any", "certified"] = "any"
    """Who may connect to us by TLS: anybody, or who shows a certificate of those authorities."""
    ws_origins: tuple[str, ...] = ()
    """Pages of other hosts whose browsers may speak SIP over WebSocket with us."""
    alpn: tuple[str, ...] = ()
    dtmf_inband: bool = False
    """Whether keys are looked for in the audio of calls whose agents do not say."""
    pass_headers: tuple[str, ...] = ("X-*",)
    """Header fields of the far end that agents are shown, by patterns of their names."""
    mtu: int = 1300
    """A longer request goes by TCP where a peer leaves the transport to us; 0: never."""


@attrs.frozen(kw_only=True)
class AmiConfig:
    """Who may use the admin routes: a None in `allows` is `*`; `allows` None means that there is no list."""

    allows: tuple[Network | None, ...] | None = None


@attrs.frozen(kw_only=True)
class IceServer:
    """One STUN or TURN server, for browsers and for calls with them."""

    urls: tuple[str, ...]
    username: str | None = None
    credential: str | None = attrs.field(default=None, repr=False)


@attrs.frozen(kw_only=True)
class RecordingConfig:
    """The `[recording]` table; `recorder_path` and `recorder_format` win over it."""

    path: str | None = None
    format: RecordingFormat | None = None
    enabled: bool = True
    auto_start: bool = False
    samplerate: int = 16000
    ptime: int = 200
    filename_pattern: str = ""


@attrs.frozen(kw_only=True)
class LocalCallRecord:
    """Call records as files below `root`."""

    type: Literal["local"] = "local"
    root: str = "/tmp/cdr"  # noqa: S108 - upstream's sample


@attrs.frozen(kw_only=True)
class S3CallRecord:
    """Call records in an object store."""

    type: Literal["s3"] = "s3"
    vendor: str
    bucket: str
    access_key: str = attrs.field(repr=False)
    secret_key: str = attrs.field(repr=False)
    region: str = ""
    endpoint: str = ""
    root: str = ""
    with_media: bool = False
    keep_media_copy: bool = True


@attrs.frozen(kw_only=True)
class HttpCallRecord:
    """Call records posted to a URL."""

    type: Literal["http"] = "http"
    url: str
    headers: tuple[tuple[str, str], ...] = attrs.field(default=(), repr=False)
    with_media: bool = False
    keep_media_copy: bool = True


CallRecordConfig = LocalCallRecord | S3CallRecord | HttpCallRecord


@attrs.frozen(kw_only=True)
class OutboundConfig:
    """Limits for URLs that an agent supplies (prompts to play and the like)."""

    allow_private: tuple[Network, ...] = ()
    """Private networks that may be fetched from."""
    allow_loopback: bool | None = None
    """None: as long as the HTTP interface itself is on loopback."""
    max_bytes: int = 20_000_000
    timeout: float = 20.0
    """Seconds for one whole fetch."""


@attrs.frozen(kw_only=True)
class DialRule:
    """One rule of the dial policy: it matches what any of its patterns does (`rustpbx.dialplan`)."""

    name: str
    patterns: tuple[str, ...]


@attrs.frozen(kw_only=True)
class DialConfig:
    """The `[dial]` table: what agents may dial."""

    allow: tuple[DialRule, ...] = ()
    """If there are any, what none of them matches is refused."""
    deny: tuple[DialRule, ...] = ()
    shipped_rules: bool | None = None
    """Premium-rate and satellite numbers are refused; None: as soon as calls can leave this machine."""
    international_prefixes: tuple[str, ...] = ("00",)
    """What stands for the plus of an international number."""
    country_code: str = ""
    """What stands for the leading 0 of a national number; empty: such numbers stay as they are."""
    max_per_minute: int | None = None
    max_per_minute_per_token: int | None = None
    max_calls_per_token: int | None = None


@attrs.frozen(kw_only=True)
class Config:
    """Everything that can be set; the defaults are those of a server without a file. HTTP is local, SIP is not."""

    http_addr: Address = ("127.0.0.1", 8080)
    http_access_skip_paths: tuple[str, ...] = ()
    tokens: tuple[str, ...] = attrs.field(default=(), repr=False)
    allow_from: tuple[Network, ...] = ()
    allow_anonymous: bool = False
    trusted_proxies: tuple[Network, ...] = ()
    origins: tuple[str, ...] = ()
    page: bool = True
    """Whether there is a page at `/` to talk from."""
    ami: AmiConfig | None = None

    log_level: LogLevel = "info"
    log_file: str | None = None
    log_format: LogFormat = "console"
    log_levels: tuple[tuple[str, LogLevel], ...] = ()
    """Levels of single loggers, and of those below them."""

    ua: UaConfig | None = attrs.field(factory=lambda: UaConfig(accept_timeout=50.0))
    """None: no SIP."""
    external_ip: str | None = None
    rtp_start_port: int = 12000
    rtp_end_port: int = 42000
    max_calls: int = 500
    dial: DialConfig = DialConfig()
    media_timeout: float | None = None
    resume_grace: float | None = None

    media_cache_path: str = "/tmp/mediacache"  # noqa: S108 - upstream's default
    outbound: OutboundConfig = OutboundConfig()
    recorder_path: str = "/tmp/recorder"  # noqa: S108 - upstream's default
    recorder_format: RecordingFormat = "wav"
    recording: RecordingConfig | None = None
    callrecord: CallRecordConfig | None = None
    ice_servers: tuple[IceServer, ...] = ()
    ice_lite: bool = False
    """Whether browsers do all checks of ICE: enough for a server that all of them can reach."""
    webrtc_codecs: tuple[CodecName, ...] = ("opus", "G722", "PCMA", "PCMU")
    """What browsers are spoken to in: the first that they offer."""
    llmproxy: str | None = None

    warnings: tuple[str, ...] = ()
    """What the reader should know although nothing is wrong; filled by `load_config`."""

    @property
    def on_loopback(self) -> bool:
        """True if the HTTP interface cannot be reached from another machine."""
        return is_loopback(self.http_addr[0])

    @property
    def outbound_loopback(self) -> bool:
        """Whether agents may name loopback URLs."""
        return self.on_loopback if self.outbound.allow_loopback is None else self.outbound.allow_loopback


def is_loopback(host: str) -> bool:
    """True for loopback literals and `localhost`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
