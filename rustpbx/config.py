"""Reading the configuration: TOML into the classes of `rustpbx.settings`, or every error with its full path at once.

`ua.udp_prot: unknown key (did you mean udp_port?)`: nothing is ignored in silence. Keys of the
PBX side, which this server is not, end up as sentences in `Config.warnings`.
`config.toml` at the top of the project documents each key.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import attrs
import cattrs
from cattrs.cols import homogenous_tuple_structure_factory
from cattrs.gen import make_dict_structure_fn, override

from rustpbx import values
from rustpbx.errors import ConfigError, one_line
from rustpbx.settings import (
    AmiConfig,
    AuthConfig,
    CallRecordConfig,
    CodecName,
    Config,
    Credential,
    DialConfig,
    DialRule,
    HandlerConfig,
    HttpCallRecord,
    IceServer,
    LimitsConfig,
    LocalCallRecord,
    LogFormat,
    LogLevel,
    OutboundConfig,
    PrackWish,
    RecordingConfig,
    RegisterUser,
    S3CallRecord,
    SipUser,
    SrtpWish,
    SuiteName,
    TimerWish,
    UaConfig,
    is_loopback,
)
from rustpbx.values import BadValueError, Network

__all__ = [
    "AmiConfig",
    "CallRecordConfig",
    "Config",
    "ConfigErrors",
    "Credential",
    "HandlerConfig",
    "HttpCallRecord",
    "IceServer",
    "LocalCallRecord",
    "Network",
    "OutboundConfig",
    "RecordingConfig",
    "RegisterUser",
    "S3CallRecord",
    "UaConfig",
    "is_loopback",
    "known_keys",
    "load_config",
    "merge_config",
    "parse_config",
]

IGNORED = ("proxy", "console", "database_url", "restsend_token")
"""Keys of the PBX side, which this server is not: accepted whatever they hold, said once, and left alone."""

_PORT = values.within(1, 65535)
_FORMAT = values.one_of("wav", "mp3", "ogg", "flac")
_VENDOR = values.one_of(
    "aliyun", "tencent", "minio", "aws", "gcp", "azure", "digital_ocean", aliases={"a_w_s": "aws", "g_c_p": "gcp"}
)
_SRTP = values.one_of(*get_args(SrtpWish))
_SUITE = values.one_of(*get_args(SuiteName), aliases={name.lower(): name for name in get_args(SuiteName)})
_CODEC = values.one_of(*get_args(CodecName), aliases={name.lower(): name for name in get_args(CodecName)})
_ALGORITHMS = {"SHA-256": 64, "MD5": 32, "SHA-512-256": 64}
"""Of digest authentication, and how many hex digits they make."""
_ALGORITHM = values.one_of(*_ALGORITHMS, aliases={name.lower(): name for name in _ALGORITHMS})
_LOG_LEVEL = values.one_of(*get_args(LogLevel), aliases={"warning": "warn"})


def _log_levels(value: object) -> tuple[tuple[str, Any], ...]:
    """A table of logger names and levels."""
    table = _table(value)
    return tuple((values.filled(name), values.at(f".{name}", _LOG_LEVEL)(level)) for name, level in table.items())


def _hashes(value: object) -> tuple[tuple[str, str], ...]:
    """A table of algorithms and hex digits."""
    return tuple(
        (_ALGORITHM(name), values.at(f".{name}", values.hex_digits(_ALGORITHMS[_ALGORITHM(name)]))(digits))
        for name, digits in _table(value).items()
    )


# How a value is read where the field's type does not say it; strings, whole numbers, flags and tables go by type.
_PARSE: dict[type, dict[str, values.Parse[Any]]] = {
    Config: {
        "http_addr": values.address,
        "http_access_skip_paths": values.list_of(values.filled),
        "tokens": values.list_of(values.token),
        "allow_from": values.list_of(values.network),
        "trusted_proxies": values.list_of(values.network),
        "origins": values.list_of(values.origin),
        "log_level": _LOG_LEVEL,
        "log_format": values.one_of(*get_args(LogFormat)),
        "log_levels": _log_levels,
        "external_ip": values.ip_literal,
        "rtp_start_port": _PORT,
        "rtp_end_port": _PORT,
        "max_calls": values.within(1, 20_000),
        "media_timeout": values.duration,
        "resume_grace": values.duration,
        "media_cache_path": values.filled,
        "recorder_path": values.filled,
        "recorder_format": _FORMAT,
        "webrtc_codecs": values.some_of(_CODEC),
        "llmproxy": values.http_url,
    },
    UaConfig: {
        "addr": values.bind_host,
        "udp_port": values.within(0, 65535),
        "accept_timeout": values.duration,
        "ring_timeout": values.duration,
        "redirect": values.one_of("follow", "report"),
        "prack": values.one_of(*get_args(PrackWish)),
        "session_timers": values.one_of(*get_args(TimerWish)),
        "session_expires": values.within(90, 86_400),  # RFC 4028 4
        "min_se": values.within(90, 86_400),
        "max_redirects": values.within(1, 20),
        "tcp_port": values.within(0, 65535),
        "tls_port": values.within(0, 65535),
        "ws_port": values.within(0, 65535),
        "wss_port": values.within(0, 65535),
        "ssl_certificate": values.filled,
        "ssl_private_key": values.filled,
        "ssl_ca": values.filled,
        "ssl_client_certificate": values.filled,
        "ssl_client_key": values.filled,
        "tls_verify": values.one_of("full", "none"),
        "tls_clients": values.one_of("any", "certified"),
        "ws_origins": values.list_of(values.origin),
        "alpn": values.list_of(values.filled),
        "mtu": values.within(0, 65535),
        "pass_headers": values.list_of(values.header_pattern),
        "srtp": _SRTP,
        "srtp_suites": values.list_of(_SUITE),
        "codecs": values.some_of(_CODEC),
        "codec_order": values.one_of("peer", "own"),
    },
    HandlerConfig: {
        "type": values.one_of("webhook"),
        "urls": values.list_of(values.http_url),
        "method": values.one_of("POST", "PUT", "GET", aliases={"post": "POST", "put": "PUT", "get": "GET"}),
        "headers": values.header_pairs,
        "timeout": values.duration,
        "secret": values.token,
    },
    RegisterUser: {
        "server": values.filled,
        "username": values.filled,
        "srtp": _SRTP,
        "transport": values.one_of("udp", "tcp", "tls"),
        "outbound_proxy": values.filled,
        "expires": values.within(30, 86_400),
        "nat": values.one_of("auto", "off"),
        "q": values.share,
        "instance": values.urn,
    },
    Credential: {"username": values.filled},
    AuthConfig: {
        "realm": values.realm,
        "trusted": values.list_of(values.network),
        "deny": values.list_of(values.network),
        "algorithms": values.list_of(_ALGORITHM),
        "nonce_lifetime": values.duration,
        "unknown": values.one_of("challenge", "reject", "drop"),
    },
    LimitsConfig: {
        "requests": values.amount,
        "invites": values.amount,
        "burst": values.amount,
        "quiet": values.duration,
        "sources": values.within(100, 1_000_000),
        "scanners": values.list_of(values.filled),
        "unlimited": values.list_of(values.network),
    },
    SipUser: {
        "username": values.filled,
        "password": values.filled,
        "ha1": _hashes,
        "callers": values.list_of(values.filled),
    },
    AmiConfig: {"allows": values.list_of(values.network_or_star)},
    IceServer: {"urls": values.list_of(values.ice_url)},
    RecordingConfig: {
        "path": values.filled,
        "format": _FORMAT,
        "samplerate": values.within(8000, 48000),
        "ptime": values.within(10, 1000),
    },
    LocalCallRecord: {"type": values.one_of("local"), "root": values.filled},
    S3CallRecord: {"type": values.one_of("s3"), "vendor": _VENDOR, "bucket": values.filled},
    HttpCallRecord: {"type": values.one_of("http"), "url": values.http_url, "headers": values.header_pairs},
    DialConfig: {
        "international_prefixes": values.list_of(values.digits),
        "country_code": values.digits,
        "max_per_minute": values.within(1, 1_000_000),
        "max_per_minute_per_token": values.within(1, 1_000_000),
        "max_calls_per_token": values.within(1, 20_000),
    },
    DialRule: {"name": values.filled, "patterns": values.list_of(values.dial_pattern)},
    OutboundConfig: {
        "allow_private": values.list_of(values.network),
        "max_bytes": values.within(1024, 1_000_000_000),
        "timeout": values.duration,
    },
}
_CALL_RECORDS: dict[str, type] = {"local": LocalCallRecord, "s3": S3CallRecord, "http": HttpCallRecord}
_UA_KEYS = frozenset(field.name for field in attrs.fields(UaConfig))


class ConfigErrors(ConfigError):  # noqa: N818 - several of them
    """Everything that is wrong with a configuration, one line each; `path` and `problem` are the first one's."""

    def __init__(self, errors: tuple[ConfigError, ...]) -> None:
        super().__init__(errors[0].path, errors[0].problem)
        self.errors = errors

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)


def load_config(path: str | None, environ: Mapping[str, str]) -> Config:
    """Read the file at `path`; without one, the defaults. `RUST_LOG` in `environ` sets the log level if no file does.

    Raises `ConfigErrors` with everything that is wrong.
    """
    if path is None:
        return attrs.evolve(Config(), log_level=_level(environ))
    return parse_config(_read(path), environ)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigErrors((ConfigError("", f"cannot read {path}: {error.strerror}"),)) from error
    except UnicodeDecodeError as error:
        raise ConfigErrors((ConfigError("", f"{path} is not UTF-8 text"),)) from error


def parse_config(text: str, environ: Mapping[str, str] | None = None) -> Config:
    """`load_config` for the text of a file."""
    return _configure(_parse(text), environ or {})


def merge_config(path: str | None, keys: Mapping[str, Any]) -> Config:
    """The file at `path` with `keys` laid over it, table by table; without a file, over the defaults.

    The keys are those of the file (`udp_port` may stand at the top, too). Raises `ConfigErrors`.
    """
    raw: dict[str, Any] = {"ua": {}} if path is None else _parse(_read(path))
    laid = dict(keys)
    for table in (raw, laid):
        _lift_ua(table)
    for key, value in laid.items():
        below = raw.get(key)
        raw[key] = {**below, **value} if isinstance(below, dict) and isinstance(value, dict) else value
    return _configure(raw, {})


def _parse(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ConfigErrors((ConfigError("", "not TOML that we take: nested too deeply"),)) from error
    except ValueError as error:  # TOMLDecodeError, or an integer of thousands of digits
        raise ConfigErrors((ConfigError("", f"not TOML: {error}"),)) from error


def _configure(raw: dict[str, Any], environ: Mapping[str, str]) -> Config:
    """What the keys and values of a file mean, checked."""
    ignored = [key for key in IGNORED if raw.pop(key, None) is not None]
    moved = _lift_ua(raw)
    try:
        config: Config = _CONVERTER.structure({"ua": None, "log_level": _level(environ), **raw}, Config)
    except cattrs.BaseValidationError as error:
        raise ConfigErrors(tuple(_errors(error, "", moved))) from None
    if config.recording:
        config = attrs.evolve(
            config,
            recorder_path=raw.get("recorder_path") or config.recording.path or config.recorder_path,
            recorder_format=(
                config.recorder_format
                if raw.get("recorder_format")
                else config.recording.format or config.recorder_format
            ),
        )
    problems = tuple(_contradictions(config, raw))
    if problems:
        raise ConfigErrors(problems)
    return attrs.evolve(config, warnings=tuple(_warnings(config, ignored)))


def known_keys() -> tuple[str, ...]:
    """The full path of every key that is understood, those that are ignored included."""
    return tuple(sorted((*_keys_of(Config, ""), "ua.handler.url", *IGNORED)))


def _keys_of(cls: type, prefix: str) -> Iterator[str]:
    inner = {"ua": UaConfig, "ami": AmiConfig, "outbound": OutboundConfig, "recording": RecordingConfig}
    inner |= {"dial": DialConfig, "dial.allow": DialRule, "dial.deny": DialRule}
    inner |= {
        "ua.handler": HandlerConfig,
        "ua.register_users": RegisterUser,
        "ua.register_users.credential": Credential,
        "ua.auth": AuthConfig,
        "ua.auth.users": SipUser,
        "ua.limits": LimitsConfig,
    }
    inner |= {"ice_servers": IceServer}
    for field in attrs.fields(cls):
        path = prefix + field.name
        if path in inner:
            yield from _keys_of(inner[path], f"{path}.")
        elif path == "callrecord":
            yield from {f"callrecord.{key.name}" for kind in _CALL_RECORDS.values() for key in attrs.fields(kind)}
        elif path != "warnings":
            yield path


def _level(environ: Mapping[str, str]) -> LogLevel:
    """The level in RUST_LOG: a bare one, or the one for this program (`hyper=warn,rustpbx=debug`)."""
    for directive in reversed(environ.get("RUST_LOG", "").lower().split(",")):
        target, _, level = directive.strip().rpartition("=")
        if target in ("", "rustpbx"):
            for known in get_args(LogLevel):
                if level in (known, f"{known}ing"):
                    return known  # type: ignore[no-any-return]  # get_args forgets what it takes apart
    return "info"


def _lift_ua(raw: dict[str, Any]) -> frozenset[str]:
    """Move the keys of [ua] that stand at the top level (the successor's layout) into it; returns their names."""
    moved = frozenset(raw.keys() & _UA_KEYS)
    ua = raw.get("ua", {})
    if moved and isinstance(ua, dict):
        twice = [ConfigError(key, "given here and in [ua]") for key in sorted(moved & ua.keys())]
        if twice:
            raise ConfigErrors(tuple(twice))
        raw["ua"] = {**ua, **{key: raw.pop(key) for key in moved}}
    return moved


def _table(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise BadValueError(f"expected a table, got {value!r:.60}")
    return value


def _call_record(value: object) -> CallRecordConfig:
    table = _table(value)
    if "type" not in table:
        raise BadValueError(f"missing: one of {', '.join(_CALL_RECORDS)}", ".type")
    kind = values.at(".type", values.one_of(*_CALL_RECORDS))(table["type"])
    record: CallRecordConfig = _CONVERTER.structure(table, _CALL_RECORDS[kind])
    return record


def _handler(value: object) -> dict[str, object]:
    """`url` is a list of one; `urls` beats it."""
    table = dict(_table(value))
    if "url" in table:
        url = values.at(".url", values.http_url)(table.pop("url"))
        table.setdefault("urls", [url])
    if table.get("urls") == []:
        raise BadValueError("must not be empty", ".urls")
    return table


def _dial_rule(value: object) -> dict[str, object]:
    """A text is a rule of one pattern, which is also its name."""
    return {"name": value, "patterns": [value]} if isinstance(value, str) else _table(value)


_PREPARE: dict[type, values.Parse[dict[str, object]]] = {HandlerConfig: _handler, DialRule: _dial_rule}


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    for kind, parse in ((str, values.text), (int, values.integer), (bool, values.flag)):
        converter.register_structure_hook(kind, _hook(parse))
    converter.register_structure_hook_factory(_is_tuple)(_tuple_hook)
    converter.register_structure_hook(CallRecordConfig | None, _hook(_call_record))
    # Inner tables come last in _PARSE and must be known before the ones that hold them.
    for cls, parsers in reversed(_PARSE.items()):
        fields: dict[str, Any] = {name: override(struct_hook=_hook(parse)) for name, parse in parsers.items()}
        if cls is Config:
            fields["warnings"] = override(omit=True)
        build: Any = make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True, **fields)
        prepare = _PREPARE.get(cls, _table)
        converter.register_structure_hook(cls, _table_hook(prepare, build))
    return converter


def _is_tuple(kind: Any) -> bool:
    return get_origin(kind) is tuple


def _hook(parse: values.Parse[Any]) -> Any:
    return lambda value, _: parse(value)


def _table_hook(prepare: values.Parse[dict[str, object]], build: Any) -> Any:
    return lambda value, kind: build(prepare(value), kind)


def _tuple_hook(kind: Any, converter: cattrs.BaseConverter) -> Any:
    structure = homogenous_tuple_structure_factory(kind, converter)

    def hook(value: object, _: object) -> Any:
        if not isinstance(value, list):
            raise BadValueError(f"expected a list, got {value!r:.60}")
        return structure(value, kind)

    return hook


def _errors(error: BaseException, path: str, moved: frozenset[str]) -> Iterator[ConfigError]:
    """Flatten what cattrs reports into one error per place, named as the file names it."""
    if isinstance(error, cattrs.ClassValidationError):
        noted, others = error.group_exceptions()
        for inner, attribute in noted:
            lifted = path == "ua" and attribute.name in moved
            yield from _errors(inner, attribute.name if lifted or not path else f"{path}.{attribute.name}", moved)
        for inner in others:
            yield from _errors(inner, path, moved)
    elif isinstance(error, cattrs.IterableValidationError):
        for inner, item in error.group_exceptions()[0]:
            yield from _errors(inner, f"{path}[{item.index}]", moved)
    elif isinstance(error, cattrs.ForbiddenExtraKeysError):
        for key in sorted(error.extra_fields):
            shown = one_line(key)
            yield ConfigError(f"{path}.{shown}" if path else shown, _unknown(key, error.cl))
    elif isinstance(error, BadValueError):
        yield ConfigError(path + error.where, error.problem)
    else:
        yield ConfigError(path, "missing" if isinstance(error, KeyError) else str(error))


def _unknown(key: str, cls: type) -> str:
    known = {field.name for field in attrs.fields(cls)} - {"warnings"}
    if cls is not Config and key in {field.name for field in attrs.fields(Config)}:
        return "unknown key here: it belongs above the first [table]"
    known |= set(_UA_KEYS) if cls is Config else {"url"} if cls is HandlerConfig else set()
    close = difflib.get_close_matches(key, sorted(known), n=1)
    return f"unknown key (did you mean {close[0]}?)" if close else "unknown key"


def _contradictions(config: Config, raw: Mapping[str, Any]) -> Iterator[ConfigError]:
    """What is wrong although each value by itself is right."""
    if config.rtp_end_port <= config.rtp_start_port:
        yield ConfigError("rtp_end_port", f"must be above rtp_start_port ({config.rtp_start_port})")
    elif not _port_pairs(config):
        yield ConfigError("rtp_end_port", "the range holds no even port with the odd one above it")
    ua = config.ua
    if ua and (ua.ssl_certificate is None) != (ua.ssl_private_key is None):
        yield ConfigError("ua.ssl_certificate", "ssl_certificate and ssl_private_key belong together")
    if ua and (ua.ssl_client_certificate is None) != (ua.ssl_client_key is None):
        yield ConfigError("ua.ssl_client_certificate", "ssl_client_certificate and ssl_client_key belong together")
    for key in ("tls_port", "wss_port"):
        if ua and getattr(ua, key) is not None and not ua.ssl_certificate:
            yield ConfigError(f"ua.{key}", "needs ssl_certificate and ssl_private_key")
    yield from _shared_ports(ua)
    yield from _users_without_secrets(ua)
    if ua and ua.handler and ua.handler.timeout > ua.accept_timeout and "timeout" in raw["ua"]["handler"]:
        yield ConfigError("ua.handler.timeout", f"must not be longer than accept_timeout ({ua.accept_timeout:g} s)")
    if not config.on_loopback and not (config.tokens or config.allow_from or config.allow_anonymous):
        yield ConfigError("http_addr", _THREE_WAYS.format(host=config.http_addr[0]))


_THREE_WAYS = """\
{host} can be reached from other machines, and nothing says who may place calls there. Choose one:
  tokens = ["<a long random text>"]      clients send `Authorization: Bearer <token>` or `?token=<token>`
  allow_from = ["10.0.0.0/8"]            clients in these networks need nothing else
  allow_anonymous = true                 anybody who reaches the port may place calls
or stay on this machine: http_addr = "127.0.0.1:8080\""""


def _shared_ports(ua: UaConfig | None) -> Iterator[ConfigError]:
    """Two streams cannot share a port; UDP has ports of its own."""
    seen: set[int] = set()
    for key in ("tcp_port", "tls_port", "ws_port", "wss_port"):
        port = getattr(ua, key, None)
        if port in seen:
            yield ConfigError(f"ua.{key}", f"port {port} is taken by another transport")
        if port:
            seen.add(port)


def _users_without_secrets(ua: UaConfig | None) -> Iterator[ConfigError]:
    auth = (ua and ua.auth) or AuthConfig()
    for number, user in enumerate(auth.users):
        missing = [name for name in auth.algorithms if name not in dict(user.ha1)]
        if missing and not user.password:
            yield ConfigError(f"ua.auth.users[{number}]", f"needs a password, or ha1 for {', '.join(missing)}")


def _port_pairs(config: Config) -> int:
    first = config.rtp_start_port + config.rtp_start_port % 2
    return max(0, (config.rtp_end_port - first + 1) // 2)


def _warnings(config: Config, ignored: list[str]) -> Iterator[str]:
    """What the reader should know."""
    if ignored:
        yield f"{', '.join(ignored)}: belongs to the PBX side and is ignored"
    if config.ua is None:
        yield "ua: no such section, so there is no SIP and /call/sip answers 503"
    auth = config.ua.auth if config.ua is not None else None
    if auth is not None and auth.unknown == "challenge" and not auth.users:
        yield "ua.auth: strangers are asked for a password, and there are no users who have one"
    if not config.on_loopback and config.allow_anonymous:
        yield "allow_anonymous: anybody who reaches the HTTP port may place calls"
    if _port_pairs(config) < config.max_calls:
        yield f"rtp_end_port: the range has {_port_pairs(config)} port pairs, fewer than max_calls ({config.max_calls})"


_CONVERTER = _make_converter()
