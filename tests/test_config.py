"""The configuration file: every key parses, every mistake is named with its path, and config.toml forgets nothing."""

from __future__ import annotations

import json
import re
import tomllib
from functools import reduce
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.config import Config, ConfigErrors, UaConfig, known_keys, load_config, parse_config
from rustpbx.errors import ConfigError
from rustpbx.settings import DialRule
from rustpbx.values import shown_url
from tests.kit.predicates import config as config_or_errors

SAMPLE = Path(__file__).parent.parent / "config.toml"


@attrs.frozen
class Key:
    """One key of the file: a value and what it becomes, and a bad value and what is said about it."""

    path: str
    value: Any
    becomes: Any
    bad: Any
    problem: str


HANDLER = "ua.handler"
NEEDS: dict[str, dict[str, Any]] = {
    "ua.handler": {"type": "webhook", "url": "http://agent/"},
    "ua.register_users": {"server": "sip.example.com", "username": "1001"},
    "ua.register_users.credential": {"username": "1001", "password": "secret"},
    "ua.auth.users": {"username": "1001", "password": "secret"},
    "ice_servers": {"urls": ["stun:a"]},
    "dial.allow": {"name": "some", "patterns": ["1*"]},
    "dial.deny": {"name": "some", "patterns": ["1*"]},
    "callrecord": {"type": "s3", "vendor": "aws", "bucket": "b", "access_key": "a", "secret_key": "s"},
}
"""What else a table must hold for one of its keys to be tried alone."""

LISTS = ("ua.register_users", "ua.auth.users", "ice_servers", "dial.allow", "dial.deny")

KEYS = [
    Key("http_addr", "[::1]:9090", ("::1", 9090), "127.0.0.1", "expected address:port"),
    Key("http_access_skip_paths", ["/health", "/s/*"], ("/health", "/s/*"), "/health", "expected a list"),
    Key("tokens", ["0123456789"], ("0123456789",), ["short"], "at least 8"),
    Key("allow_from", ["10.0.0.0/8"], (ip_network("10.0.0.0/8"),), ["10.0.0.1/8"], 'did you mean "10.0.0.0/8"'),
    Key("allow_anonymous", True, True, 1, "expected true or false"),
    Key("trusted_proxies", ["::1"], (ip_network("::1"),), ["proxy"], "expected a network"),
    Key("origins", ["https://App.example.com"], ("https://app.example.com",), ["https://a/b"], "nothing after it"),
    Key("page", False, False, "no", "expected true or false"),
    Key("ami.allows", ["*", "10.1.1.1"], (None, ip_network("10.1.1.1")), "*", "expected a list"),
    Key("log_level", "WARN", "warn", "loud", "must be one of trace, debug, info, warn, error"),
    Key("log_file", "/var/log/x.log", "/var/log/x.log", 1, "expected a string"),
    Key("log_format", "json", "json", "xml", "must be one of console, json"),
    Key("log_levels", {"a.b": "Warning"}, (("a.b", "warn"),), "debug", "expected a table"),
    Key("external_ip", "203.0.113.7", "203.0.113.7", "203.0.113.7:5060", "expected an IP address without port"),
    Key("ice_lite", True, True, "lite", "expected true or false"),
    Key("webrtc_codecs", ["PCMU"], ("PCMU",), [], "must not be empty"),
    Key("rtp_start_port", 20000, 20000, 0, "must be 1 to 65535"),
    Key("rtp_end_port", 30000, 30000, 65536, "must be 1 to 65535"),
    Key("max_calls", 10, 10, 0, "must be 1 to"),
    Key("media_timeout", "30s", 30.0, "soon", "expected a duration"),
    Key("resume_grace", 10, 10.0, -1, "must be more than nothing"),
    Key("media_cache_path", "/var/cache", "/var/cache", "", "must not be empty"),
    Key("outbound.allow_private", ["10.1.0.0/16"], (ip_network("10.1.0.0/16"),), [1], "expected a network"),
    Key("outbound.allow_loopback", False, False, "no", "expected true or false"),
    Key("outbound.max_bytes", 5000, 5000, 1, "must be 1024 to"),
    Key("outbound.timeout", "500ms", 0.5, "500 parsecs", "expected a duration"),
    Key("dial.allow.name", "office", "office", "", "must not be empty"),
    Key("dial.allow.patterns", ["*@pbx.test"], ("*@pbx.test",), ["/(/"], "not a regular expression"),
    Key("dial.deny.name", "mobiles", "mobiles", 1, "expected a string"),
    Key("dial.deny.patterns", ["+4915*", "/[+]4917.*/"], ("+4915*", "/[+]4917.*/"), "+4915*", "expected a list"),
    Key("dial.shipped_rules", False, False, "no", "expected true or false"),
    Key("dial.international_prefixes", ["00", "011"], ("00", "011"), ["+"], "expected some digits"),
    Key("dial.country_code", "49", "49", "+49", "expected some digits"),
    Key("dial.max_per_minute", 60, 60, 0, "must be 1 to"),
    Key("dial.max_per_minute_per_token", 30, 30, 0, "must be 1 to"),
    Key("dial.max_calls_per_token", 20, 20, 0, "must be 1 to"),
    Key("recorder_path", "/srv/rec", "/srv/rec", "", "must not be empty"),
    Key("recorder_format", "ogg", "ogg", "wma", "must be one of wav, mp3, ogg, flac"),
    Key("recording.path", "/srv/rec", "/srv/rec", 1, "expected a string"),
    Key("recording.format", "flac", "flac", "wma", "must be one of"),
    Key("recording.enabled", False, False, 0, "expected true or false"),
    Key("recording.auto_start", True, True, "yes", "expected true or false"),
    Key("recording.samplerate", 8000, 8000, 1, "must be 8000 to 48000"),
    Key("recording.ptime", 20, 20, "20", "expected a whole number"),
    Key("recording.filename_pattern", "{id}", "{id}", 1, "expected a string"),
    Key("llmproxy", "https://llm/v1", "https://llm/v1", "llm", "expected a URL with http:// or https://"),
    Key("ice_servers.urls", ["turn:a:3478"], ("turn:a:3478",), ["http://a"], "expected a URI like"),
    Key("ice_servers.username", "u", "u", 1, "expected a string"),
    Key("ice_servers.credential", "c", "c", 1, "expected a string"),
    Key("ua.addr", "", "", "localhost", "expected an IP address"),
    Key("ua.udp_port", 13050, 13050, "13050", "expected a whole number"),
    Key("ua.useragent", "mine/1", "mine/1", 1, "expected a string"),
    Key("ua.callid_suffix", "example.com", "example.com", 1, "expected a string"),
    Key("ua.accept_timeout", "1m 30s", 90.0, "1m 30", "expected a duration"),
    Key("ua.ring_timeout", "45s", 45.0, True, "expected a string"),
    Key("ua.trace", True, True, "yes", "expected true or false"),
    Key("ua.graceful_shutdown", False, False, "false", "expected true or false"),
    Key("ua.redirect", "Report", "report", "maybe", "must be one of follow, report"),
    Key("ua.srtp", "Prefer", "prefer", "maybe", "must be one of off, prefer, require"),
    Key(
        "ua.srtp_suites",
        ["AEAD_AES_256_GCM"],
        ("AEAD_AES_256_GCM",),
        ["F8_128_HMAC_SHA1_80"],
        "must be one of AES_CM_128_HMAC_SHA1_80",
    ),
    Key("ua.codecs", ["OPUS", "g722"], ("opus", "G722"), ["G729"], "must be one of PCMU, PCMA, G722, opus"),
    Key("ua.codec_order", "own", "own", "mine", "must be one of peer, own"),
    Key("ua.max_redirects", 1, 1, 0, "must be 1 to"),
    Key("ua.prack", "Required", "required", "maybe", "must be one of supported, required, off"),
    Key("ua.session_timers", "accept", "accept", True, "expected a string"),
    Key("ua.session_expires", 600, 600, 60, "must be 90 to"),
    Key("ua.min_se", 200, 200, 10, "must be 90 to"),
    Key("ua.tcp_port", 5070, 5070, 65536, "must be 0 to 65535"),
    Key("ua.tls_port", 5071, 5071, -1, "must be 0 to 65535"),
    Key("ua.ws_port", 0, 0, "5080", "expected a whole number"),
    Key("ua.wss_port", 5081, 5081, 65536, "must be 0 to 65535"),
    Key("ua.ssl_certificate", "/c.pem", "/c.pem", 1, "expected a string"),
    Key("ua.ssl_private_key", "/k.pem", "/k.pem", 1, "expected a string"),
    Key("ua.ssl_ca", "/ca.pem", "/ca.pem", "", "must not be empty"),
    Key("ua.ssl_client_certificate", "/c.pem", "/c.pem", 1, "expected a string"),
    Key("ua.ssl_client_key", "/k.pem", "/k.pem", 1, "expected a string"),
    Key("ua.tls_verify", "none", "none", "no", "must be one of full, none"),
    Key("ua.tls_clients", "certified", "certified", "some", "must be one of any, certified"),
    Key("ua.ws_origins", ["https://app.test"], ("https://app.test",), ["app.test"], "expected a URL with"),
    Key("ua.alpn", ["sip"], ("sip",), "sip", "expected a list"),
    Key("ua.dtmf_inband", True, True, 1, "expected true or false"),
    Key("ua.pass_headers", ["X-*", "Subject"], ("X-*", "Subject"), ["X A"], "expected the name of a header field"),
    Key("ua.mtu", 0, 0, -1, "must be 0 to 65535"),
    Key("ua.handler.type", "webhook", "webhook", "playbook", "must be one of webhook"),
    Key("ua.handler.url", "http://agent/in", ("http://agent/in",), "agent", "expected a URL"),
    Key("ua.handler.urls", ["http://b/"], ("http://b/",), [], "must not be empty"),
    Key("ua.handler.method", "put", "PUT", "FETCH", "must be one of POST, PUT, GET"),
    Key("ua.handler.headers", [["A", "b"]], (("A", "b"),), [["A"]], "expected a name and a value"),
    Key("ua.handler.secret", "12345678", "12345678", "short", "a token has at least 8 visible ASCII characters"),
    Key("ua.handler.timeout", 5, 5.0, "61s", "must not be longer than accept_timeout (60 s)"),
    Key("ua.auth.realm", "pbx", "pbx", 'p"x', "without quotes"),
    Key("ua.auth.users.username", "u", "u", 1, "expected a string"),
    Key("ua.auth.users.password", "p", "p", "", "must not be empty"),
    Key("ua.auth.users.ha1", {"md5": "A" * 32}, (("MD5", "a" * 32),), "x", "expected a table"),
    Key("ua.auth.users.callers", ["1001"], ("1001",), "1001", "expected a list"),
    Key("ua.auth.trusted", ["10.0.0.0/8"], (ip_network("10.0.0.0/8"),), ["10.0.0.1/8"], "did you mean"),
    Key("ua.auth.deny", ["::1"], (ip_network("::1"),), "::1", "expected a list"),
    Key("ua.auth.algorithms", ["MD5"], ("MD5",), ["SHA-1"], "must be one of"),
    Key("ua.auth.nonce_lifetime", "1m", 60.0, "soon", "duration"),
    Key("ua.auth.unknown", "drop", "drop", "ignore", "must be one of"),
    Key("ua.limits.requests", 10.0, 10.0, "many", "expected a number"),
    Key("ua.limits.invites", 5.0, 5.0, "many", "expected a number"),
    Key("ua.limits.burst", 2.0, 2.0, "many", "expected a number"),
    Key("ua.limits.calls", 30, 30, "many", "expected a whole number"),
    Key("ua.limits.failures", 3, 3, "many", "expected a whole number"),
    Key("ua.limits.quiet", "1h", 3600.0, "long", "duration"),
    Key("ua.limits.sources", 500, 500, 5, "100"),
    Key("ua.limits.scanners", ["bad"], ("bad",), "bad", "expected a list"),
    Key("ua.limits.unlimited", ["10.0.0.0/8"], (ip_network("10.0.0.0/8"),), "all", "expected a list"),
    Key("ua.register_users.server", "sip:a:5070", "sip:a:5070", "", "must not be empty"),
    Key("ua.register_users.username", "1002", "1002", 1002, "expected a string"),
    Key("ua.register_users.display_name", "Desk", "Desk", 1, "expected a string"),
    Key("ua.register_users.domain", "example.com", "example.com", 1, "expected a string"),
    Key("ua.register_users.transport", "tls", "tls", "sctp", "must be one of"),
    Key("ua.register_users.outbound_proxy", "proxy:5070", "proxy:5070", "", "must not be empty"),
    Key("ua.register_users.expires", 120, 120, 5, "30"),
    Key("ua.register_users.nat", "off", "off", "on", "must be one of"),
    Key("ua.register_users.q", 0.5, 0.5, 2, "must be 0 to 1"),
    Key("ua.register_users.instance", "urn:uuid:0a", "urn:uuid:0a", "urn:<>", "expected urn:uuid"),
    Key("ua.register_users.srtp", "require", "require", True, "expected a string"),
    Key("ua.register_users.disabled", True, True, "no", "expected true or false"),
    Key("ua.register_users.credential.username", "u", "u", "", "must not be empty"),
    Key("ua.register_users.credential.password", "p", "p", 1, "expected a string"),
    Key("ua.register_users.credential.realm", "r", "r", 1, "expected a string"),
    Key("callrecord.type", "s3", "s3", "tape", "must be one of local, s3, http"),
    Key("callrecord.vendor", "a_w_s", "aws", "floppy", "must be one of aliyun"),
    Key("callrecord.bucket", "calls", "calls", "", "must not be empty"),
    Key("callrecord.region", "eu", "eu", 1, "expected a string"),
    Key("callrecord.access_key", "k", "k", 1, "expected a string"),
    Key("callrecord.secret_key", "k", "k", 1, "expected a string"),
    Key("callrecord.endpoint", "https://s3", "https://s3", 1, "expected a string"),
    Key("callrecord.root", "cdr", "cdr", 1, "expected a string"),
    Key("callrecord.with_media", True, True, 1, "expected true or false"),
    Key("callrecord.keep_media_copy", False, False, 1, "expected true or false"),
]
OTHERS = {"callrecord.url", "callrecord.headers", "proxy", "console", "database_url", "restsend_token"}
"""Keys with tests of their own below."""


def toml(value: object) -> str:
    """A value as inline TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {toml(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(toml(item) for item in value)}]"
    return json.dumps(value)


def file_with(path: str, value: object) -> str:
    """The smallest file that sets one key."""
    table, _, key = path.rpartition(".")
    content: Any = {key: value}
    if path in ("ua.ssl_certificate", "ua.ssl_private_key", "ua.tls_port", "ua.wss_port"):
        content = {"ssl_certificate": "/c.pem", "ssl_private_key": "/k.pem", **content}
    if path in ("ua.ssl_client_certificate", "ua.ssl_client_key"):
        content = {"ssl_client_certificate": "/c.pem", "ssl_client_key": "/k.pem", **content}
    while True:
        content = {**NEEDS.get(table, {}), **content}
        if not table:
            return "\n".join(f"{name} = {toml(item)}" for name, item in content.items())
        outer, _, name = table.rpartition(".")
        content = {name: [content] if table in LISTS else content}
        table = outer


def look_up(config: Config, path: str) -> Any:
    """The value at a path; the first entry of a list of tables."""
    path = path.replace("handler.url", "handler.urls") if path.endswith("url") else path
    return reduce(lambda at, name: getattr(at[0] if isinstance(at, tuple) else at, name), path.split("."), config)


def problems(text: str) -> dict[str, str]:
    """Path and problem of each error in a file."""
    with pytest.raises(ConfigErrors) as caught:
        parse_config(text)
    assert str(caught.value).splitlines()[0].startswith(str(caught.value.errors[0]).splitlines()[0])
    return {error.path: error.problem for error in caught.value.errors}


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.path)
def test_key(key: Key) -> None:
    """Each key parses into the value that the server uses, and names itself when its value is wrong."""
    assert look_up(parse_config(file_with(key.path, key.value)), key.path) == key.becomes
    found = problems(file_with(key.path, key.bad))
    assert [(re.sub(r"\[\d+\]", "", path)) for path in found] == [key.path]
    assert key.problem in next(iter(found.values()))


def test_every_key_has_a_test() -> None:
    """No key is understood without a row above."""
    assert {key.path for key in KEYS} | OTHERS == set(known_keys())


def documented(text: str, call_record: int) -> dict[str, Any]:
    """The sample with every commented key switched on; `call_record` chooses one of the [callrecord] variants."""
    lines = [re.sub(r"^#(?=[a-z_]+ = |\[)", "", line) for line in text.splitlines()]
    head, *blocks = re.split(r"(?m)^(?=\[)", "\n".join(lines))
    records = [block for block in blocks if block.startswith("[callrecord]")]
    blocks = [block for block in blocks if block not in records] + [records[call_record]]
    return tomllib.loads("\n".join([head, *blocks]))


def paths(value: Any, prefix: str = "") -> set[str]:
    """All key paths of a parsed file."""
    found: set[str] = set()
    for name, item in value.items():
        inner = item[0] if isinstance(item, list) and item and isinstance(item[0], dict) else item
        nested = isinstance(inner, dict) and inner and name not in ("headers", "log_levels", "ha1")
        found |= paths(inner, f"{prefix}{name}.") if nested else {prefix + name}
    return found


def test_a_dial_rule_may_be_one_pattern() -> None:
    """Which is then its name too, beside rules with names of their own."""
    config = parse_config('[dial]\nallow = ["+49*", { name = "all", patterns = ["1*", "2*"] }]')
    assert config.dial.allow == (
        DialRule(name="+49*", patterns=("+49*",)),
        DialRule(name="all", patterns=("1*", "2*")),
    )
    with pytest.raises(ConfigErrors, match=r"dial.allow\[0\].patterns\[0\]: not a regular expression"):
        parse_config('[dial]\nallow = ["/[/"]')


def test_a_user_has_a_secret_for_every_algorithm_that_is_asked_for() -> None:
    """A password makes all of them; hashes alone must be complete. What is wrong with them repeats no secret."""
    user = '[ua.auth]\nusers = [{ username = "1001", %s }]'
    assert problems(user % f'ha1 = {{ MD5 = "{"0" * 32}" }}') == {
        "ua.auth.users[0]": "needs a password, or ha1 for SHA-256"
    }
    only = user % f'ha1 = {{ MD5 = "{"0" * 32}" }}' + '\nalgorithms = ["MD5"]'
    assert parse_config(only).ua is not None
    assert problems(user % 'ha1 = { MD5 = "cafe" }') == {"ua.auth.users[0].ha1.MD5": "expected 32 hex digits"}
    assert problems(user % 'ha1 = { SHA-1 = "cafe" }')["ua.auth.users[0].ha1"].startswith("must be one of")


def test_a_challenge_that_nobody_can_answer_is_pointed_out() -> None:
    """No users, and yet strangers are asked for a password."""
    assert parse_config('[ua.auth]\nunknown = "drop"').warnings == ()
    assert parse_config("[ua.auth]\n").warnings == (
        "ua.auth: strangers are asked for a password, and there are no users who have one",
    )


def test_the_sample_file_documents_every_key() -> None:
    """config.toml mentions each key, set or commented out, and nothing else."""
    text = SAMPLE.read_text()
    assert set().union(*(paths(documented(text, variant)) for variant in range(3))) == set(known_keys())


@pytest.mark.parametrize("variant", range(3))
def test_the_sample_file_is_valid_with_everything_switched_on(variant: int) -> None:
    """Each commented example is one that works, at the place where it stands."""
    text = "\n".join(f"{name} = {toml(value)}" for name, value in documented(SAMPLE.read_text(), variant).items())
    assert parse_config(text).ua is not None


def test_the_sample_file_stays_on_this_machine() -> None:
    """What config.toml really sets serves on loopback, for HTTP and for SIP, and gives no warning."""
    config = load_config(str(SAMPLE), {})
    assert config == Config(ua=UaConfig(addr="127.0.0.1"))


def test_defaults_without_a_file() -> None:
    """Without a file the defaults apply: HTTP on loopback, SIP on, no warnings; the environment sets the log level."""
    assert load_config(None, {}) == Config()
    assert Config().on_loopback
    assert Config().ua == UaConfig(udp_port=25060, accept_timeout=50.0)
    assert load_config(None, {"RUST_LOG": "debug"}) == Config(log_level="debug")


@pytest.mark.parametrize(
    ("value", "level"),
    [
        ("debug", "debug"),
        ("hyper=warn,rustpbx=trace", "trace"),
        ("rustpbx=WARNING", "warn"),
        ("info,hyper=debug", "info"),
        ("nonsense", "info"),
        ("", "info"),
    ],
)
def test_rust_log(value: str, level: str) -> None:
    """RUST_LOG is understood as upstream writes it, and loses against the file."""
    assert parse_config("", {"RUST_LOG": value}).log_level == level
    assert parse_config('log_level = "error"', {"RUST_LOG": value}).log_level == "error"


def test_a_file_without_ua_has_no_sip() -> None:
    """A given file that does not mention [ua] means no SIP, and says so."""
    config = parse_config("")
    assert config.ua is None
    assert config.warnings == ("ua: no such section, so there is no SIP and /call/sip answers 503",)


def test_a_typo_is_named_with_its_path_and_a_guess() -> None:
    """Unknown keys are errors, at every depth, with the nearest known key."""
    assert problems("[ua]\nudp_prot = 1") == {"ua.udp_prot": "unknown key (did you mean udp_port?)"}
    assert problems('[ua.handler]\ntype = "webhook"\nulr = "http://a/"') == {
        "ua.handler.urls": "missing",
        "ua.handler.ulr": "unknown key (did you mean url?)",
    }
    assert problems('tokes = ["x"]') == {"tokes": "unknown key (did you mean tokens?)"}
    assert problems("[ua]\nmax_calls = 3") == {"ua.max_calls": "unknown key here: it belongs above the first [table]"}
    assert problems("qqqqq = 1") == {"qqqqq": "unknown key"}


def test_all_errors_at_once() -> None:
    """One run names everything that is wrong."""
    text = """
http_addr = 8080
[ua]
udp_prot = 1
register_users = [{server = "a"}, {server = "b", username = "u", credential = {username = "u"}}]
[callrecord]
type = "http"
"""
    assert problems(text) == {
        "http_addr": "expected a string, got a number",
        "ua.udp_prot": "unknown key (did you mean udp_port?)",
        "ua.register_users[0].username": "missing",
        "ua.register_users[1].credential.password": "missing",
        "callrecord.url": "missing",
    }


@pytest.mark.parametrize(
    ("text", "path", "problem"),
    [
        ("a =", "", "not TOML: "),
        (f"a = {'[' * 5000}", "", "nested too deeply"),
        (f"max_calls = {'9' * 5000}", "", "not TOML: "),
        (f"[ua]\naccept_timeout = {'9' * 400}", "ua.accept_timeout", "at most a year"),
        (f"[ua]\naccept_timeout = '{'9' * 400}s'", "ua.accept_timeout", "at most a year"),
        ("[ua]\naccept_timeout = nan", "ua.accept_timeout", "more than nothing"),
        ("[outbound]\ntimeout = inf", "outbound.timeout", "at most a year"),
        ("ua = 3", "ua", "expected a table, got 3"),
        ("ice_servers = {}", "ice_servers", "expected a list"),
        ("ice_servers = [1]", "ice_servers[0]", "expected a table"),
        ("callrecord = []", "callrecord", "expected a table"),
        ("[callrecord]", "callrecord.type", "missing: one of local, s3, http"),
        ("rtp_start_port = 20000\nrtp_end_port = 20000", "rtp_end_port", "must be above rtp_start_port (20000)"),
        ("rtp_start_port = 20001\nrtp_end_port = 20002", "rtp_end_port", "holds no even port"),
        ("udp_port = 1\n[ua]\nudp_port = 2", "udp_port", "given here and in [ua]"),
        ('[ua]\nssl_certificate = "a"', "ua.ssl_certificate", "belong together"),
        ("[ua]\ntls_port = 5061", "ua.tls_port", "needs ssl_certificate"),
        ("[ua]\nwss_port = 0", "ua.wss_port", "needs ssl_certificate"),
        ('[ua]\nssl_client_key = "a"', "ua.ssl_client_certificate", "belong together"),
        ("[ua]\ntcp_port = 5080\nws_port = 5080", "ua.ws_port", "port 5080 is taken by another transport"),
        ('http_addr = "::1:8080"', "http_addr", "needs brackets"),
        ('http_addr = "localhost:99999"', "http_addr", "0 to 65535"),
        ("warnings = []", "warnings", "unknown key"),
    ],
)
def test_mistakes(text: str, path: str, problem: str) -> None:
    """Wrong shapes and values that contradict each other are named too."""
    found = problems(text)
    assert list(found) == [path]
    assert problem in found[path]


@pytest.mark.parametrize("value", ["é", " a", "a ", "a\\nb", "a\\u0001b", "a\\u007f"])
def test_header_values_are_those_http_can_carry(value: str) -> None:
    """A value that no request could be sent with is found at start-up, not at the first call."""
    handler = '[ua.handler]\ntype = "webhook"\nurl = "http://a/"\nheaders = [["X-A", "{}"]]'
    assert problems(handler.format(value)).keys() == {"ua.handler.headers[0]"}
    for good in ("", "a", "a \\t b"):
        assert parse_config(handler.format(good)).ua is not None


def test_a_secret_in_the_wrong_shape_is_not_shown() -> None:
    """A token without the brackets of its list is named by its key alone."""
    assert problems('tokens = "my-secret-token"') == {"tokens": "expected a list, got a string"}


def test_urls_are_shown_without_their_secrets() -> None:
    """User info and query stay out of what is printed and logged."""
    assert shown_url("https://user:hunter2@hook.example:81/in?key=hunter2#x") == "https://hook.example:81/in"
    assert shown_url("http://[::1") == "(not a URL)"


def test_unreadable_files(tmp_path: Path) -> None:
    """A file that is not there or not text is a configuration error that names it."""
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    for name, problem in (("none.toml", "No such file"), ("binary.toml", "not UTF-8")):
        with pytest.raises(ConfigError, match=problem):
            load_config(str(tmp_path / name), {})


def test_public_bind_needs_a_word() -> None:
    """Serving other machines without saying who may call is refused; the refusal prints the three ways out."""
    found = problems('http_addr = "0.0.0.0:8080"')
    assert all(way in found["http_addr"] for way in ("tokens =", "allow_from =", "allow_anonymous = true"))
    for way in ('tokens = ["0123456789"]', 'allow_from = ["10.0.0.0/8"]'):
        assert parse_config(f'http_addr = "0.0.0.0:8080"\n{way}\n[ua]').warnings == ()
    assert parse_config('http_addr = "0.0.0.0:8080"\nallow_anonymous = true\n[ua]').warnings == (
        "allow_anonymous: anybody who reaches the HTTP port may place calls",
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "127.5.5.5", "[::1]", "localhost"])
def test_loopback_hosts(host: str) -> None:
    """Every spelling of this machine counts as loopback, and lets agents name loopback URLs unless told."""
    config = parse_config(f'http_addr = "{host}:0"\n[ua]')
    assert config.on_loopback
    assert config.outbound_loopback
    assert not parse_config("[outbound]\nallow_loopback = false").outbound_loopback


def test_the_successors_layout() -> None:
    """The keys of [ua] may stand at the top level, and errors name them as they were written."""
    text = 'udp_port = 13050\naddr = "127.0.0.1"\nhandler = {type = "webhook", url = "http://a/"}'
    nested = parse_config('[ua]\nudp_port = 13050\naddr = "127.0.0.1"\nhandler = {type = "webhook", url = "http://a/"}')
    assert parse_config(text) == nested
    assert problems("udp_port = 'x'\n[ua]\naddr = 'y'").keys() == {"udp_port", "ua.addr"}
    assert problems("handler = {type = 'x', url = 'http://a'}").keys() == {"handler.type"}


def test_keys_of_the_pbx_side_are_ignored_and_said_once() -> None:
    """Whatever [proxy], [console], database_url and restsend_token hold, they give one warning together."""
    text = 'database_url = "x"\nrestsend_token = "y"\n[proxy]\nmodules = ["acl"]\n[proxy.acl]\nx = 1\n[console]\n[ua]'
    config = parse_config(text)
    assert config == Config(ua=UaConfig(), warnings=config.warnings)
    assert config.warnings == ("proxy, console, database_url, restsend_token: belongs to the PBX side and is ignored",)


def test_recorder_keys_win_over_the_recording_table() -> None:
    """Both layouts are understood; `recorder_path` and `recorder_format` beat [recording]."""
    table = '[recording]\npath = "/b"\nformat = "ogg"'
    assert (parse_config(table).recorder_path, parse_config(table).recorder_format) == ("/b", "ogg")
    both = parse_config(f'recorder_path = "/a"\n{table}')
    assert (both.recorder_path, both.recorder_format) == ("/a", "ogg")


def test_call_records_over_http() -> None:
    """The http variant has its own keys; those of another variant are unknown to it."""
    record = '[callrecord]\ntype = "http"\nurl = "https://crm/"\nheaders = {Authorization = "x"}\n'
    parsed = look_up(parse_config(record), "callrecord")
    assert (parsed.url, parsed.headers, parsed.keep_media_copy) == ("https://crm/", (("Authorization", "x"),), True)
    assert problems(record + 'bucket = "b"').keys() == {"callrecord.bucket"}
    assert problems(record.replace("https", "ftp")).keys() == {"callrecord.url"}
    assert problems('[callrecord]\ntype = "http"\nurl = "http://a/"\nheaders = {"b d" = "x"}').keys() == {
        "callrecord.headers.b d"
    }


def test_webhook_urls_beat_url() -> None:
    """With both, `urls` counts, but `url` must be one all the same."""
    both = "[ua.handler]\ntype = 'webhook'\nurl = 'http://a/'\nurls = ['http://b/', 'http://c/']"
    assert look_up(parse_config(both), "ua.handler.urls") == ("http://b/", "http://c/")
    assert problems(both.replace("http://a/", "a")).keys() == {"ua.handler.url"}


def test_ports_short_of_calls_warn() -> None:
    """A port range that cannot hold `max_calls` is allowed, and said."""
    config = parse_config("rtp_start_port = 20001\nrtp_end_port = 20010\n[ua]")
    assert config.warnings == ("rtp_end_port: the range has 4 port pairs, fewer than max_calls (500)",)


def test_secrets_stay_out_of_messages_and_reprs() -> None:
    """Tokens, passwords and keys appear neither in repr nor in the error about them."""
    config = parse_config(
        'tokens = ["hunter2hunter2"]\n[ua]\nregister_users = [{server = "a", username = "u", '
        'credential = {username = "u", password = "hunter2"}}]\n[callrecord]\ntype = "s3"\nvendor = "aws"\n'
        'bucket = "b"\naccess_key = "hunter2"\nsecret_key = "hunter2"'
    )
    assert "hunter2" not in repr(config)
    assert "hunter2" not in str(problems('tokens = ["hunter2 "]'))


json_like = st.recursive(
    st.booleans() | st.integers(-(2**40), 2**40) | st.text("ab:/[]1.s -", max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "url", "a"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([key for key in known_keys() if "." not in key]), json_like, max_size=4))
def test_any_content_is_a_config_or_a_config_error(content: dict[str, Any]) -> None:
    """Whatever TOML holds, nothing but our own error comes out, and no secret in it."""
    config_or_errors("\n".join(f"{name} = {toml(value)}" for name, value in content.items()).encode())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[[ua.register_users]]\nserver='a'\nusername='u'\ncredential={username='u', password=12345678}", "a number"),
        ("[ua.handler]\ntype='webhook'\nurl='http://a/'\nsecret=12345678", "a number"),
        ("tokens = [12345678]", "a number"),
        ("tokens = [2025-10-30]", "a date or time"),
    ],
)
def test_a_secret_without_its_quotes_is_not_repeated(text: str, problem: str) -> None:
    """A password of digits is a number to TOML: the error says so, and not which."""
    assert list(problems(text).values()) == [f"expected a string, got {problem}"]


def test_a_number_instead_of_tokens_is_not_repeated() -> None:
    """It may be one."""
    assert problems("tokens = 12345678") == {"tokens": "expected a list, got a number"}


def test_a_header_line_instead_of_pairs_is_not_repeated() -> None:
    """It may hold a token."""
    text = "[ua.handler]\ntype='webhook'\nurl='http://a/'\nheaders='Authorization: Bearer hunter2'"
    expected = "expected a list of [name, value] pairs or a table, got a string"
    assert problems(text) == {"ua.handler.headers": expected}


def test_what_cannot_be_printed_is_shown_escaped() -> None:
    """An error is one line and sends nothing to the terminal that is not text."""
    assert problems('http_addr = "\\u001b[2J"')["http_addr"].endswith('got "\\x1b[2J"')
    assert problems('"\\u001b[2J" = 1') == {"\\x1b[2J": "unknown key"}
    assert problems(f"{'k' * 900} = 1") == {"k" * 80: "unknown key"}
