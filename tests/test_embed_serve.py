"""`rustpbx.serve`: what it takes, what it raises, and that nothing of it outlives its block or changes its host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

import rustpbx
from rustpbx.app import real_outside
from rustpbx.config import ConfigErrors, merge_config
from rustpbx.errors import LocalError
from rustpbx.media.decode import decode
from rustpbx.settings import UaConfig
from rustpbx.shell.workers import Workers
from rustpbx.testing.house import outside_of
from rustpbx.testing.phone import open_phone
from rustpbx.testing.wire import open_wire
from tests.kit.embed import ALICE, ASR, BOB, TTS, memory_config, open_files, repeat, two_real_servers

ROOT = Path(rustpbx.__file__).parent.parent


# -- what it takes --------------------------------------------------------------------------------------------------


def test_keywords_are_the_keys_of_the_configuration(tmp_path: Path) -> None:
    """Alone they are laid over the defaults, with a path over the file, table by table, and checked as a file is."""
    file = tmp_path / "server.toml"
    file.write_text('max_calls = 7\n[ua]\naddr = "10.0.0.9"\nudp_port = 5080\n')
    assert merge_config(None, {}).ua == UaConfig()
    assert merge_config(None, {"ua": None}).ua is None
    assert merge_config(None, {"udp_port": 5070, "max_calls": 3}).max_calls == 3
    merged = merge_config(str(file), {"udp_port": 5090, "rtp_start_port": 20000})
    assert (merged.max_calls, merged.rtp_start_port, merged.ua) == (7, 20000, UaConfig(addr="10.0.0.9", udp_port=5090))
    with pytest.raises(ConfigErrors, match=r"ua\.udp_prot: unknown key \(did you mean udp_port\?\)"):
        merge_config(str(file), {"ua": {"udp_prot": 1}})
    with pytest.raises(ConfigErrors, match="can be reached from other machines"):
        merge_config(None, {"http_addr": "0.0.0.0:80"})


async def test_a_config_is_complete_and_a_missing_file_is_named(tmp_path: Path) -> None:
    """Keywords beside a `Config` would have two meanings, so they are refused; errors come before anything starts."""
    with pytest.raises(TypeError, match=r"attrs\.evolve for max_calls"):
        await rustpbx.serve(rustpbx.Config(), max_calls=1).__aenter__()
    with pytest.raises(ConfigErrors, match=r"cannot read .*nothing\.toml"):
        await rustpbx.serve(tmp_path / "nothing.toml").__aenter__()


async def test_a_server_without_http_listens_for_no_agent() -> None:
    """Only SIP is bound; asking for the HTTP address says why there is none. With HTTP both are."""
    async with open_wire(0) as wire:
        async with rustpbx.serve(memory_config(ALICE), outside=outside_of(wire, 0, ALICE), http=False) as server:
            assert (server.sip, wire.listeners) == ((ALICE, 5060), {})
            with pytest.raises(LocalError, match="without HTTP"):
                _ = server.http
        config = attrs.evolve(memory_config(ALICE), http_addr=(ALICE, 8080), allow_anonymous=True)
        async with rustpbx.serve(config, outside=outside_of(wire, 1, ALICE)) as server:
            assert (server.http, list(wire.listeners)) == ((ALICE, 8080), [(ALICE, 8080)])
        assert (wire.listeners, list(wire.bound)) == ({}, [])


# -- what it raises -------------------------------------------------------------------------------------------------


async def test_what_the_block_raises_comes_out_as_it_is() -> None:
    """No exception group around it, its cause kept; a group of the program's own stays one."""
    cause = KeyError("why")
    async with open_wire(0) as wire:
        with pytest.raises(ValueError, match="mine") as raised:
            async with rustpbx.serve(memory_config(ALICE), outside=outside_of(wire, 0, ALICE), http=False):
                raise ValueError("mine") from cause
        assert raised.value.__cause__ is cause
        own = ExceptionGroup("own", [ValueError("mine")])
        with pytest.raises(ExceptionGroup) as group:
            async with rustpbx.serve(memory_config(ALICE), outside=outside_of(wire, 1, ALICE), http=False):
                raise own
        assert repr(group.value) == repr(own)


async def test_an_address_that_is_taken_is_an_oserror() -> None:
    """As itself, not in a group, and the server that has the address goes on."""
    async with (
        open_wire(0) as wire,
        rustpbx.serve(memory_config(ALICE), outside=outside_of(wire, 0, ALICE), http=False) as server,
        open_phone(wire.host(BOB), BOB) as phone,
    ):
        with pytest.raises(OSError, match="in use"):
            await rustpbx.serve(memory_config(ALICE), outside=outside_of(wire, 1, ALICE), http=False).__aenter__()
        calls = server.calls()
        await phone.dial(f"sip:alice@{ALICE}:5060")
        assert (await anext(calls)).caller == phone.uri


# -- real sockets ---------------------------------------------------------------------------------------------------


def children() -> set[str]:
    """Our child processes."""
    return {
        child
        for task in Path("/proc/self/task").iterdir()
        for child in (task / "children").read_text(encoding="ascii").split()
    }


@pytest.mark.real_time
async def test_on_real_sockets_nothing_outlives_the_block() -> None:
    """Two servers talk on loopback and are cancelled in the middle of it: no task, descriptor or process is left."""
    await trio.to_thread.run_sync(lambda: None)  # whatever Trio keeps for itself is there now
    tasks, files, processes = trio.lowlevel.current_statistics().tasks_living, open_files(), children()
    with trio.CancelScope() as program:
        async with two_real_servers() as pair, trio.open_nursery() as nursery:
            nursery.start_soon(pair.bob.each_call, repeat)
            await trio.testing.wait_all_tasks_blocked()
            async with pair.alice.call() as call:
                await call.invite(callee=pair.bob_uri, asr=ASR, tts=TTS)
                async for event in call:
                    if isinstance(event, rustpbx.events.AsrFinal):
                        assert event.text == "hello"
                        break
                assert pair.leftovers()["legs"] == 2
                assert len(open_files()) > len(files)
                program.cancel()
                await trio.sleep_forever()
    assert program.cancelled_caught
    assert call.ended
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert open_files() == files
    assert children() == processes


@pytest.mark.real_time
async def test_worker_processes_start_when_they_are_used_and_end_with_the_block() -> None:
    """A server that speaks to nobody has none; one job starts one, and leaving reaps it and closes its pipes."""
    before, files = children(), open_files()
    async with real_outside() as outside:
        assert isinstance(outside.offload, Workers)
        async with rustpbx.serve(addr="127.0.0.1", udp_port=0, http=False, outside=outside):
            assert children() == before
            with pytest.raises(rustpbx.RustpbxError):
                await outside.offload.worker("decode", decode, b"no sound", 8000)
            assert len(children() - before) == 1
        assert len(children() - before) == 1  # it belongs to the outside, which the program made itself
    assert (children(), open_files()) == (before, files)


# -- a good guest ---------------------------------------------------------------------------------------------------

STATE = """
    import gc, json, logging, os, signal, sys, threading, warnings

    def state():
        root = logging.getLogger()
        loggers = {name: (logger.level, len(logger.handlers), logger.propagate)
                   for name, logger in logging.Logger.manager.loggerDict.items()
                   if isinstance(logger, logging.Logger) and name.startswith("rustpbx")}
        return {
            "signals": {str(number): repr(signal.getsignal(number)) for number in signal.valid_signals()},
            "gc": [gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()],
            "root": [root.level, len(root.handlers), logging.root.manager.disable],
            "loggers": {name: value for name, value in loggers.items() if value != (0, 0, True)},
            "environment": dict(os.environ),
            "warnings": [repr(entry) for entry in warnings.filters],
            "hooks": [repr(sys.excepthook), repr(sys.unraisablehook), repr(threading.excepthook)],
            "limits": __import__("resource").getrlimit(__import__("resource").RLIMIT_NOFILE),
        }

    def heavy():
        return sorted({"av", "onnxruntime", "numpy", "httpx", "trio", "cattrs", "pytest"} & sys.modules.keys())
"""


def run_python(code: str) -> object:
    """The JSON that a fresh interpreter prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    program = textwrap.dedent(STATE) + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


@pytest.mark.parametrize("module", ["rustpbx", "rustpbx.testing"])
def test_importing_changes_nothing_in_the_process(module: str) -> None:
    """Not a signal handler, gc setting, logger, warning filter, hook, limit or variable."""
    found = run_python(
        f"""
        before = state()
        import {module}
        after = state()
        print(json.dumps([key for key in before if before[key] != after[key]]))
        """
    )
    assert found == []


def test_importing_the_package_is_light() -> None:
    """Nothing heavy comes with the bare import; the names come when they are used, and are all there."""
    found = run_python(
        """
        import rustpbx
        light = heavy()
        names = [getattr(rustpbx, name).__name__ for name in rustpbx.__all__ if name != "__version__"]
        print(json.dumps([light, names == [n if n != "events" else "rustpbx.session.events"
                                           for n in rustpbx.__all__ if n != "__version__"]]))
        """
    )
    assert found == [[], True]


def test_a_running_server_changes_nothing_in_the_process() -> None:
    """Signals, gc, logging, environment are the host's while a server runs, and after it."""
    found = run_python(
        """
        import rustpbx, trio, rustpbx.app
        async def main():
            before = state()
            async with rustpbx.serve(addr="127.0.0.1", udp_port=0, http_addr="127.0.0.1:0"):
                during = state()
            return before, during, state()
        before, during, after = trio.run(main)
        print(json.dumps([key for key in before if not before[key] == during[key] == after[key]]))
        """
    )
    assert found == []


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As of any module, so that `hasattr` and star imports work."""
    assert not hasattr(rustpbx, "nothing")
    assert {"serve", "Call", "events", "__version__"} <= set(dir(rustpbx))
