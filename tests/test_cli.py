"""The command line: what it prints, and with which status it exits."""

from __future__ import annotations

import errno
import logging
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import rustpbx
from rustpbx import cli, logs
from rustpbx.__main__ import allow_sockets
from rustpbx.config import Config, HandlerConfig, UaConfig
from rustpbx.errors import OverloadedError

SAMPLE = Path(__file__).parent.parent / "config.toml"


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    before = root.level, root.handlers[:]
    yield
    for handler in root.handlers:
        if handler not in before[1]:
            handler.close()
    root.setLevel(before[0])
    root.handlers[:] = before[1]


def test_a_valid_file(capsys: pytest.CaptureFixture[str]) -> None:
    """check-config says what the file means, and exits 0."""
    assert cli.main(["check-config", str(SAMPLE)], {}) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        f"{SAMPLE}: valid",
        "  agents connect to http://127.0.0.1:8080 (this machine)",
        "  SIP on 127.0.0.1: udp 25060",
        "  incoming calls are refused with 503: no [ua.handler]",
        "  RTP on ports 12000 to 42000, at most 500 calls",
    ]
    assert printed.err == ""


def test_a_typo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """check-config names a wrong key with its path on standard error, and exits 2."""
    (tmp_path / "c.toml").write_text("[ua]\nudp_prot = 5060\n")
    assert cli.main(["check-config", str(tmp_path / "c.toml")], {}) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "ua.udp_prot: unknown key (did you mean udp_port?)\n")


@pytest.mark.parametrize("argv", [["--conf", "{}", "check-config"], ["check-config", "--conf", "{}"]])
def test_conf_may_stand_before_or_after(argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--conf is understood on both sides of the command, warnings go to standard error."""
    (tmp_path / "c.toml").write_text("database_url = 'x'\nudp_port = 5060\nhttp_addr = '[::1]:81'\n")
    assert cli.main([word.format(tmp_path / "c.toml") for word in argv], {}) == 0
    printed = capsys.readouterr()
    assert "http://[::1]:81" in printed.out
    assert printed.err == "warning: database_url: belongs to the PBX side and is ignored\n"


def test_the_summary_says_who_may_call() -> None:
    """Tokens, networks, anonymity and proxies show in the first line; a missing [ua] in the second."""
    config = Config(tokens=("x" * 8,), ua=None)
    assert cli.summary(config)[:2] == [
        "agents connect to http://127.0.0.1:8080 (this machine, anybody with a token)",
        "no SIP",
    ]


def test_the_summary_shows_no_secret() -> None:
    """A webhook's URL is shown without credentials and query."""
    handler = HandlerConfig(type="webhook", urls=("https://user:hunter2@hook.example/in?key=hunter2",))
    assert "  ".join(cli.summary(Config(ua=UaConfig(handler=handler)))).count("https://hook.example/in ") == 1
    assert "hunter2" not in "".join(cli.summary(Config(ua=UaConfig(handler=handler))))


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception | None], list[Config]]:
    """Put a server in place that notes its configuration and raises."""

    def install(error: Exception | None) -> list[Config]:
        seen: list[Config] = []

        async def run_server(config: Config) -> None:
            seen.append(config)
            if error:
                raise error

        module = ModuleType("rustpbx.app")
        module.__dict__["run_server"] = run_server
        monkeypatch.setitem(sys.modules, "rustpbx.app", module)
        return seen

    return install


@pytest.mark.parametrize("command", [[], ["serve"]])
def test_serving(command: list[str], app: Callable[[Exception | None], list[Config]]) -> None:
    """With or without the word, the server runs with the file's configuration, after the process was prepared."""
    seen = app(None)
    prepared: list[bool] = []
    assert cli.main(["--conf", str(SAMPLE), *command], {}, before_serving=lambda: prepared.append(not seen)) == 0
    assert [config.ua is not None for config in seen] == [True]
    assert prepared == [True]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EADDRINUSE, "address already in use"),
        OverloadedError("no ports"),
        socket.gaierror(socket.EAI_NONAME, "no ports on a name nobody knows"),
        ExceptionGroup(
            "nursery", [ExceptionGroup("inner", [OSError(errno.EACCES, "address already in use, no ports")])]
        ),
    ],
)
def test_a_server_that_cannot_start(
    error: Exception, app: Callable[[Exception | None], list[Config]], capsys: pytest.CaptureFixture[str]
) -> None:
    """What a person can mend is one line and status 1, however deep it was raised."""
    app(error)
    assert cli.main([], {}) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("rustpbx: ")
    assert "address already in use" in printed or "no ports" in printed


def test_a_bug_keeps_its_traceback(app: Callable[[Exception | None], list[Config]]) -> None:
    """Anything else is not swallowed."""
    app(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        cli.main([], {})
    app(OSError(errno.EIO, "disk"))
    with pytest.raises(ExceptionGroup):
        cli.main([], {})


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """--help shows the commands and how to use them."""
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"], {})
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("serve", "check-config", "demo", "--conf FILE", "--version"))


def test_a_wrong_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown option exits with 2 and the usage."""
    with pytest.raises(SystemExit) as caught:
        cli.main(["--frobnicate"], {})
    assert caught.value.code == 2
    assert "usage: rustpbx" in capsys.readouterr().err


def test_the_demo_gets_its_own_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows `demo` belongs to the demo, options included."""
    module = ModuleType("rustpbx.demo")
    module.__dict__["main"] = len
    monkeypatch.setitem(sys.modules, "rustpbx.demo", module)
    monkeypatch.setattr(rustpbx, "demo", module, raising=False)
    assert cli.main(["demo", "--help", "x"], {}) == 2


@pytest.mark.real_time
def test_a_process_of_its_own(tmp_path: Path) -> None:
    """`python -m rustpbx` reads .env in the working directory; what the environment already says wins."""
    (tmp_path / ".env").write_text("RUST_LOG=debug\nRUSTPBX_TEST=from-file\n")
    program = "import os, rustpbx.__main__ as m; m.run(); print(os.environ['RUST_LOG'], os.environ['RUSTPBX_TEST'])"
    done = subprocess.run(
        [sys.executable, "-c", program, "check-config"],
        cwd=tmp_path,
        env={"PATH": "", "RUST_LOG": "warn", "PYTHONPATH": os.pathsep.join([str(SAMPLE.parent), *sys.path])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[0] == "defaults: valid"
    assert done.stdout.splitlines()[-1] == "warn from-file"


@pytest.mark.real_time
def test_a_broken_env_file(tmp_path: Path) -> None:
    """A .env that is not text is named, and ends the program with 2."""
    (tmp_path / ".env").write_bytes(b"RUST_LOG=\xff\xfe\n")
    done = subprocess.run(
        [sys.executable, "-m", "rustpbx", "check-config"],
        cwd=tmp_path,
        env={"PATH": "", "PYTHONPATH": os.pathsep.join([str(SAMPLE.parent), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(".env: cannot be read: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("limits", "raised"),
    [
        ((256, 4096), (4096, 4096)),
        ((1024, 1_000_000), (65536, 1_000_000)),
        ((1024, resource.RLIM_INFINITY), (65536, resource.RLIM_INFINITY)),
        ((1_000_000, 1_000_000), None),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), None),
    ],
)
def test_sockets_for_many_calls(
    limits: tuple[int, int], raised: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The soft limit of open files goes up as far as the hard one lets it, and never down."""
    wanted: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: wanted.append(new))
    allow_sockets()
    assert wanted == ([] if raised is None else [raised])


def test_a_log_file_is_appended_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """log_file keeps what it holds; a file that cannot be opened is an error of the key."""
    (tmp_path / "log").write_text("before\n")
    logs.set_up("info", "console", str(tmp_path / "log"))
    logging.getLogger("rustpbx.x").info("hello")
    logging.getLogger("rustpbx.x").debug("quiet")
    logging.getLogger().handlers[0].flush()
    assert [line[13:] for line in (tmp_path / "log").read_text().splitlines()] == ["", f"info  {'x':22} hello"]
    (tmp_path / "c.toml").write_text(f'log_file = "{tmp_path}"')
    assert cli.main(["--conf", str(tmp_path / "c.toml")], {}) == 2
    assert capsys.readouterr().err.startswith("log_file: cannot open")
