"""The command line: serve, check-config, dial-check, demo.

Exit status: 0 all is well, 1 the server could not start (or the address may not be dialled), 2 the command line or the
configuration is wrong.
"""

from __future__ import annotations

import argparse
import errno
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence

import trio

from rustpbx import __version__, logs
from rustpbx.config import Config, load_config
from rustpbx.errors import ConfigError, RustpbxError
from rustpbx.settings import LogLevel, UaConfig
from rustpbx.signalling import streams_of
from rustpbx.values import shown_url

_ABOUT = """\
A voice-agent call server: SIP and RTP on one side, a JSON WebSocket for your program on the other.

  rustpbx --conf config.toml               serve
  rustpbx check-config config.toml         validate a configuration, without serving
  rustpbx dial-check sip:+4930123@trunk    may this be dialled, and where would it go?
  rustpbx demo                             place a real call on this machine, and listen to it
"""
_CANNOT_BIND = (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES, errno.EPERM)


def main(
    argv: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
    before_serving: Callable[[], object] = lambda: None,
) -> int:
    """Run one command and return its exit status. `before_serving` is called when everything is imported."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["demo"]:
        from rustpbx import demo  # noqa: PLC0415 - the server starts without it

        return demo.main(arguments[1:])
    asked = _parser().parse_args(arguments)
    try:
        config = load_config(asked.file or asked.conf, os.environ if environ is None else environ)
        if asked.command == "check-config":
            if config.ua is not None:
                streams_of(config.ua)  # reads the certificates
            return _report(config, asked.file or asked.conf)
        if asked.command == "dial-check":
            from rustpbx import dial_check  # noqa: PLC0415 - the other commands need none of it

            return dial_check.run(config, asked.uri, asked.token)
        logs.set_up(config.log_level, config.log_format, config.log_file, _log_levels(config))
        return _serve(config, before_serving)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rustpbx", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--conf", metavar="FILE", help="the configuration (TOML); without it, the defaults")
    parser.add_argument("--version", action="version", version=f"rustpbx {__version__}")
    parser.set_defaults(command="serve", file=None)
    commands = parser.add_subparsers(metavar="COMMAND", title="commands (without one: serve)")
    # SUPPRESS: a --conf before the command stays in force unless another one follows it.
    for name, text in (("serve", "run the server"), ("check-config", "validate a configuration and say what it means")):
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        command.add_argument("--conf", metavar="FILE", default=argparse.SUPPRESS, help="the configuration (TOML)")
        command.set_defaults(command=name)
        if name == "check-config":
            command.add_argument("file", nargs="?", metavar="FILE", help="the same, without --conf")
    check = commands.add_parser("dial-check", help="may an address be dialled, and where would the call go?")
    check.add_argument("uri", metavar="URI", help="a SIP address or a telephone number")
    check.add_argument("--conf", metavar="FILE", default=argparse.SUPPRESS, help="the configuration (TOML)")
    check.add_argument("--token", help="one of `tokens`: whose caps are shown")
    check.set_defaults(command="dial-check")
    commands.add_parser("demo", help="place a real call on this machine (demo --help says more)", add_help=False)
    return parser


def _report(config: Config, file: str | None) -> int:
    """Say what a valid configuration means."""
    print(f"{file or 'defaults'}: valid")
    for line in summary(config):
        print(f"  {line}")
    for warning in config.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def summary(config: Config) -> list[str]:
    """What a configuration means, a line each."""
    host, port = config.http_addr
    ua = config.ua
    lines = [f"agents connect to http://{f'[{host}]' if ':' in host else host}:{port} ({_who(config)})"]
    if ua is None:
        lines.append("no SIP")
    else:
        lines.append(f"SIP on {ua.addr or 'the first address that is not loopback'}: {_transports(ua)}")
        handler = (
            f"told to {', '.join(map(shown_url, ua.handler.urls))}"
            if ua.handler
            else "refused with 503: no [ua.handler]"
        )
        lines.append(f"incoming calls are {handler}")
    lines.append(f"RTP on ports {config.rtp_start_port} to {config.rtp_end_port}, at most {config.max_calls} calls")
    return lines


def _transports(ua: UaConfig) -> str:
    ports = {"udp": ua.udp_port, "tcp": ua.tcp_port, "tls": ua.tls_port, "ws": ua.ws_port, "wss": ua.wss_port}
    return ", ".join(f"{name} {port}" for name, port in ports.items() if port is not None)


def _who(config: Config) -> str:
    who = [] if config.trusted_proxies else ["this machine"]
    if config.allow_anonymous:
        return "anybody"
    if config.tokens:
        who.append("anybody with a token")
    who.extend(str(network) for network in config.allow_from)
    return ", ".join(who) or "nobody"


def _log_levels(config: Config) -> tuple[tuple[str, LogLevel], ...]:
    """Those of single loggers; `ua.trace` is a short way to say one of them."""
    trace: tuple[tuple[str, LogLevel], ...] = ((logs.SIP_TRACE, "debug"),) if config.ua and config.ua.trace else ()
    return trace + config.log_levels


def _serve(config: Config, before_serving: Callable[[], object]) -> int:
    from rustpbx.app import run_server  # noqa: PLC0415 - the other commands need none of it

    before_serving()
    status = 0
    try:
        trio.run(run_server, config)
    except* KeyboardInterrupt:
        status = 130
    except* RustpbxError as group:
        status = _say(group)
    except* OSError as group:
        unexpected = group.split(_cannot_bind)[1]
        if unexpected is not None:
            raise unexpected from None
        status = _say(group)
    return status


def _cannot_bind(error: BaseException) -> bool:
    """An address that is taken, not ours, or a name that nobody knows."""
    return isinstance(error, socket.gaierror) or (isinstance(error, OSError) and error.errno in _CANNOT_BIND)


def _say(group: BaseExceptionGroup[BaseException]) -> int:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            _say(error)
        else:
            print(f"rustpbx: {error}", file=sys.stderr)
    return 1
